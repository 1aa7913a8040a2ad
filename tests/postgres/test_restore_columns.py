"""A table that was altered while it was backed up comes back in the columns that are stored, and is not green."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.support.restored_layers import SMALL
from tests.support.servers import Server, newest, server, versions
from tests.support.snapshot_scene import FEW_CONNECTIONS, Scene, Script, make_scene

from pgkura.core.access import hold
from pgkura.core.outcome import FindingClass, Result
from pgkura.core.progress import Silent
from pgkura.operations.restore import RestoreResult, execute_restore, plan_restore
from pgkura.operations.verify import verify_against
from pgkura.postgres.endpoint import Endpoint
from pgkura.restore import divided, loads
from pgkura.snapshot.taken import Taken
from pgkura.verify import ranges
from pgkura.work.pools import Crew

TABLE = "CREATE TABLE t (id int PRIMARY KEY, note text DEFAULT 'made up', more text, body text)"
ROWS = (
    r"INSERT INTO t SELECT g, 'note ' || g, E'a\tb\nc\\' || g, repeat(md5(g::text), 9) FROM generate_series(1, 3000) g"
)
ALTERS = {
    "renamed": "ALTER TABLE t RENAME note TO remark",
    "dropped": "ALTER TABLE t DROP note",
    "another type": "ALTER TABLE t ALTER note DROP DEFAULT, ALTER note TYPE bytea USING note::bytea",
}
LEFT = "SELECT id, more, body FROM t ORDER BY id"
NOTE = 'column "public"."t"."note"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What is backed up, and an empty database."""

    source: Scene
    target: Scene

    def altered(self, statement: str, **options: Any) -> Taken:
        """A backup that is at its rows when the application alters the table."""
        script = Script({"reading rows": lambda: self.source.sql(statement)})
        return self.source.take(script, connection_share=FEW_CONNECTIONS, **options)

    def restore(self, taken: Taken, kind: Any = "threads", parallel: int = 2) -> RestoreResult:
        """With its proof."""
        planned = plan_restore(
            self.source.repo, taken.manifest.id, Endpoint.parse(self.target.url), parallel=parallel, progress=Silent()
        )
        return execute_restore(planned, progress=Silent(), access=self.target.access, crew=Crew(kind=kind))


@contextmanager
def _pair(home: Server, folder: Path) -> Iterator[Pair]:
    """A table of 3,000 rows, analyzed: large enough for binary rows where everything is small."""
    name = f"columns_{uuid4().hex[:8]}"
    source = make_scene(home.create_database(name), folder / "repository")
    source.sql(TABLE, ROWS, "CREATE TABLE other AS SELECT 1 AS a", "VACUUM ANALYZE")
    url = home.create_database(f"{name}_back")
    access = replace(source.access, database=hold(f"target-{name}", url), host_key="", identity=source.identity)
    yield Pair(source=source, target=Scene(url=url, repo=source.repo, access=access, identity=source.identity))
    home.drop_database(name)
    home.drop_database(f"{name}_back")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """On the newest server."""
    with _pair(newest(), tmp_path) as made:
        yield made


@pytest.fixture(params=versions())
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """On every version."""
    with _pair(server(request.param), tmp_path) as made:
        yield made


def _lost(result: RestoreResult) -> dict[str, str]:
    return {f.object: f.reason for f in result.skipped if f.cls is FindingClass.LOST}


@pytest.mark.parametrize("alter", ALTERS.values(), ids=ALTERS)
def test_rows_come_back_in_the_columns_that_are_stored(each: Pair, alter: str) -> None:
    """What is not stored is NULL, not what the column's default makes up; and it is named."""
    taken = each.altered(alter)
    assert taken.result is Result.INCOMPLETE and taken.manifest.log is None
    result = each.restore(taken)
    assert each.target.rows(LEFT) == each.source.rows(LEFT)
    assert each.target.rows("SELECT DISTINCT note FROM t") == [(None,)]
    assert result.result is Result.INCOMPLETE and result.rows == 3001
    lost = _lost(result)
    assert set(lost) == {'table "public"."t"', NOTE}
    assert "NULL" in lost[NOTE]


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_in_parts_and_of_binary_rows(pair: Pair, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that was stored in binary form before; its parts are loaded side by side and proven by their sums."""
    monkeypatch.setattr(divided, "DIVIDED_BYTES", 1)
    monkeypatch.setattr(divided, "HEAD_BYTES", 200_000)
    for module in (divided, loads):
        monkeypatch.setattr(module, "PART_BYTES", 65536)
    monkeypatch.setattr(loads, "CHUNK_BYTES", 1)
    monkeypatch.setattr(ranges, "RANGE_BYTES", 65536)
    first = pair.source.take(**SMALL)
    assert next(t for t in pair.source.repo.chunk_list(first.manifest) if t.name == '"public"."t"').binary
    pair.source.sql("UPDATE t SET more = 'new' WHERE id % 100 = 1")
    taken = pair.altered(ALTERS["dropped"], **SMALL)
    result = pair.restore(taken, kind)
    assert pair.target.rows(LEFT) == pair.source.rows(LEFT)
    assert set(_lost(result)) == {'table "public"."t"', NOTE}


def test_the_proof_compares_the_columns_that_are_stored(pair: Pair) -> None:
    taken = pair.altered(ALTERS["renamed"])
    pair.restore(taken)

    def differences() -> set[str]:
        target = Endpoint.parse(pair.target.url)
        return {
            f.object for f in verify_against(pair.source.repo, taken.manifest.id, target, progress=Silent()).differences
        }

    assert differences() == {'table "public"."t"'}
    pair.target.sql("UPDATE t SET more = 'another' WHERE id = 7")
    assert differences() == {'table "public"."t"', 'rows of "public"."t"'}


def test_through_a_partition_root(pair: Pair) -> None:
    """Leaves by hash of an enum: each server decides where a row lies. One of them was altered."""
    pair.source.sql(
        "DROP TABLE t",
        "CREATE TYPE e AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h')",
        "CREATE TABLE p (k e, note text) PARTITION BY HASH (k)",
        "CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE t (note text, k e)",
        "ALTER TABLE p ATTACH PARTITION t FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "INSERT INTO p SELECT k, 'note ' || k FROM unnest(enum_range(NULL::e)) k",
    )
    taken = pair.altered("ALTER TABLE p DETACH PARTITION t; ALTER TABLE t DROP note")
    result = pair.restore(taken)
    keys = "SELECT k FROM {} UNION ALL SELECT k FROM {} ORDER BY 1"
    assert pair.target.rows("SELECT k FROM p ORDER BY 1") == pair.source.rows(keys.format("p", "t"))
    assert pair.target.rows("SELECT count(note) FROM p") == pair.source.rows("SELECT count(*) FROM p0")
    assert NOTE in _lost(result) and not any(name.startswith("rows of") for name in _lost(result))


def test_rows_that_no_definition_takes_are_lost_and_the_way_to_them_is_told(pair: Pair) -> None:
    pair.source.sql("ALTER TABLE t ADD CHECK (note IS NOT NULL)")
    taken = pair.altered(ALTERS["renamed"] + "; ALTER TABLE t DROP CONSTRAINT t_note_check")
    result = pair.restore(taken)
    reason = _lost(result)['rows of "public"."t"']
    assert '"note"' in reason and "pgkura export" in reason
    assert pair.target.rows("SELECT count(*) FROM t") == [(0,)] and pair.target.rows("TABLE other") == [(1,)]
    assert result.result is Result.INCOMPLETE


def test_the_next_backup_has_all_of_it(pair: Pair) -> None:
    """Nothing goes on from rows that were read anew."""
    pair.source.take(**SMALL)
    pair.altered(ALTERS["dropped"], **SMALL)
    pair.source.sql("UPDATE t SET more = 'after' WHERE id = 5")
    taken = pair.source.take(**SMALL)
    assert taken.result is Result.OK
    result = pair.restore(taken)
    assert result.result is Result.OK
    assert pair.target.rows("SELECT * FROM t ORDER BY id") == pair.source.rows("SELECT * FROM t ORDER BY id")


def test_a_partitioned_table_that_was_let_go_has_no_rows_to_compare(pair: Pair) -> None:
    """Its lock gave way to a statement; what it had was never more than a name."""
    pair.source.sql(
        "CREATE TABLE p (k int, note text) PARTITION BY LIST (k)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        "INSERT INTO p VALUES (1, 'a')",
    )
    taken = pair.altered("ALTER TABLE p ADD CHECK (k > 0)")
    assert taken.result is Result.OK
    result = pair.restore(taken)
    assert result.result is Result.OK and pair.target.rows("TABLE p") == [(1, "a")]
