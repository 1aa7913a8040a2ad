"""What a backup asks of a real server: rates, shares, timeouts, the snapshot's age, connections, a flushed log."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.support import servers
from tests.support.cluster import Cluster, start_cluster
from tests.support.histories import new_desk
from tests.support.history_clusters import lazy, url_of
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, Script, make_scene

from pgkura.core.errors import SourceBusy
from pgkura.core.outcome import FindingClass, Result

WIDE = "CREATE TABLE wide AS SELECT g AS id, repeat(md5(g::text), 30) AS v FROM generate_series(1, 8000) g"  # 8 MB
MORE = "INSERT INTO wide SELECT g, repeat(md5(g::text), 30) FROM generate_series(8001, 60000) g"
SLACK = 3.0  # of a busy machine


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A database with a table of 8 MB."""
    name = f"manners_{uuid4().hex[:8]}"
    made = make_scene(newest().create_database(name), tmp_path / "repository")
    made.sql(WIDE, "CREATE TABLE small AS SELECT 1 AS a", "VACUUM ANALYZE")
    yield made
    assert made.leftovers() == []
    newest().drop_database(name)


def _own_cluster(tmp_path: Path, settings: dict[str, str]) -> tuple[Cluster, Scene]:
    home = servers.binaries(servers.versions()[-1])
    assert home is not None
    cluster = start_cluster(home, superuser="postgres", password=servers.PASSWORD, settings=settings)
    return cluster, make_scene(url_of(cluster), tmp_path / "repository")


# -- rates and shares ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_come_no_faster_than_the_rate(workers: int, scene: Scene) -> None:
    free = scene.take(workers=workers, full=True)
    paced = scene.take(workers=workers, full=True, bytes_per_second=2_000_000)
    assert paced.counts["bytes_read"] == free.counts["bytes_read"] > 7_500_000
    most = paced.counts["bytes_read"] / 2_000_000
    assert paced.seconds > most * 0.9
    assert paced.seconds < free.seconds + most * workers * SLACK  # one table of one unit is one worker's


def test_a_rate_below_a_batch_a_second_is_kept_too(scene: Scene) -> None:
    scene.sql("DELETE FROM wide WHERE id > 500")
    taken = scene.take(workers=2, bytes_per_second=300_000)
    assert taken.seconds > taken.counts["bytes_read"] / 300_000 * 0.9


def test_the_places_of_changed_ranges_count_and_counting_does_not(scene: Scene) -> None:
    """A quiet table is counted on the server: nothing travels, and no rate holds it up."""
    small: dict[str, Any] = {"range_pages": 16, "small_bytes": 8192}
    scene.take(**small)
    quiet = scene.take(**small, bytes_per_second=200_000)
    assert quiet.counts["bytes_read"] < 1000
    scene.sql("UPDATE wide SET v = 'new' WHERE id % 100 = 0")
    changed = scene.take(**small, bytes_per_second=200_000)
    assert 8000 * 6 < changed.counts["bytes_read"] < 1_000_000
    assert changed.seconds > changed.counts["bytes_read"] / 200_000 * 0.9


def test_pauses_leave_the_server_most_of_the_time(scene: Scene) -> None:
    """Seen from outside: how often the worker's server process is found at work."""
    scene.sql(MORE)
    seen: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        with scene.connect() as connection:
            while not ended.wait(0.01):
                rows = connection.execute(
                    "SELECT state, wait_event FROM pg_stat_activity WHERE application_name LIKE 'pgkura % worker'"
                ).fetchall()
                seen.extend(f"{state} {event}" for state, event in rows)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    free = scene.take(workers=1, full=True)
    seen.clear()
    taken = scene.take(workers=1, full=True, cpu_share=0.2)
    ended.set()
    watching.join()
    assert taken.result is Result.OK
    assert taken.seconds > free.seconds
    working = [s for s in seen if s.startswith("active") and s != "active ClientWrite"]
    assert len(seen) > 50 and len(working) < len(seen) * 0.2 * SLACK, (len(working), len(seen))


# -- timeouts --------------------------------------------------------------------------------------------------


def test_a_statement_that_takes_too_long_is_named_and_the_rest_is_stored(scene: Scene) -> None:
    """The pace makes the COPY longer than what fits into buffers on the way; a timeout of the server ends it, twice."""
    scene.sql(MORE)
    taken = scene.take(bytes_per_second=6_000_000, workers=1, gentle=True, statement_timeout_seconds=1)
    lost = {f.object: f.reason for f in taken.findings if f.cls is FindingClass.LOST}
    assert lost == {
        'table "public"."wide"': "it took too long to read; its rows are missing "
        "(a statement ran longer than the 1 s allowed)"
    }
    assert taken.result is Result.INCOMPLETE
    assert {t.name: t.rows for t in scene.repo.chunk_list(taken.manifest)}['"public"."small"'] == 1
    assert scene.take(statement_timeout_seconds=600).result is Result.OK


def test_a_timeout_never_ends_the_connection_that_keeps_the_snapshot(scene: Scene) -> None:
    taken = scene.take(
        Script({"reading rows": lambda: time.sleep(1.5)}), statement_timeout_seconds=1, lock_timeout_seconds=0.1
    )
    assert taken.result is Result.OK


# -- the snapshot's age ----------------------------------------------------------------------------------------


def test_an_old_snapshot_is_told_with_numbers_before_it_hurts(scene: Scene) -> None:
    def churn() -> None:
        scene.sql("UPDATE small SET a = a + 1", "UPDATE small SET a = a + 1", "DELETE FROM wide WHERE id < 1000")

    script = Script({"reading rows": churn})
    taken = scene.take(script, bytes_per_second=2_000_000, workers=1, max_snapshot_age_seconds=2.5)
    assert taken.result is Result.OK
    told = [n for n in script.notes if "holds back VACUUM" in n]
    assert len(told) == 2, script.notes
    assert "age(backend_xmin) is" in told[0] and "dead rows" in told[0] and "at 2.5 s this is said again" in told[0]
    assert "the backup goes on" in told[1]


def test_a_snapshot_too_old_ends_the_backup_and_nothing_is_half_written(scene: Scene) -> None:
    with pytest.raises(SourceBusy) as caught:
        scene.take(bytes_per_second=1_000_000, max_snapshot_age_seconds=2, end_at_snapshot_age=True)
    assert "age of 2 s" in caught.value.msg and "--max-snapshot-age" in caught.value.hint
    assert caught.value.exit_code == 20
    assert scene.repo.manifest_ids() == []
    assert scene.leftovers() == []
    assert scene.take().result is Result.OK


def test_the_command_line_says_all_this(scene: Scene, tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    source = {"DATABASE_URL": scene.url}
    slow = ["backup", "--max-rate", "1000000"]
    ended = desk.run(*slow, "--max-snapshot-age", "1s", "--end-at-snapshot-age", env=source).expect(20)
    assert "age of 1 s" in ended.err
    assert desk.run("snapshots", "--json").expect().json["snapshots"] == []
    told = desk.run(*slow, "--max-snapshot-age", "1s", env=source).expect()
    assert "age(backend_xmin)" in told.err
    gentle = [
        "--cpu-share",
        "0.5",
        "--statement-timeout",
        "10min",
        "--lock-timeout",
        "300ms",
        "--connection-share",
        "0.2",
    ]
    assert desk.run("backup", *gentle, "--json", env=source).expect().json["result"] == "ok"
    for option, wrong in (("--statement-timeout", "soon"), ("--lock-timeout", "1ms"), ("--cpu-share", "0.01")):
        assert option in desk.run("backup", option, wrong, env=source).expect(2).err


def test_vacuum_may_go_on_as_soon_as_the_rows_are_read(scene: Scene) -> None:
    """But for the moment in which the server ends a process of ours that has left."""
    holding: list[list[int]] = []

    def look() -> None:
        until = time.monotonic() + 2.0 * SLACK
        while time.monotonic() < until and (not holding or holding[-1]):
            holding.append([
                pid for (pid,) in scene.rows(
                    "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgkura %' "
                    "AND backend_xmin IS NOT NULL"
                )
            ])  # fmt: skip
            time.sleep(0.05)

    assert scene.take(Script({"finishing": look})).result is Result.OK
    assert holding[-1] == []


# -- sixty connections -----------------------------------------------------------------------------------------


def test_sixty_connections_of_which_fifty_are_in_use(tmp_path: Path) -> None:
    cluster, scene = _own_cluster(tmp_path, {"max_connections": "60"})
    used: list[psycopg.Connection[tuple[object, ...]]] = []
    most = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        with scene.connect() as connection:
            while not ended.wait(0.02):
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgkura%'"
                ).fetchone()
                assert row is not None
                most = max(most, int(row[0]))

    try:
        scene.sql(WIDE)
        used.extend(psycopg.connect(scene.url) for _ in range(30))
        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        assert scene.take(workers=4, full=True).result is Result.OK
        assert 4 <= most <= 7, "a quarter of the 26 that were free"
        used.extend(psycopg.connect(scene.url) for _ in range(19))  # fifty, with the one that watches
        most = 0
        with pytest.raises(SourceBusy, match=r"7 connections are free; a backup needs 5 and may take 1") as caught:
            scene.take()
        hint = caught.value.hint
        assert most <= 2
        share = float(hint.split("--connection-share ")[1].rstrip(")"))
        assert scene.take(workers=4, connection_share=share, full=True).result is Result.OK
        assert most <= 5
    finally:
        ended.set()
        for connection in used:
            connection.close()
        cluster.stop()


# -- the server's log ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True], ids=["superuser", "plain owner"])
def test_a_lazy_log_writer_is_not_waited_for(plain: bool, tmp_path: Path) -> None:
    """Commits nobody has flushed: ours flushes them, so that the next backup goes on from this one."""
    cluster, scene = _own_cluster(tmp_path, lazy("10s") | {"wal_level": "replica"})
    try:
        url = ""
        if plain:
            scene.sql(
                f"CREATE ROLE keeper LOGIN PASSWORD '{servers.PASSWORD}'", "GRANT CREATE ON SCHEMA public TO keeper"
            )
            url = scene.url.replace("//postgres:", "//keeper:")
            scene = make_scene(url, tmp_path / "theirs")
        scene.sql(WIDE, "CHECKPOINT" if not plain else "SELECT 1")
        script = Script()
        for _ in range(2):
            scene.sql("UPDATE wide SET v = v || 'x' WHERE id = 1")
            script = Script()
            began = time.monotonic()
            scene.take(script, accepted=())
            assert not [n for n in script.notes if "not yet flushed" in n]
            assert time.monotonic() - began < 9
        assert not [n for n in script.notes if "everything is read" in n], script.notes
    finally:
        cluster.stop()
