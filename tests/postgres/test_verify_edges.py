"""Proofs of what does not lie still: rows that moved, tables out of sight, damage in the repository."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support.psql import with_user
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.errors import Tampered, WrongKey
from pgkura.core.outcome import Finding, FindingClass, Result
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository
from pgkura.verify.proof import Proof, prove

SCHEMA = """
CREATE TYPE color AS ENUM ('red', 'green', 'blue');
CREATE TABLE by_color (c color, n integer, v text) PARTITION BY HASH (c);
CREATE TABLE by_color_0 PARTITION OF by_color FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_color_1 (v text, gone integer, n integer, c color);
ALTER TABLE by_color_1 DROP COLUMN gone;
ALTER TABLE by_color ATTACH PARTITION by_color_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO by_color SELECT c, g, 'row ' || g FROM generate_series(1, 200) g, unnest(enum_range(NULL::color)) c;
CREATE TABLE wide (id integer PRIMARY KEY, v text);
INSERT INTO wide SELECT g, repeat(md5(g::text), 100) FROM generate_series(1, 6000) g;
CREATE TABLE secret (id integer PRIMARY KEY, v text);
INSERT INTO secret VALUES (1, 'x');
CREATE TABLE guarded (id integer PRIMARY KEY, v text);
INSERT INTO guarded VALUES (1, 'x');
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE VIEW seen AS SELECT id FROM wide;
SELECT lo_from_bytea(500001, 'one'), lo_from_bytea(500002, 'two');
CREATE ROLE edge_reader LOGIN PASSWORD 'reader';
GRANT SELECT ON by_color, by_color_0, by_color_1, wide, guarded TO edge_reader;
"""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Scene, Manifest]]:
    """A database and its snapshot."""
    home = newest()
    url = home.create_database("edges")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS edge_reader")
        connection.execute(SCHEMA)
    made = make_scene(url, tmp_path / "repository")
    yield made, made.take(chunk_bytes=1024 * 1024).manifest
    home.drop_database("edges")
    with psycopg.connect(home.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE edge_reader")


def proven(scene: Scene, manifest: Manifest, url: str = "", told: tuple[Finding, ...] = ()) -> Proof:
    """Against its own snapshot, or as somebody else."""
    return prove(Endpoint.parse(url or scene.url), scene.repo, manifest, told=told, progress=Silent(), stop=Stop())


def counted(proof: Proof) -> dict[str, tuple[FindingClass, str]]:
    """What makes it differ."""
    return {f.object: (f.cls, f.reason) for f in proof.differences if f.cls in (FindingClass.LOST, FindingClass.DENIED)}


def test_hash_partitions_by_an_enum_are_compared_as_one(scene: tuple[Scene, Manifest]) -> None:
    """Leaves order their columns differently; rows that change leaves are no difference, others are."""
    where, manifest = scene
    assert proven(where, manifest).equal
    where.sql(
        "ALTER TABLE by_color DETACH PARTITION by_color_0",
        "ALTER TABLE by_color DETACH PARTITION by_color_1",
        "CREATE TABLE moved AS SELECT c, n, v FROM by_color_0",
        "TRUNCATE by_color_0",
        "INSERT INTO by_color_0 (c, n, v) SELECT c, n, v FROM by_color_1",
        "TRUNCATE by_color_1",
        "INSERT INTO by_color_1 (c, n, v) SELECT c, n, v FROM moved",
        "DROP TABLE moved",
    )
    # Detached, the catalog differs; the rows of all leaves together do not.
    assert not [name for name in counted(proven(where, manifest)) if name.startswith("rows of")]
    # Which leaf holds a color depends on the OIDs of this database.
    where.sql(*(f"UPDATE by_color_{n} SET v = 'other' WHERE n = 1 AND c = 'red'" for n in (0, 1)))
    assert 'rows of "public"."by_color"' in counted(proven(where, manifest))


def test_a_change_in_the_middle_of_many_chunks(scene: tuple[Scene, Manifest]) -> None:
    """The stream is given up at the first cut that differs, and its session goes on to compare the rest."""
    where, manifest = scene
    where.sql("UPDATE wide SET v = v WHERE id = 3000")
    moved = proven(where, manifest)
    assert moved.equal and moved.tables_in_order == proven(where, manifest).tables_in_order
    where.sql("UPDATE wide SET v = 'x' WHERE id = 5999", "INSERT INTO secret VALUES (2, 'y')")
    assert counted(proven(where, manifest)) == {
        'rows of "public"."wide"': (FindingClass.LOST, "6,000 rows, and not the same ones"),
        'rows of "public"."secret"': (FindingClass.LOST, "2 rows instead of 1"),
    }


def test_missing_columns_tables_and_objects(scene: tuple[Scene, Manifest]) -> None:
    """Each is named once as what it is; what is left is still compared."""
    where, manifest = scene
    where.sql(
        "ALTER TABLE secret DROP COLUMN v",
        "DROP TABLE guarded",
        "SELECT lo_unlink(500001), lo_put(500002, 0, 'TWO')",
    )
    found = counted(proven(where, manifest))
    assert found["column public.secret.v"] == (FindingClass.LOST, "it is missing")
    assert 'rows of "public"."secret"' not in found
    assert found['rows of "public"."guarded"'] == (FindingClass.LOST, "the table is missing")
    assert found["large object 500001"] == (FindingClass.LOST, "it is missing")
    assert found["contents of large objects"][0] is FindingClass.LOST


def test_a_role_that_may_not_see_everything_proves_nothing(scene: tuple[Scene, Manifest]) -> None:
    """Out of sight is denied: neither equal nor lost."""
    where, manifest = scene
    proof = proven(where, manifest, with_user(where.url, "edge_reader", "reader"))
    found = counted(proof)
    assert not proof.equal and proof.result is Result.INCOMPLETE
    assert {cls for cls, _ in found.values()} == {FindingClass.DENIED}
    assert 'rows of "public"."secret"' in found
    assert 'rows of "public"."guarded"' in found  # its policies would hide rows
    assert "large object 500001" in found


def test_findings_of_a_restore_explain_differences(scene: tuple[Scene, Manifest]) -> None:
    """Denied stays denied and may be waived; what is lost cannot be."""
    where, manifest = scene
    where.sql("DROP VIEW seen")
    denied = Finding(cls=FindingClass.DENIED, object='relation "public"."seen"', reason="no right")
    proof = proven(where, manifest, told=(denied,))
    assert proof.differences == (denied,) and not proof.equal
    endpoint = Endpoint.parse(where.url)
    waived = prove(
        endpoint, where.repo, manifest, told=[denied], accepted=[denied.object], progress=Silent(), stop=Stop()
    )
    assert waived.result is Result.OK and not waived.equal and waived.accepted == (denied.object,)
    lost = prove(endpoint, where.repo, manifest, accepted=["relation public.seen"], progress=Silent(), stop=Stop())
    assert lost.result is Result.INCOMPLETE


def test_damage_is_an_error_not_a_difference(scene: tuple[Scene, Manifest]) -> None:
    """Rows that differ are read from the repository: a flipped bit there ends the proof."""
    where, manifest = scene
    where.sql("UPDATE wide SET v = 'x' WHERE id = 1")
    folder = Path(where.access.repository)
    for file in sorted((folder / "data").rglob("*")):
        if file.is_file():
            content = bytearray(file.read_bytes())
            content[-20] ^= 1
            file.write_bytes(content)
    with pytest.raises(Tampered):
        proven(where, manifest)
    assert where.leftovers() == []


def test_without_the_identity_nothing_is_proven(scene: tuple[Scene, Manifest], tmp_path: Path) -> None:
    """The host key alone cannot read data, and says so at once."""
    from pgkura.core.access import resolve
    from pgkura.repository.keys import HostKey
    from pgkura.storage.local import LocalStorage

    where, manifest = scene
    host = HostKey.parse(resolve(where.access.host_key))
    blind = Repository.open(LocalStorage(Path(where.access.repository)), host=host)
    with pytest.raises(WrongKey):
        prove(Endpoint.parse(where.url), blind, manifest, progress=Silent(), stop=Stop())
