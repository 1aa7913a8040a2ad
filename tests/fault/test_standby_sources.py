"""A standby as the source: written to through its primary meanwhile, vacuumed, and in the way of replay."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support import servers
from tests.support.cli import Desk
from tests.support.cluster import Cluster, start_cluster
from tests.support.histories import new_desk, open_scene
from tests.support.history_clusters import make_standby, reload, url_of
from tests.support.snapshot_scene import FEW_CONNECTIONS, Scene, Script

from pgkura.core.errors import SourceBusy
from pgkura.core.outcome import FindingClass, Result

SCHEMA = (
    "CREATE TABLE books (id bigserial PRIMARY KEY, title text, copies int NOT NULL DEFAULT 1)",
    "INSERT INTO books (title) SELECT repeat(md5(g::text), 20) FROM generate_series(1, 20000) g",
    "CREATE TABLE pairs (a int, b int)",
    "INSERT INTO pairs SELECT g, g FROM generate_series(1, 5000) g",
    "CREATE VIEW shelf AS SELECT id, title FROM books",
)


class Pair:
    """A primary and its standby; `app` is the database on both."""

    def __init__(self, version: int) -> None:
        home = servers.binaries(version)
        servers.needs(f"PostgreSQL {version}", home is not None)
        assert home is not None
        settings = {"autovacuum": "off", "wal_level": "replica", "max_connections": "100"}
        self.primary = start_cluster(home, superuser="postgres", password=servers.PASSWORD, settings=settings)
        with psycopg.connect(url_of(self.primary), autocommit=True) as connection:
            connection.execute("CREATE DATABASE app")
        self.on_primary(*SCHEMA, "CHECKPOINT")
        self.standby = make_standby(self.primary)

    def on_primary(self, *statements: str) -> None:
        """Each in a transaction of its own."""
        with psycopg.connect(url_of(self.primary, "app"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def replayed(self) -> None:
        """Until the standby has all that the primary has written."""
        with (
            psycopg.connect(url_of(self.primary), autocommit=True) as ours,
            psycopg.connect(url_of(self.standby), autocommit=True) as theirs,
        ):
            ours.execute("SELECT pg_logical_emit_message(true, 'test', '')")
            row = ours.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
            assert row is not None
            for _ in range(200):
                if theirs.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchall()[0][0]:
                    return
                theirs.execute("SELECT pg_sleep(0.1)")
        raise AssertionError("the standby does not follow")

    def set(self, cluster: Cluster, **settings: str) -> None:
        """Change settings that need no restart."""
        reload(cluster, settings)

    @property
    def url(self) -> str:
        """Of the standby."""
        return url_of(self.standby, "app")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Of Debian's 15 where it is, else of the newest version here."""
    found = servers.versions()
    made = Pair(15 if 15 in found else found[-1])
    yield made
    made.standby.stop()
    made.primary.stop()


@pytest.fixture
def scene(pair: Pair, tmp_path: Path) -> Scene:
    """The standby, with a repository."""
    pair.replayed()
    return open_scene(pair.url, new_desk(tmp_path / "desk"))


def _rows(url: str, table: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2".encode()).fetchall()


def test_a_standby_is_backed_up_while_its_primary_is_written_to_and_vacuumed(pair: Pair, tmp_path: Path) -> None:
    """What comes back is what the standby showed when the snapshot was taken."""
    pair.set(pair.standby, hot_standby_feedback="on")
    pair.replayed()
    desk = new_desk(tmp_path / "desk")
    scene = open_scene(pair.url, desk)
    before: list[list[Any]] = []
    ended = threading.Event()

    def trouble() -> None:
        while not ended.is_set():
            pair.on_primary(
                "UPDATE books SET copies = copies + 1 WHERE id % 7 = 0",
                "DELETE FROM pairs WHERE a IN (SELECT a FROM pairs LIMIT 20)",
                "INSERT INTO books (title) VALUES ('new')",
                "VACUUM books, pairs",
            )

    thread = threading.Thread(target=trouble, daemon=True)

    def begin() -> None:
        before.extend((_rows(pair.url, "books"), _rows(pair.url, "pairs")))
        thread.start()

    # Nothing is written between the snapshot and `begin`, which reads what the snapshot sees.
    script = Script({"reading definitions": begin})
    try:
        taken = scene.take(script, bytes_per_second=6_000_000)
    finally:
        ended.set()
        thread.join()
    assert taken.result is Result.OK, taken.findings
    assert not [n for n in script.notes if "hot_standby_feedback" in n]
    target = servers.blank(servers.newest().version).create_database("from_standby")
    desk.run("restore", "latest", "--to", target, "--json").expect()
    assert [_rows(target, "books"), _rows(target, "pairs")] == before
    again = scene.take()
    assert again.result is Result.OK
    assert again.counts["bytes_read"] > taken.counts["bytes_read"] * 0.9, "read whole every time"


def test_unlogged_tables_and_sequences_are_named_and_the_rest_is_stored(pair: Pair, tmp_path: Path) -> None:
    pair.on_primary(
        "CREATE UNLOGGED TABLE fleeting (id bigint GENERATED ALWAYS AS IDENTITY, v text)",
        "INSERT INTO fleeting (v) VALUES ('x')",
        "CREATE UNLOGGED TABLE parts (a int) PARTITION BY LIST (a)" if False else "SELECT 1",
    )
    try:
        pair.replayed()
        desk = new_desk(tmp_path / "desk")
        told = desk.run("backup", "--json", env={"DATABASE_URL": pair.url}).expect(3).json
        named = {f["object"]: (f["class"], f["reason"]) for f in told["skipped"]}
        assert named['table "public"."fleeting"'][0] == "denied"
        assert "standby" in named['table "public"."fleeting"'][1]
        sequence = [o for o in named if o.startswith("sequence ")]
        waived = [a for o in ('table "public"."fleeting"', *sequence) for a in ("--accept", o)]
        assert desk.run("backup", *waived, "--json", env={"DATABASE_URL": pair.url}).expect().json["result"] == "ok"
        target = servers.blank(servers.newest().version).create_database("without_unlogged")
        desk.run("restore", "latest", "--to", target, "--json")
        assert _rows(target, "books") == _rows(pair.url, "books")
        with psycopg.connect(target) as connection:
            assert connection.execute("SELECT count(*) FROM fleeting").fetchall() == [(0,)]
    finally:
        pair.on_primary("DROP TABLE fleeting")


def test_a_conflict_with_replay_is_told_as_what_it_is(pair: Pair, scene: Scene) -> None:
    """Rows that the snapshot sees are vacuumed away on the primary, and the standby does not wait."""
    pair.set(pair.standby, hot_standby_feedback="off", max_standby_streaming_delay="100ms")
    before = scene.repo.manifest_ids()

    def vacuum() -> None:
        pair.on_primary("UPDATE books SET copies = copies + 1", "VACUUM books")
        pair.replayed()

    script = Script({"reading rows": vacuum})
    try:
        with pytest.raises(SourceBusy) as caught:
            scene.take(script)
    finally:
        pair.set(pair.standby, max_standby_streaming_delay="30s")
    assert "had to replay" in caught.value.msg and "hot_standby_feedback = on" in caught.value.hint
    assert any("hot_standby_feedback = off" in n and "100ms" in n for n in script.notes), script.notes
    assert scene.repo.manifest_ids() == before
    assert scene.take().result is Result.OK


def test_ddl_that_replay_waits_with_is_given_way_to(pair: Pair, scene: Scene) -> None:
    """The standby's replay is an application too: it waits for our lock no longer than the bound."""
    pair.set(pair.standby, hot_standby_feedback="on", max_standby_streaming_delay="30s")
    pair.on_primary("CREATE TABLE gone AS SELECT 1 AS a")
    pair.replayed()

    waited: list[float] = []

    def drop() -> None:
        began = time.monotonic()
        pair.on_primary("DROP TABLE gone")
        pair.replayed()
        waited.append(time.monotonic() - began)

    script = Script({"reading rows": drop})
    # Else pg_dump may hold the table too: then a new snapshot is taken, and the step comes again.
    taken = scene.take(script, max_blocking_seconds=2.0, connection_share=FEW_CONNECTIONS)
    assert waited[0] < 2.0 + 3.0
    assert any("gave way" in n for n in script.notes), script.notes
    lost = [f.object for f in taken.findings if f.cls is FindingClass.LOST]
    assert lost == ['table "public"."gone"']


def test_read_from_takes_a_standby_of_the_same_system_and_nothing_else(pair: Pair, tmp_path: Path) -> None:
    pair.replayed()
    desk: Desk = new_desk(tmp_path / "desk")
    source = {"DATABASE_URL": url_of(pair.primary, "app"), "STANDBY": pair.url}
    told = desk.run("backup", "--read-from", "env:STANDBY", "--json", env=source).expect().json
    assert "every backup of it reads everything" in desk.run("doctor", env={"DATABASE_URL": pair.url}).out
    assert told["result"] == "ok"
    with psycopg.connect(url_of(pair.primary), autocommit=True) as connection:
        row = connection.execute("SELECT numbackends FROM pg_stat_database WHERE datname = 'app'").fetchone()
        assert row is not None
    target = servers.blank(servers.newest().version).create_database("read_from")
    desk.run("restore", "latest", "--to", target, "--json").expect()
    assert _rows(target, "books") == _rows(pair.url, "books")
    stranger = servers.newest().create_database("app")
    refused = desk.run("backup", "--read-from", stranger, env=source).expect(2)
    assert "is another system" in refused.err
    assert (
        "no standby: it takes writes"
        in desk.run("backup", "--read-from", source["DATABASE_URL"], env=source).expect(2).err
    )
    elsewhere = desk.run("backup", "--read-from", url_of(pair.standby), env=source).expect(2)
    assert "names the database 'postgres'" in elsewhere.err
    assert servers.PASSWORD not in elsewhere.err + refused.err
    assert "--all" in desk.run("backup", "--all", "--read-from", pair.url).expect(2).err
    assert len(desk.run("snapshots", "--json").expect().json["snapshots"]) == 1
