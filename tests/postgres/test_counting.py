"""The server's counts against an oracle: what a look says to be counted is counted."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_holes import sql, write
from tests.postgres.test_watch import open_repository
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions
from tests.support.watchers import soon, watching

from pgkura.changes.options import Options
from pgkura.postgres import counting
from pgkura.postgres.counting import Counted, read_counted
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect

COUNTING = [v for v in versions() if v >= 15]
EDGES = sorted({COUNTING[0], COUNTING[-1]}) if COUNTING else []


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database whose owner may see all sessions."""
    home = server(request.param)
    name = f"counted_{request.param}"
    url = ledger.make(home, name)
    sql(home.url(name), f"GRANT pg_read_all_stats TO {name}_owner")
    sql(url, "CREATE TABLE grown (id int, v text, at timestamptz DEFAULT clock_timestamp())")
    yield url
    ledger.drop_slots(home, name)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


def look(url: str, publication: str = "counted") -> Counted:
    """One."""
    with connect(Endpoint.parse(url), application_name="pgkura watch") as session:
        counted = read_counted(session, publication)
    assert counted is not None
    return counted


class Updaters:
    """Sessions that update one row each time, and know when the commit was done; with every way to be late."""

    def __init__(self, url: str) -> None:
        self.url, self.commits, self.errors = url, list[float](), list[str]()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(5)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all."""
        self._end.set()
        for thread in self._threads:
            thread.join(30)
        assert not self.errors, self.errors

    def _run(self, n: int) -> None:
        chance = random.Random(n)
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                while not self._end.is_set():
                    before = time.time()
                    connection.execute(f"UPDATE grown SET v = 'x' WHERE id = {n}".encode())
                    self.commits.append(before)
                    if n == 0:
                        self._end.wait(chance.choice((0.01, 0.1, 14.0)))
                    elif n == 1:  # behind a transaction that does nothing for long
                        with connection.transaction():
                            connection.execute("SELECT 1")
                            self._end.wait(chance.choice((0.1, 4.0)))
                    elif n == 2:
                        connection.execute(b"SELECT pg_sleep(%f)" % chance.choice((0.1, 3.0)))
                    elif n == 3:  # commits inside of a procedure are counted at its end
                        connection.execute(b"CALL slow()")
                        self.commits.append(before)
                    else:
                        self._end.wait(chance.uniform(0.0, 1.5))
        except Exception as error:  # noqa: BLE001 - told by the test
            self.errors.append(repr(error))


@pytest.mark.parametrize("source", EDGES, indirect=True)
def test_what_is_said_to_be_counted_is_counted(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With far less patience than the product has."""
    monkeypatch.setattr(counting, "QUIET", 11.0)
    monkeypatch.setattr(counting, "SLACK", 2.5)
    sql(source, "INSERT INTO grown (id) SELECT generate_series(0, 4)")
    sql(
        source,
        "CREATE PROCEDURE slow() LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE grown SET v = 'y' WHERE id = 3; COMMIT; PERFORM pg_sleep(2); END $$",
    )
    sql(source, "CREATE PUBLICATION counted FOR TABLE grown WITH (publish = 'insert')")
    start = look(source).tables
    ((_, updated, _),) = start.values()
    updaters = Updaters(source)
    behind, late, until = 0, 0, time.time() + 40
    while time.time() < until:
        seen = look(source)
        commits = list(updaters.commits)
        ((_, now, _),) = seen.tables.values()
        # `before` of a commit is earlier than it: half a second of grace keeps the oracle honest.
        sure = sum(c < seen.until / 1_000_000 - 0.5 for c in commits)
        assert now - updated >= sure, (now - updated, sure)
        behind += now - updated < len(commits)
        late += sure > 0
        time.sleep(0.2)
    updaters.stop()
    assert behind > 5, "counts were never late: nothing was tried"
    assert late > 5, "nothing was ever said to be counted"


@pytest.mark.parametrize("source", EDGES, indirect=True)
def test_sessions_that_cannot_be_seen_are_not_believed(source: str) -> None:
    """Without pg_read_all_stats another role's session may hold anything; a reset is another epoch."""
    home = server(int(source.rsplit("_", 1)[1]))
    name = source.rsplit("/", 1)[1]
    sql(source, "CREATE PUBLICATION counted FOR TABLE grown WITH (publish = 'insert')")
    with psycopg.connect(home.url(name)):
        assert look(source).until > 0 and look(source).unseen == 0
        sql(home.url(name), f"REVOKE pg_read_all_stats FROM {name}_owner")
        assert look(source).until == 0 and look(source).unseen == 1
    soon(lambda: look(source).until > 0)
    before = look(source).epoch
    sql(home.url(name), "SELECT pg_stat_reset_single_table_counters('grown'::regclass)")
    soon(lambda: look(source).epoch != before)
    sql(home.url(name), f"ALTER ROLE {name}_owner SET track_counts = off")
    assert look(source).until == 0
    sql(home.url(name), f"ALTER ROLE {name}_owner RESET track_counts")


def target(home_version: int, name: str) -> str:
    """An empty database of the owner's."""
    home = server(home_version)
    home.create_database(f"{name}_back")
    sql(home.url(f"{name}_back"), f"ALTER DATABASE {name}_back OWNER TO {name}_owner")
    sql(home.url(f"{name}_back"), f"ALTER SCHEMA public OWNER TO {name}_owner")
    return home.url(f"{name}_back", user=f"{name}_owner")


@pytest.mark.parametrize("source", EDGES, indirect=True)
def test_tables_that_are_only_added_to_come_back_without_a_key(
    source: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly, and said to be so once it is known; an update makes the table one of the base, by name."""
    monkeypatch.setattr(counting, "QUIET", 0.5)  # sessions of this test end, and hand over what they have
    monkeypatch.setattr(counting, "SLACK", 0.5)
    version, name = int(source.rsplit("_", 1)[1]), source.rsplit("/", 1)[1]
    env = {"DATABASE_URL": source}
    sql(source, "CREATE TABLE changed (v int, g int GENERATED ALWAYS AS (v * 2) STORED)")
    sql(source, "CREATE TABLE parted (v int) PARTITION BY RANGE (v)")
    sql(source, "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100)")
    sql(source, "INSERT INTO changed VALUES (1)")
    sql(source, "INSERT INTO grown (id, v) VALUES (1, 'before')")
    sql(source, "UPDATE grown SET v = 'long ago'")

    def restored(at: str) -> tuple[dict[str, str], list[list[tuple[object, ...]]]]:
        back = target(version, name)
        done = desk.run("restore", "--at", at, "--to", back, "--json").expect(3).json
        named = {f["object"]: f["reason"] for f in done["skipped"] if "password" not in f["object"]}
        asked = ("SELECT id, v FROM grown ORDER BY id", "SELECT v, g FROM changed ORDER BY v", "TABLE parted")
        return named, [sql(back, a) for a in asked]

    with watching(source, open_repository(desk), Options(period=0.3, beat=1.0)):
        soon(lambda: bool(sql(source, "SELECT 1 FROM pg_replication_slots WHERE active")))
        write(source, 1)
        time.sleep(3)
        desk.run("backup", env=env).expect(3)
        sql(source, "INSERT INTO grown (id, v) VALUES (2, E'tab\\t \\\\ line\\n'), (3, NULL)")
        sql(source, "INSERT INTO parted VALUES (7)")
        with psycopg.connect(source) as rolled_back:
            rolled_back.execute("INSERT INTO grown (id) VALUES (99)")
            rolled_back.rollback()
        sql(source, "INSERT INTO changed VALUES (2)")
        write(source, 2)
        desk.run("mark", "added", env=env).expect()
        time.sleep(4)
        sql(source, "UPDATE changed SET v = 5 WHERE v = 1")
        sql(source, "TRUNCATE parted")
        sql(source, "INSERT INTO parted VALUES (8)")
        write(source, 3)
        desk.run("mark", "changed", env=env).expect()
        time.sleep(4)
    grown = [(1, "long ago"), (2, "tab\t \\ line\n"), (3, None)]
    assert restored("added") == ({}, [grown, [(1, 2), (2, 4)], [(7,)]])
    named, rows = restored("changed")
    assert list(named) == ['rows of "public"."changed"'] and "1 updated" in named['rows of "public"."changed"']
    assert rows == [grown, [(1, 2)], [(8,)]]

    with psycopg.connect(source, autocommit=True) as stays:
        stays.execute("INSERT INTO grown (id) VALUES (4)")
        desk.run("watch", "--once", env=env).expect()
    named, rows = restored("latest")
    assert "not be counted yet" in named['updates and deletes in "public"."grown"']
    assert rows[0] == [*grown, (4, None)]


@pytest.mark.parametrize("source", EDGES[-1:], indirect=True)
def test_a_table_without_key_that_was_altered_comes_back_too(
    source: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a change of columns and the next base: rows of both forms, of one that is only added to."""
    monkeypatch.setattr(counting, "QUIET", 0.5)
    monkeypatch.setattr(counting, "SLACK", 0.5)
    version, name = int(source.rsplit("_", 1)[1]), source.rsplit("/", 1)[1]
    env = {"DATABASE_URL": source}
    sql(source, "INSERT INTO grown (id, v) VALUES (1, 'before')")
    with watching(source, open_repository(desk), Options(period=0.3, beat=1.0)):
        soon(lambda: bool(sql(source, "SELECT 1 FROM pg_replication_slots WHERE active")))
        write(source, 1)
        time.sleep(3)
        desk.run("backup", env=env).expect(3)
        sql(source, "INSERT INTO grown (id, v) VALUES (2, 'between')")
        time.sleep(2)
        sql(source, "ALTER TABLE grown ADD COLUMN late int DEFAULT 7")
        time.sleep(2)
        sql(source, "INSERT INTO grown (id, v, late) VALUES (3, 'after', 8)")
        write(source, 2)
        desk.run("mark", "altered", env=env).expect()
        time.sleep(4)
        desk.run("backup", env=env).expect(3)
        time.sleep(3)
    back = target(version, name)
    done = desk.run("restore", "--at", "altered", "--to", back, "--json").expect(3).json
    named = {f["object"]: f["reason"] for f in done["skipped"] if "password" not in f["object"]}
    rows = sql(back, "SELECT id, v, late FROM grown ORDER BY id")
    assert (named, rows) == ({}, [(1, "before", 7), (2, "between", 7), (3, "after", 8)])
