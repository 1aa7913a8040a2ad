"""Small tables and keys are looked at together: what differs or is refused is still named alone."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support.psql import with_user
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.outcome import FindingClass
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.repository.manifest import Manifest
from pgkura.verify.foreign_keys import check_foreign_keys, read_foreign_keys
from pgkura.verify.proof import Proof, prove

TABLES = 70
SCHEMA = f"""
CREATE TABLE first (id integer PRIMARY KEY);
INSERT INTO first SELECT generate_series(1, 20);
DO $$ BEGIN FOR n IN 1..{TABLES} LOOP
    EXECUTE format('CREATE TABLE %I (id integer PRIMARY KEY, v text, up integer REFERENCES first)', 't' || n);
    EXECUTE format('INSERT INTO %I SELECT g, %L || g, g FROM generate_series(1, 20) g', 't' || n, n || ' ');
END LOOP; END $$;
CREATE ROLE together_reader LOGIN PASSWORD 'reader';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO together_reader;
ALTER TABLE t5 ENABLE ROW LEVEL SECURITY;
"""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Scene, Manifest]]:
    """A database and its snapshot."""
    home = newest()
    url = home.create_database("together")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS together_reader")
        connection.execute(SCHEMA)
    made = make_scene(url, tmp_path / "repository")
    yield made, made.take().manifest
    home.drop_database("together")
    with psycopg.connect(home.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE together_reader")


def proven(scene: Scene, manifest: Manifest, url: str = "") -> Proof:
    """Against its own snapshot, or as somebody else."""
    return prove(Endpoint.parse(url or scene.url), scene.repo, manifest, progress=Silent(), stop=Stop())


def rows_that_differ(proof: Proof) -> dict[str, tuple[FindingClass, str]]:
    """By table."""
    return {f.object: (f.cls, f.reason) for f in proof.differences if f.object.startswith("rows of")}


def test_each_table_that_differs_is_named(scene: tuple[Scene, Manifest]) -> None:
    where, manifest = scene
    proof = proven(where, manifest)
    assert proof.equal and proof.tables_in_order == proof.tables == TABLES + 1
    where.sql(
        "UPDATE t3 SET v = 'other' WHERE id = 20",
        "DELETE FROM t4 WHERE id = 1",
        "INSERT INTO t69 VALUES (21, 'more', 1)",
        "UPDATE t7 SET v = v",  # moves its rows, one by one in their order
        "UPDATE t8 SET v = v WHERE id = 3",  # another order
    )
    proof = proven(where, manifest)
    assert rows_that_differ(proof) == {
        'rows of "public"."t3"': (FindingClass.LOST, "20 rows, and not the same ones"),
        'rows of "public"."t4"': (FindingClass.LOST, "19 rows instead of 20"),
        'rows of "public"."t69"': (FindingClass.LOST, "21 rows instead of 20"),
    }
    assert proof.rows == (TABLES + 1) * 20 and proof.tables_in_order == TABLES + 1 - 4


def test_a_table_that_is_refused_is_named_and_the_others_are_compared(scene: tuple[Scene, Manifest]) -> None:
    where, manifest = scene
    proof = proven(where, manifest, with_user(where.url, "together_reader", "reader"))
    found = rows_that_differ(proof)
    assert list(found) == ['rows of "public"."t5"'] and found['rows of "public"."t5"'][0] is FindingClass.DENIED
    assert proof.tables_in_order == TABLES


def test_each_key_with_orphans_is_named_and_no_lock_is_kept(scene: tuple[Scene, Manifest]) -> None:
    where, _ = scene
    with connect(Endpoint.parse(where.url), application_name="test") as session:
        session.begin(read_only=False)
        session.replica_role()
        session.execute("INSERT INTO public.t9 VALUES (100, '', 99), (101, '', 99)")
        session.execute("INSERT INTO public.t70 VALUES (100, '', 99)")
        keys, denied = read_foreign_keys(session)
        assert len(keys) == TABLES and not denied
        locks = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid()"
        (before,) = session.one(locks)
        found = check_foreign_keys(session, keys)
        assert {f.object.split('"')[-2]: f.reason[:2] for f in found} == {"t9": "2 ", "t70": "1 "}
        assert session.one(locks)[0] <= before
        session.rollback()


def test_a_key_that_is_refused_is_named_and_the_others_are_checked(scene: tuple[Scene, Manifest]) -> None:
    where, _ = scene
    url = with_user(where.url, "together_reader", "reader")
    with connect(Endpoint.parse(url), application_name="test") as session:
        session.begin()
        keys, _ = read_foreign_keys(session)
        found = check_foreign_keys(session, keys)
        assert all(f.cls is FindingClass.DENIED and '"t5"' in f.object for f in found)
        session.rollback()
