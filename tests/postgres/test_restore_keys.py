"""Keys of large tables are made of indexes that were built beside the others: the catalog is the source's."""

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support import compare
from tests.support.cli import Desk
from tests.support.servers import Server, server, versions

_SQL = """
CREATE SCHEMA "S 予約";
CREATE TABLE "S 予約"."T ""1" (
    id bigint, "B c" int NOT NULL, d text, v text,
    CONSTRAINT "鍵 ""x" PRIMARY KEY (id, "B c") INCLUDE (d) WITH (fillfactor = 70)
);
INSERT INTO "S 予約"."T ""1" SELECT g, g, md5(g::text), repeat('x', 900) FROM generate_series(1, 12000) g;
ALTER TABLE "S 予約"."T ""1" ADD CONSTRAINT once UNIQUE ("B c") DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE "S 予約"."T ""1" CLUSTER ON "鍵 ""x";
COMMENT ON CONSTRAINT once ON "S 予約"."T ""1" IS 'said of it';
CREATE TABLE named (a int NOT NULL, b int, v text);
INSERT INTO named SELECT g, NULLIF(g, 7), repeat('y', 900) FROM generate_series(1, 12000) g;
CREATE UNIQUE INDEX no_key ON named (a DESC);
ALTER TABLE named ADD CONSTRAINT named_a UNIQUE (a);
ALTER TABLE named REPLICA IDENTITY USING INDEX named_a;
CREATE INDEX beside ON named (md5(v || a));
CREATE TABLE refers (id int PRIMARY KEY, a int REFERENCES named (a), t bigint, b int,
    FOREIGN KEY (t, b) REFERENCES "S 予約"."T ""1");
INSERT INTO refers SELECT g, g, g, g FROM generate_series(1, 500) g;
"""
_NULLS = "ALTER TABLE named ADD CONSTRAINT named_b UNIQUE NULLS NOT DISTINCT (b)"
# What pg_dump does not show of a key.
_KEYS = """
SELECT c.conname, c.contype, c.condeferrable, c.condeferred, c.conindid::regclass::text, c.conkey, i.indisprimary,
       i.indimmediate, i.indisvalid, i.indisclustered, i.indisreplident, pg_get_indexdef(i.indexrelid),
       (SELECT array_agg(d.deptype ORDER BY d.deptype) FROM pg_depend d WHERE d.objid = i.indexrelid),
       (SELECT array_agg(d.deptype || d.refobjsubid ORDER BY d.deptype || d.refobjsubid) FROM pg_depend d
        WHERE d.objid = c.oid)
FROM pg_constraint c JOIN pg_index i ON i.indexrelid = c.conindid WHERE c.contype IN ('p', 'u') ORDER BY c.conname
"""


@pytest.fixture(params=versions())
def home(request: pytest.FixtureRequest) -> Server:
    return server(request.param)


def _keys(url: str) -> Sequence[object]:
    with psycopg.connect(url) as connection:
        return connection.execute(_KEYS).fetchall()


def test_keys_of_large_tables_are_the_same(home: Server, tmp_path: Path) -> None:
    name = f"keys_{uuid4().hex[:8]}"
    source, target = home.create_database(name), home.create_database(f"{name}_back")
    try:
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute(_SQL.encode())
            if home.version >= 15:
                connection.execute(_NULLS)
        desk = Desk(tmp_path)
        desk.run("init").expect()
        desk.run("backup", env={"DATABASE_URL": source}).expect()
        done = desk.run("restore", "latest", "--to", target, "--yes", "--json").expect().json
        assert done["proof"]["equal"] is True
        assert _keys(source) == _keys(target)
        compare.assert_same(source, target)
    finally:
        home.drop_database(name)
        home.drop_database(f"{name}_back")
