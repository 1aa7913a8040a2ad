"""What happens to a whole cluster between two snapshots: tuple identity must not be believed across it.

Each story makes the same xids and the same TIDs mean other rows, and checks that it did.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest
from tests.support import servers
from tests.support.cli import Desk
from tests.support.cluster import Cluster, start_cluster
from tests.support.histories import SETTINGS, Watched, new_desk, open_scene
from tests.support.history_clusters import (
    copy_data,
    cut_off,
    lazy,
    make_standby,
    next_xid,
    promote,
    put_back,
    start,
    stop,
    upgrade,
    url_of,
    wait_for_standby,
)
from tests.support.history_models import Model, right_model, without_flush, without_timeline
from tests.support.psql import run_sql_file
from tests.support.snapshot_scene import Script


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    return new_desk(tmp_path / "desk")


@dataclass(slots=True)
class Farm:
    """The clusters of one test."""

    clusters: list[Cluster] = field(default_factory=list)

    def make(self, version: int, settings: Mapping[str, str] | None = None) -> Cluster:
        """A new one, running."""
        home = servers.binaries(version)
        servers.needs(f"PostgreSQL {version}", home is not None)
        assert home is not None
        together = {**SETTINGS, **(settings or {})}
        return self.keep(start_cluster(home, superuser="postgres", password=servers.PASSWORD, settings=together))

    def keep(self, cluster: Cluster) -> Cluster:
        """Stopped at the end."""
        self.clusters.append(cluster)
        return cluster


@pytest.fixture
def farm() -> Iterator[Farm]:
    """Stops them all."""
    made = Farm()
    yield made
    for one in made.clusters:
        one.stop()


def _fill(cluster: Cluster) -> str:
    with psycopg.connect(url_of(cluster), autocommit=True) as connection:
        connection.execute("CREATE DATABASE app")
    url = url_of(cluster, "app")
    run_sql_file(url, "history.sql")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    return url


def _watched(url: str, desk: Desk, title: str, *more: Model) -> Watched:
    return Watched(desk=desk, scene=open_scene(url, desk), title=title, models=[right_model(), *more])


def _change(url: str, salt: str) -> int:
    """The same statements with other values: from the same state the same xids and TIDs. Their last xid."""
    with psycopg.connect(url, autocommit=True) as connection:
        for i in range(12):
            connection.execute(f"INSERT INTO heap SELECT g, '{salt}', 'x' FROM generate_series(1, 5) g".encode())
            connection.execute(f"UPDATE counter SET note = '{salt}' WHERE id % 12 = {i}".encode())
            connection.execute(f"UPDATE wide SET note = '{salt}' WHERE id % 100 = {i}".encode())
            connection.execute(f"INSERT INTO fleeting VALUES ({i}, '{salt}')".encode())
        row = connection.execute("SELECT max(xmin::text::int8) FROM heap").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("version", servers.versions()[-1:])
@pytest.mark.parametrize(("delay", "rounds"), [("700ms", 2), ("10s", 1)], ids=["soon flushed", "not flushed in time"])
def test_crash_that_loses_commits(
    delay: str, rounds: int, version: int, farm: Farm, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asynchronous commits that a snapshot saw must be on disk before it counts; those after it may be lost."""
    if delay == "10s":  # where nobody may make the server flush
        monkeypatch.setattr("pgkura.snapshot.finishing.FLUSH_SECONDS", 0.3)
        monkeypatch.setattr("pgkura.snapshot.finishing.nudge", lambda session: None)
    cluster = farm.make(version, lazy(delay))
    url = _fill(cluster)
    fault = without_flush()
    watched = _watched(url, desk, "crash", fault)
    watched.snapshot()
    lost = 0
    for round_ in range(rounds):
        _change(url, f"seen {round_}")
        watched.snapshot()  # right after commits that nobody has flushed
        last = _change(url, f"lost {round_}")
        stop(cluster, "immediate")
        start(cluster)
        lost += _change(url, f"again {round_}") <= last
        watched.snapshot()
        watched.snapshot()
    assert lost, "no commit was lost: the story did not happen"
    assert fault.wrong or not watched.unflushed, "even believing it nothing was lost: the story did not happen"


@pytest.mark.parametrize("version", sorted({servers.versions()[0], servers.versions()[-1]}))
def test_a_server_process_dies_on_a_server_at_rest(version: int, farm: Farm, desk: Desk) -> None:
    """Unlogged tables are emptied, and nothing else tells: no transaction ends, the server was not started anew."""
    cluster = farm.make(version)
    url = _fill(cluster)
    env = {"DATABASE_URL": url}
    before = _state(url)
    for _ in range(10):
        desk.run("backup", env=env).expect()
        if (now := _state(url)) == before:
            break
        before = now  # to have something flushed is a transaction
    with psycopg.connect(url) as connection:
        victim = psutil.Process(connection.info.backend_pid)
        assert victim.name() == "postgres"
        victim.kill()
        with pytest.raises(psycopg.OperationalError):
            while connection.execute("SELECT pg_sleep(0.1)"):
                pass
    for _ in range(100):
        try:
            after = _state(url)
            break
        except psycopg.OperationalError:  # it is recovering
            time.sleep(0.1)
    assert after[:-1] == before[:-1] and (before[-1], after[-1]) == (80, 0), "the story did not happen"
    desk.run("backup", env=env).expect()
    desk.run("verify", "--against", "env:DATABASE_URL", env=env).expect()


def _state(url: str) -> tuple[object, ...]:
    """Snapshot, start and file, and how many rows are in the unlogged table."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT pg_current_snapshot()::text, pg_postmaster_start_time(), pg_relation_filenode('fleeting'), "
            "(SELECT count(*)::int FROM fleeting)"
        ).fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("version", servers.versions()[-1:])
def test_crash_while_a_snapshot_is_taken(version: int, farm: Farm, desk: Desk) -> None:
    """The next one goes on from the last whole one."""
    cluster = farm.make(version, lazy("1s"))
    url = _fill(cluster)
    watched = _watched(url, desk, "crash during a snapshot")
    watched.snapshot()
    for stage in ("reading rows", "finishing"):
        _change(url, f"before {stage}")
        kept = watched.scene.repo.manifest_ids()
        with pytest.raises(Exception, match=r".") as error:
            watched.snapshot(Script(steps={stage: lambda: stop(cluster, "immediate")}))
        assert not isinstance(error.value, AssertionError), error.value
        assert watched.scene.repo.manifest_ids() == kept
        start(cluster)
        _change(url, f"after {stage}")
        watched.snapshot()


@pytest.mark.parametrize("version", servers.versions()[-1:])
def test_failover_to_a_standby_that_lost_commits(version: int, farm: Farm, desk: Desk) -> None:
    """The promoted server hands out again the xids of rows that a snapshot of the old primary holds."""
    primary = farm.make(version)
    url = _fill(primary)
    standby = farm.keep(make_standby(primary))
    wait_for_standby(primary)
    fault = without_timeline()
    watched = _watched(url, desk, "failover", fault)
    cut_off(standby)
    watched.snapshot()
    lost = _change(url, "lost")
    watched.snapshot()
    stop(primary, "immediate")
    promote(standby)
    promoted = url_of(standby, "app")
    with psycopg.connect(promoted, autocommit=True) as connection:
        # Something else of the primary may have taken a transaction number since; the last of the twelve rounds'
        # inserts has the number that is compared.
        coming = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        while (connection.execute(coming).fetchone() or (lost,))[0] < lost - 4 * 11:
            connection.execute("SELECT pg_current_xact_id()")
    again = _change(promoted, "again")
    assert again == lost, "other xids: the story did not happen"
    watched.scene = open_scene(promoted, desk)
    watched.snapshot()
    assert fault.wrong, "even without the timeline in the key nothing was lost: the story did not happen"
    _change(promoted, "later")
    watched.snapshot()


def test_a_snapshot_of_a_standby_is_no_base(farm: Farm, desk: Desk) -> None:
    """A standby's snapshot does not list running transactions as the primary's does."""
    primary = farm.make(servers.versions()[-1])
    url = _fill(primary)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE fleeting")  # unlogged: cannot be read on a standby
    standby = farm.keep(make_standby(primary))
    behind = url_of(standby, "app")
    ours, theirs = open_scene(url, desk), open_scene(behind, desk)
    watched = _watched(url, desk, "standby and primary by turns")
    watched.snapshot()
    with psycopg.connect(url) as open_, psycopg.connect(url, autocommit=True) as other:
        open_.execute("INSERT INTO heap SELECT g, 'open', 'x' FROM generate_series(1, 50) g")
        open_.execute("SAVEPOINT s")
        open_.execute("INSERT INTO heap SELECT g, 'open too', 'x' FROM generate_series(1, 50) g")
        other.execute("INSERT INTO counter (id) VALUES (9001)")
        _replayed(url, behind)
        assert theirs.take().result.value in ("ok", "incomplete")
        open_.commit()
    watched.scene = ours
    watched.snapshot()


def _replayed(primary: str, standby: str) -> None:
    with psycopg.connect(primary, autocommit=True) as ours, psycopg.connect(standby, autocommit=True) as theirs:
        row = ours.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        ours.execute("SELECT txid_current()")
        assert row is not None
        for _ in range(200):
            if theirs.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (row[0],)).fetchall()[0][0]:
                return
            theirs.execute("SELECT pg_sleep(0.1)")
    raise AssertionError("the standby does not follow")


def test_pg_upgrade(desk: Desk, farm: Farm) -> None:
    """Another cluster, the same xids and places."""
    old_home, new_home = servers.wheel_binaries(16), servers.wheel_binaries(18)
    servers.needs("pg_upgrade from 16 to 18", bool(old_home and new_home and (new_home / "pg_upgrade").exists()))
    assert old_home is not None and new_home is not None
    old = farm.keep(start_cluster(old_home, superuser="postgres", password=servers.PASSWORD, settings={}))
    url = _fill(old)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE names")  # pg_upgrade refuses reg* columns
    watched = _watched(url, desk, "pg_upgrade")
    watched.snapshot()
    _change(url, "old")
    watched.snapshot()
    new = farm.keep(upgrade(old, new_home))
    upgraded = url_of(new, "app")
    watched.scene = open_scene(upgraded, desk)
    watched.snapshot()
    _change(upgraded, "new")
    watched.snapshot()


@pytest.mark.parametrize("more", [False, True], ids=["less log than before", "more log than before"])
def test_a_data_folder_put_back(more: bool, farm: Farm, desk: Desk, tmp_path: Path) -> None:
    """A volume rewound under a stopped server: same cluster, timeline and files, other rows with the same xids."""
    cluster = farm.make(servers.versions()[-1])
    url = _fill(cluster)
    watched = _watched(url, desk, "rewound")
    watched.models.clear()
    stop(cluster)
    saved = cluster.folder / "saved"
    copy_data(cluster, saved)
    start(cluster)
    lost = _change(url, "lost")
    watched.snapshot()
    stop(cluster)
    put_back(cluster, saved)
    start(cluster)
    assert _change(url, "again") == lost, "other xids: the story did not happen"
    if more:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_logical_emit_message(false, 'pad', repeat('x', 1000000)) FROM generate_series(1, 20)"
            )
    watched.snapshot()
    shutil.rmtree(saved, ignore_errors=True)


def test_xids_wrap_around(farm: Farm, desk: Desk) -> None:
    """Raw xids of 32 bits come round again: far from the base all is read, and nothing new ever looks old."""
    cluster = farm.keep(_wheel_cluster(18))
    url = _fill(cluster)
    watched = _watched(url, desk, "wraparound")
    watched.snapshot()
    for jump in range(1, 4):
        _change(url, f"before {jump}")
        watched.snapshot()
        _freeze(cluster)
        stop(cluster)
        next_xid(cluster, jump * 1_500_000_000)
        start(cluster)
        _change(url, f"after {jump}")
        watched.snapshot()
        _change(url, f"later {jump}")
        watched.snapshot()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT pg_current_xact_id() >= '4294967296'").fetchall() == [(True,)]


def _wheel_cluster(version: int) -> Cluster:
    home = servers.wheel_binaries(version)
    servers.needs(f"pg_resetwal of {version}", home is not None and (home / "pg_resetwal").exists())
    assert home is not None
    return start_cluster(home, superuser="postgres", password=servers.PASSWORD, settings=SETTINGS)


def _freeze(cluster: Cluster) -> None:
    with psycopg.connect(url_of(cluster), autocommit=True) as connection:
        connection.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
        names = [str(n) for (n,) in connection.execute("SELECT datname FROM pg_database").fetchall()]
    for name in names:
        with psycopg.connect(url_of(cluster, name), autocommit=True) as connection:
            connection.execute("VACUUM (FREEZE)")
