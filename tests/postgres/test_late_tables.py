"""Tables for which there were not locks enough before the snapshot: read many at a time, and none of them wrongly."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, Script, held_transaction, make_scene

from pgkura.core.outcome import FindingClass, Result
from pgkura.snapshot.budget import DUMP_CATALOG_LOCKS

COUNT = 300
EARLY = 20


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """300 tables of a few rows."""
    name = f"late_{uuid4().hex[:12]}"
    made = make_scene(newest().create_database(name), tmp_path / "repository")
    made.sql(*(f"CREATE TABLE s{i} AS SELECT {i} AS a, g FROM generate_series(1, {i % 3}) g" for i in range(COUNT)))
    yield made
    assert made.leftovers() == []
    newest().drop_database(name)


def _share(scene: Scene) -> float:
    """Of the server's locks: as many as pg_dump needs, and some for tables."""
    with scene.connect() as connection:
        row = connection.execute(
            "SELECT current_setting('max_locks_per_transaction')::int * "
            "(current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)"
        ).fetchone()
    assert row is not None
    return (COUNT + DUMP_CATALOG_LOCKS + EARLY + 0.5) / float(row[0])


def _rows(i: int) -> list[bytes]:
    return [b"%d\t%d" % (i, g) for g in range(1, i % 3 + 1)]


def test_they_share_transactions_and_packs(scene: Scene) -> None:
    taken = scene.take(lock_share=_share(scene))
    assert taken.result is Result.OK and taken.counts["tables"] == COUNT
    stored = scene.stored(taken)
    assert all(stored.get(f'"public"."s{i}"', []) == _rows(i) for i in range(COUNT))
    packs = {layer.chunk.object.id for table in scene.repo.chunk_list(taken.manifest) for layer in table.layers}
    assert len(packs) < COUNT / 10


CHANGES = (
    "TRUNCATE s101",
    "ALTER TABLE s107 ADD COLUMN more int DEFAULT 5",
    "ALTER TABLE s113 RENAME TO was113",
    "CREATE TABLE s113 (a int, g int)",
    "INSERT INTO s116 VALUES (0, 0)",
)
GONE = ("ALTER TABLE s104 RENAME TO other", "DROP TABLE s110")


@pytest.mark.parametrize("missing", [False, True], ids=["every name stands for a table", "some names for none"])
def test_what_happens_to_some_of_them_is_told_of_those_alone(scene: Scene, missing: bool) -> None:
    """After the snapshot and before they are locked: a rename harms nothing, new rows are not of this snapshot."""
    statements = CHANGES + GONE * missing
    script = Script({"reading rows": lambda: scene.sql(*statements)})
    taken = scene.take(script, lock_share=_share(scene), late_lock_seconds=1)
    assert taken.result is Result.INCOMPLETE
    lost = {101, 107, 110} if missing else {101, 107}
    assert {f.object for f in taken.findings if f.cls is FindingClass.LOST} == {f'table "public"."s{i}"' for i in lost}
    stored = scene.stored(taken)
    for i in set(range(COUNT)) - lost:
        assert stored.get(f'"public"."s{i}"', []) == _rows(i), i


def test_one_that_is_locked_by_another_does_not_cost_the_others(scene: Scene) -> None:
    with held_transaction(scene, "SELECT 1") as other:

        def lock() -> None:
            other.execute("LOCK TABLE s200 IN ACCESS EXCLUSIVE MODE")

        taken = scene.take(Script({"reading rows": lock}), lock_share=_share(scene), late_lock_seconds=1)
    assert taken.result is Result.INCOMPLETE
    assert [f.object for f in taken.findings if f.cls is FindingClass.LOST] == ['table "public"."s200"']
    stored = scene.stored(taken)
    assert all(stored.get(f'"public"."s{i}"', []) == _rows(i) for i in range(COUNT) if i != 200)
