"""A restore that is killed goes on where it was: rows that are there are not sent again, and nothing is there twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.fault.test_killed_restore import alone, leftovers
from tests.support import compare
from tests.support.cli import Desk
from tests.support.servers import Server, newest

# Large enough to be loaded in several transactions (restore/load.py), of few bytes in the repository.
_SQL = """
CREATE TABLE large (id int, v text);
INSERT INTO large SELECT g, repeat(chr(97 + g % 26), 1900) FROM generate_series(1, 110000) g;
ALTER TABLE large ADD PRIMARY KEY (id);
CREATE INDEX slow ON large (md5(v || id));
CREATE INDEX slower ON large (sha256((v || id)::bytea));
CREATE TABLE small (id int PRIMARY KEY, of int REFERENCES large, v text UNIQUE);
INSERT INTO small SELECT g, g, md5(g::text) FROM generate_series(1, 5000) g;
CREATE TABLE other (id serial PRIMARY KEY, of int REFERENCES small);
INSERT INTO other (of) SELECT g FROM generate_series(1, 5000) g;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON large FOR EACH ROW EXECUTE FUNCTION f();
CREATE STATISTICS counted ON id, v FROM large;
ALTER TABLE small ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON small USING (true);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A database, its backup, and an empty target."""

    desk: Desk
    home: Server
    source: str
    target: str

    def restore(self, *more: str) -> dict[str, Any]:
        """As JSON."""
        arguments = ("restore", "latest", "--to", self.target, "--yes", "--json", *more)
        return self.desk.run(*arguments).expect().json

    def killed_when(self, moment: Callable[[psycopg.Connection[Any]], bool]) -> None:
        """A restore that is killed as soon as the target shows this."""
        child = subprocess.Popen(
            [sys.executable, "-m", "pgkura", "restore", "latest", "--to", self.target, "--yes"],
            env=self.desk.environment | {"DATABASE_URL": self.target},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with child, psycopg.connect(self.target, autocommit=True) as connection:
            while not moment(connection):
                assert child.poll() is None, "it was over before that"
                time.sleep(0.01)
            os.killpg(child.pid, signal.SIGKILL)
        alone(self.target)

    def whole(self, done: dict[str, Any]) -> None:
        """Equal by the proof and by pg_dump, nothing of ours is left."""
        assert done["result"] == "ok" and done["proof"]["equal"] is True
        assert leftovers(self.target) == []
        compare.assert_same(self.source, self.target)


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One backup for all."""
    home, name = newest(), f"goes_on_{uuid4().hex[:8]}"
    source = home.create_database(name)
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(_SQL)
    desk = Desk(tmp_path_factory.mktemp("goes_on"))
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    yield Scene(desk=desk, home=home, source=source, target="")
    home.drop_database(name)


@pytest.fixture
def scene(backed_up: Scene) -> Iterator[Scene]:
    """With a new target."""
    name = f"goes_on_back_{uuid4().hex[:8]}"
    target = backed_up.home.create_database(name)
    yield Scene(desk=backed_up.desk, home=backed_up.home, source=backed_up.source, target=target)
    backed_up.home.drop_database(name)


def _says(connection: psycopg.Connection[Any], sql: str) -> bool:
    try:
        row = connection.execute(sql.encode()).fetchone()
    except psycopg.Error:
        return False
    return bool(row and row[0])


def _half_loaded(connection: psycopg.Connection[Any]) -> bool:
    return _says(connection, "SELECT count(*) > 10 FROM pgkura_restore.chunks WHERE number >= 0")


def _building(connection: psycopg.Connection[Any]) -> bool:
    return _says(connection, "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX slow%'")


def test_killed_in_the_middle_of_a_large_table(scene: Scene) -> None:
    scene.killed_when(_half_loaded)
    planned = scene.restore("--dry-run")
    assert any("it is gone on with" in note for note in planned["notes"]), planned["notes"]
    assert not any(step["action"].startswith("drop") for step in planned["steps"])
    left = sum(step["bytes"] for step in planned["steps"] if step["action"] == "load")
    done = scene.restore()
    assert 64 * 1024 * 1024 <= done["bytes_kept"] < 200 * 1024 * 1024 and 0 < done["rows_kept"] < 120_000
    assert left > 0 and done["rows"] == 120_000
    scene.whole(done)


_ROWS = "SELECT (SELECT count(*) FROM large) + (SELECT count(*) FROM small) + (SELECT count(*) FROM other)"
_AT_ONCE = (
    "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM large WHERE xmin::text::int >= %s GROUP BY xmin) x"
)


def test_one_that_goes_on_does_so_chunk_by_chunk(scene: Scene) -> None:
    """Killed again and again: each keeps what was there to the row, and loads what is left in small transactions."""
    scene.killed_when(_half_loaded)
    for _ in range(3):
        with psycopg.connect(scene.target) as connection:
            ((told, xid),) = connection.execute(
                "SELECT count(*), pg_current_xact_id()::text::int FROM pgkura_restore.chunks"
            ).fetchall()
        scene.killed_when(partial(_says, sql=f"SELECT count(*) > {told + 4} FROM pgkura_restore.chunks"))
        with psycopg.connect(scene.target) as connection:
            ((rows,),) = connection.execute(_ROWS.encode()).fetchall()
            ((at_once,),) = connection.execute(_AT_ONCE.encode(), (xid,)).fetchall()
            ((before,),) = connection.execute(_AT_ONCE.replace(">=", "<").encode(), (xid,)).fetchall()
        # Rows are of 1.9 kB: 8 MiB and a chunk at most; 64 MiB where nothing had been cut short.
        assert 1_000 < at_once < 8_000
    assert before > 8_000
    done = scene.restore()
    assert done["rows_kept"] == rows
    scene.whole(done)


def test_killed_while_indexes_are_built(scene: Scene) -> None:
    scene.killed_when(_building)
    done = scene.restore()
    assert done["rows_kept"] >= 110_000
    scene.whole(done)


def test_what_somebody_changed_meanwhile_is_started_over(scene: Scene) -> None:
    scene.killed_when(_half_loaded)
    with psycopg.connect(scene.target, autocommit=True) as connection:
        connection.execute("DROP TABLE other")
    assert any("dropped first" in note for note in scene.restore("--dry-run")["notes"])
    done = scene.restore()
    assert (done["rows_kept"], done["bytes_kept"]) == (0, 0)
    scene.whole(done)


def test_a_ledger_that_others_may_write_to_is_not_believed(scene: Scene) -> None:
    scene.killed_when(_half_loaded)
    with psycopg.connect(scene.target, autocommit=True) as connection:
        connection.execute("GRANT INSERT ON pgkura_restore.chunks TO PUBLIC")
    done = scene.restore()
    assert done["rows_kept"] == 0
    scene.whole(done)


def _bare_key(connection: psycopg.Connection[Any]) -> bool:
    """The index of the large table's key is there, the key waits for those that read the table."""
    return _says(
        connection,
        "SELECT i.indisvalid AND NOT i.indisprimary FROM pg_index i WHERE i.indexrelid = to_regclass('large_pkey')",
    )


@pytest.mark.parametrize("goes_on", [True, False])
def test_killed_between_the_two_steps_of_a_key(scene: Scene, goes_on: bool) -> None:
    scene.killed_when(_bare_key)
    with psycopg.connect(scene.target, autocommit=True) as connection:
        assert _bare_key(connection), "killed too late"
        if not goes_on:
            connection.execute("DROP TABLE other")
    done = scene.restore()
    assert (done["rows_kept"] >= 110_000) is goes_on
    scene.whole(done)
