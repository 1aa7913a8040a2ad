"""Rows of a base carried into the definitions of a later one: every kind of change, at one deterministic moment."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_rebasing import back, change, contents
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions

BEFORE = (
    "CREATE TABLE large (id int PRIMARY KEY, gone int, kept text, big text, at timestamptz)",
    "INSERT INTO large SELECT g, g, md5(g::text), NULL, now() FROM generate_series(1, 30000) g",
    "ALTER TABLE large ALTER COLUMN big SET STORAGE EXTERNAL",
    "UPDATE large SET big = repeat(md5(id::text), 100) WHERE id % 500 = 0",
    "CREATE TABLE whole (v int, j json)",
    "ALTER TABLE whole REPLICA IDENTITY FULL",
    "INSERT INTO whole VALUES (1, '{}'), (1, '{}'), (NULL, NULL)",
    "CREATE TABLE leaves (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
    "CREATE TABLE leaf1 PARTITION OF leaves FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE leaf2 PARTITION OF leaves FOR VALUES FROM (100) TO (200)",
    "INSERT INTO leaves SELECT g, 'x' FROM generate_series(1, 150) g",
)
OLD_FORM = (
    "UPDATE large SET gone = 0, kept = 'old form' WHERE id % 7 = 0",
    "DELETE FROM large WHERE id BETWEEN 100 AND 200",
    "INSERT INTO large SELECT g, g, 'late', NULL, now() FROM generate_series(40000, 40100) g",
    "UPDATE whole SET v = 2 WHERE ctid = (SELECT min(ctid) FROM whole)",
    "UPDATE leaves SET id = id + 140 WHERE id = 50",
    "UPDATE account SET balance = 3 WHERE id = 9",
)
DEFINITIONS = (
    "ALTER TABLE large DROP COLUMN gone, ADD COLUMN n7 int NOT NULL DEFAULT 7",
    "ALTER TABLE large ADD COLUMN moment timestamptz DEFAULT now()",
    "ALTER TABLE large ADD COLUMN list text[] DEFAULT '{\"a b\",\"c''\\\\d\"}', ADD COLUMN nothing text",
    'ALTER TABLE large RENAME COLUMN kept TO "Kept\'quoted"',
    "ALTER TABLE large ALTER COLUMN n7 SET DEFAULT 8",
    "ALTER TABLE whole ADD COLUMN more text DEFAULT 'm'",
    "ALTER TABLE leaves ADD COLUMN w int DEFAULT 5",
    "ALTER TABLE item RENAME TO thing",
    "ALTER TABLE auto ADD COLUMN extra numeric",
    "ALTER TABLE account DROP COLUMN note",
    "DROP TABLE scratch",
    "CREATE TABLE made (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)",
    "CREATE VIEW totals AS SELECT count(*) AS n FROM thing",
    "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
)
NEW_FORM = (
    "UPDATE large SET n7 = id WHERE id % 11 = 0",
    "UPDATE large SET nothing = 'something' WHERE id % 1000 = 0",
    "INSERT INTO large (id, at) SELECT g, now() FROM generate_series(50000, 50100) g",
    "DELETE FROM large WHERE id % 13 = 0",
    "UPDATE whole SET more = 'n' WHERE v = 2",
    "INSERT INTO made (v) SELECT 'v' || g FROM generate_series(1, 50) g",
    "INSERT INTO thing SELECT g, 'x', 1 FROM generate_series(1, 30) g",
    "UPDATE thing SET amount = 2 WHERE a < 10",
    "INSERT INTO auto (account, extra) SELECT g, g FROM generate_series(1, 20) g",
    "UPDATE leaves SET w = 6 WHERE id < 20",
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A database to be watched, owned by a role that is no superuser."""
    home = server(request.param)
    name = f"rebasing_{request.param}"
    yield request.param, ledger.make(home, name)
    ledger.drop_slots(home, name)


@pytest.mark.parametrize("source", sorted({*versions()[:1], *versions()[-1:]}), indirect=True)
def test_rows_are_carried_over_changes_of_definitions(source: tuple[int, str], desk: Desk) -> None:
    """Columns that came, went and got other names; tables that came, went and got other names: all exact at once."""
    version, url = source
    env = {"DATABASE_URL": url}
    change(url, BEFORE, pause=0)
    desk.run("watch", "--once", env=env).expect()
    first = desk.run("backup", "--json", env=env).expect(3).json
    change(url, OLD_FORM, pause=0)
    desk.run("mark", "early", env=env).expect()
    with psycopg.connect(url) as older:
        older.execute("INSERT INTO ledger (n, client) VALUES (1, 0)")
        change(url, DEFINITIONS, pause=0)
        desk.run("watch", "--once", env=env).expect()
        # In the log as soon as it joined: it held no row then.
        older.execute("INSERT INTO made (v) VALUES ('by a transaction that is older than the table')")
        change(url, NEW_FORM, pause=0)
        older.commit()
    with psycopg.connect(url) as connection:
        wanted = contents(connection)
    desk.run("mark", "carried", env=env).expect()
    desk.run("watch", "--once", env=env).expect()
    refused = desk.run("restore", "--at", "mark carried", "--to", back(version), "--dry-run").expect(23)
    assert "no base has been taken since" in refused.err and "reachable" in refused.err
    change(url, ("DELETE FROM large WHERE id < 10000", "TRUNCATE thing", "UPDATE made SET v = 'later'"), pause=0)
    second = desk.run("backup", "--json", env=env).expect(3).json
    desk.run("watch", "--once", env=env).expect()

    # Nobody looked between this one and the first change: which shape it has is not known.
    early = desk.run("restore", "--at", "mark early", "--to", back(version), "--dry-run").expect(23)
    assert "between two looks" in early.err
    target = back(version)
    planned = desk.run("restore", "--at", "mark carried", "--to", target, "--dry-run", "--json").expect().json
    assert (planned["snapshot"], planned["at"]["rows_of"]) == (second["snapshot"], first["snapshot"])
    done = desk.run("restore", "--at", "mark carried", "--to", target, "--json").expect(3).json
    assert {(f["class"], f["object"].split()[0]) for f in done["skipped"]} == {("denied", "password")}, done["skipped"]
    with psycopg.connect(target) as connection:
        assert contents(connection) == wanted
        assert connection.execute("SELECT n, one() FROM totals").fetchone() == (30, 1)
        connection.execute("INSERT INTO made (v) VALUES ('numbers go on')")
    assert done["at"]["every_change_met_its_row"]
    desk.run("restore", "--at", "latest", "--to", back(version)).expect(3)
