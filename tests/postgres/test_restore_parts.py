"""A large table comes back in parts, by several connections at a time: its rows are proven by their sums."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.restored_layers import DIFFERENCES, LAYERED, Back, Kind, restored_layers
from tests.support.servers import server, versions
from tests.support.snapshot_scene import Scene

from pgkura.core.errors import Interrupted, PlanOutdated, Tampered
from pgkura.core.outcome import FindingClass
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.restore import divided, ledger, loads, marker
from pgkura.restore import load as load_module
from pgkura.restore.executor import Restored
from pgkura.restore.load import Item, Loaded, Loader, copy_chunks
from pgkura.restore.loads import Load
from pgkura.restore.rows import Rows
from pgkura.verify import ranges


@pytest.fixture(params=versions())
def back(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Back]:
    """Where everything is large."""
    monkeypatch.setattr(divided, "DIVIDED_BYTES", 1)
    monkeypatch.setattr(divided, "HEAD_BYTES", 200_000)
    for module in (divided, loads):
        monkeypatch.setattr(module, "PART_BYTES", 65536)
    monkeypatch.setattr(loads, "CHUNK_BYTES", 1)
    monkeypatch.setattr(ranges, "RANGE_BYTES", 65536)
    with restored_layers(server(request.param), tmp_path / "repository") as made:
        yield made


def _count(scene: Scene, sql: str) -> int:
    return int(scene.rows(sql)[0][0])


def _numbers(back: Back) -> dict[str, int]:
    return {t.name: t.number for t in back.planned.repo.chunk_list(back.planned.manifest)}


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_sums_of_all_parts_prove_a_table(back: Back, kind: Kind) -> None:
    """No stored row is read for it: they are gone by then."""
    restored = back.restore(kind)
    for name in LAYERED:
        sums = restored.seen.sums[_numbers(back)[name]]
        assert len(sums.covered) > 2, "one part is no parts"
    assert restored.rows == _count(back.source, "SELECT (SELECT count(*) FROM wide) + (SELECT count(*) FROM texts)")
    back.lose_rows()
    proof = back.prove(restored, kind)
    assert proof.equal and proof.rows == restored.rows and proof.tables_in_order == 0
    with pytest.raises(Tampered, match="is missing"):
        back.forgetful().prove()


def test_the_first_part_is_loaded_frozen(back: Back) -> None:
    """No reader asks for the state of its rows' transactions: its pages are known as visible to all."""
    restored = back.restore()
    for name in LAYERED:
        assert len(restored.seen.sums[_numbers(back)[name]].covered) > 1
        ((visible, pages),) = back.target.rows(
            f"SELECT relallvisible, relpages FROM pg_class WHERE oid = '{name}'::regclass"
        )
        assert 20 <= int(visible) < int(pages) - 20


def _places(runs: Mapping[int, int]) -> set[int]:
    return {place for first, count in runs.items() for place in range(first, first + count)}


class Rowwise(Silent):
    """Remembers how the rows went."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self._rows = False

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        self._rows = name == "rows"
        if self._rows:
            self.total = total

    def advance(self, amount: int) -> None:
        if self._rows:
            self.steps.append(amount)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_rows_are_told_of_while_they_go(back: Back, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """By threads, however long a part is; each byte once, whoever loaded it."""
    untold: list[int] = []
    original = Rows._collect

    def noted(self: Any, job: Any, report: Any) -> None:
        if report is not None:
            untold.append(report.untold)
        original(self, job, report)

    monkeypatch.setattr(Rows, "_collect", noted)
    progress = Rowwise()
    back.restore(kind, progress)
    assert sum(progress.steps) == progress.total == back.planned.plan.bytes_left > 1_000_000
    assert len(untold) > 4 and sum(untold) == (0 if kind == "threads" else progress.total)


@pytest.mark.parametrize(("change", "table"), DIFFERENCES.items())
def test_what_differs_is_found(back: Back, change: str, table: str) -> None:
    assert back.differs_after(change) == {table}


def test_a_table_in_any_order_is_equal(back: Back) -> None:
    restored = back.restore()
    back.target.sql(
        "CREATE TABLE t AS TABLE wide", "TRUNCATE wide", "INSERT INTO wide SELECT * FROM t ORDER BY md5(id::text)"
    )
    back.target.sql("DROP TABLE t")
    assert back.prove(restored).equal


def test_a_table_that_cannot_be_loaded_is_left_empty(back: Back) -> None:
    """Its check says no; the parts that are not begun are not tried."""
    back.target.sql(f"ALTER DATABASE {Endpoint.parse(back.target.url).database} SET demo.words = 'none'")
    back = back.planned_again()
    restored = back.restore()
    found = [f for f in restored.findings if f.object == f"rows of {LAYERED[1]}"]
    assert [f.cls for f in found] == [FindingClass.LOST] and "check constraint" in found[0].reason
    assert _count(back.target, _TEXTS) == 0
    assert restored.rows == _count(back.source, "SELECT count(*) FROM wide")
    proof = back.prove(restored)
    assert not proof.equal and [f.object for f in proof.differences if f.object.startswith("rows")] == [
        f"rows of {LAYERED[1]}"
    ]


def _cut_short(back: Back, monkeypatch: pytest.MonkeyPatch, *tables: str) -> None:
    """A restore that ends when it is told of the third job, and of one of each of these tables."""

    def dies(self: Any, job: Any, report: Any) -> None:
        told.append(job.part_of)
        if len(told) >= 3 and wanted <= set(told):
            raise KeyboardInterrupt
        original(self, job, report)

    told: list[int | None] = []
    wanted = {_numbers(back)[table] for table in tables}
    original = Rows._collect
    monkeypatch.setattr(Rows, "_collect", dies)
    with pytest.raises(KeyboardInterrupt):
        back.restore()
    monkeypatch.setattr(Rows, "_collect", original)


def test_what_an_earlier_restore_loaded_is_kept_and_read_for_the_proof(
    back: Back, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended after some parts of each table, in any order."""
    _cut_short(back, monkeypatch)
    with connect(Endpoint.parse(back.target.url), application_name="test") as session:
        there = ledger.read_ledger(session)
        assert marker.read_mark(session) is not None
    parts = {number: runs for number, runs in there.items() if number >= 0}
    assert sum(len(_places(runs)) for runs in parts.values()) >= 3
    rest = back.planned_again()
    assert rest.planned.plan.goes_on
    restored = rest.restore()
    assert restored.rows_kept > 0
    assert restored.rows == _count(back.source, "SELECT (SELECT count(*) FROM wide) + (SELECT count(*) FROM texts)")
    for number, runs in parts.items():
        assert not _places(runs) & _places(restored.seen.sums[number].covered)
    assert rest.prove(restored).equal
    rest.lose_rows()
    with pytest.raises(Tampered, match="is missing"):
        rest.forgetful().prove(restored)


_TEXTS = "SELECT count(*) FROM texts"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{}%'"
_CLAIMS = _WAITING.format("INSERT INTO%chunks")
_EMPTIES = _WAITING.format("TRUNCATE")


def _until(scene: Scene, waits: str, running: "Future[Restored]") -> None:
    for _ in range(3000):
        if _count(scene, waits):
            return
        assert not running.done(), running.result()
        time.sleep(0.02)
    raise AssertionError("nobody waits")


def test_what_a_killed_restore_still_commits_is_not_there_twice(back: Back, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server process had all that it needed; it had cut the table into longer parts than the next one does."""
    _cut_short(back, monkeypatch, LAYERED[1])
    rest = back.planned_again()
    plan, repo = rest.planned.plan, rest.planned.repo
    load = next(x for x in plan.loads if x.data.name == LAYERED[1])
    neighbours = pairwise(load.parts_left(plan.kept.layers[load.data.number]))
    one, two = next((a, b) for a, b in neighbours if b.place[1] == a.place[1] + 1 and a.data.rows > 0 < b.data.rows)
    long = replace(one, data=replace(one.data, layers=(*one.data.layers, *two.data.layers)))
    with connect(Endpoint.parse(back.target.url), application_name="test") as late, ThreadPoolExecutor(1) as pool:
        late.begin(isolation="read committed", read_only=False)
        assert ledger.claim(late, [(long.place, 2)]) == {one.place, two.place}
        copy_chunks(late, repo, long, Stop(), freeze=False)
        running = pool.submit(rest.restore)
        _until(back.target, _CLAIMS, running)
        late.commit()
        restored = running.result()
    assert restored.rows == _count(back.source, "SELECT (SELECT count(*) FROM wide) + (SELECT count(*) FROM texts)")
    assert one.place[1] not in _places(restored.seen.sums[load.data.number].covered)
    assert rest.prove(restored).equal


def _breaks(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """The connection goes when a part of it is loaded: its rows lie in the table, dead."""

    def broken(session: Any, repo: Any, load: Load, *args: Any, **kwargs: Any) -> None:
        original(session, repo, load, *args, **kwargs)
        if load.data.name == table:
            raise Interrupted("the connection is gone")

    original = copy_chunks
    monkeypatch.setattr(load_module, "copy_chunks", broken)


def test_dead_rows_of_a_restore_cut_short_are_no_reason_to_load_a_table_whole(
    back: Back, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part of what is left empties it; there was none before it that did, so they lie in its pages."""
    monkeypatch.setattr(divided, "HEAD_BYTES", 0)
    with monkeypatch.context() as during:
        _breaks(during, LAYERED[1])
        with pytest.raises(Interrupted):
            back.restore()
    assert _count(back.target, "SELECT pg_relation_size('texts')") > 0 == _count(back.target, _TEXTS)
    rest = back.planned_again()
    assert rest.planned.plan.goes_on
    emptied: list[str] = []
    original = Loader._empty

    def empty(self: Loader, load: Load) -> None:
        emptied.append(load.data.name)
        original(self, load)

    monkeypatch.setattr(Loader, "_empty", empty)
    restored = rest.restore()
    assert emptied.count(LAYERED[1]) == 1 and len(restored.seen.sums[_numbers(back)[LAYERED[1]]].covered) > 4
    assert rest.prove(restored).equal
    # Whole, and no larger than one that was loaded at once.
    back.target.sql("CREATE TABLE once AS TABLE texts")
    assert _count(back.target, "SELECT pg_relation_size('texts') - pg_relation_size('once')") <= 8 * 8192


def test_a_table_is_not_emptied_of_what_a_killed_restore_still_commits(
    back: Back, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it was told when this one was planned, but its pages were there."""
    _cut_short(back, monkeypatch, LAYERED[0])
    back.target.sql("TRUNCATE texts")
    number = _numbers(back)[LAYERED[1]]
    with connect(Endpoint.parse(back.target.url), application_name="test") as session:
        ledger.forget(session, number)
    rest = back.planned_again()
    load = next(x for x in rest.planned.plan.loads if x.data.number == number)
    last = list(load.parts_left({}))[-1]
    with connect(Endpoint.parse(back.target.url), application_name="test") as late, ThreadPoolExecutor(1) as pool:
        late.begin(isolation="read committed", read_only=False)
        assert ledger.claim(late, [(last.place, 1)]) == {last.place}
        copy_chunks(late, rest.planned.repo, last, Stop(), freeze=False)
        running = pool.submit(rest.restore)
        _until(back.target, _EMPTIES, running)
        late.commit()
        with pytest.raises(PlanOutdated, match="another restore"):
            running.result()
    assert _count(back.target, _TEXTS) == last.data.rows
    rest = back.planned_again()
    restored = rest.restore()
    assert restored.rows_kept >= last.data.rows and rest.prove(restored).equal


def test_of_a_part_what_is_left_is_loaded(back: Back, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing that would empty the table first."""
    _cut_short(back, monkeypatch)
    plan, repo = back.planned.plan, back.planned.repo
    load = next(x for x in plan.loads if x.data.name == LAYERED[1])
    part = replace(load, first=0)
    with connect(Endpoint.parse(back.target.url), application_name="test") as session:
        session.execute("TRUNCATE public.texts")
        ledger.forget(session, load.data.number)
        assert ledger.claim(session, [((load.data.number, 1), 2)]) == {(load.data.number, 1), (load.data.number, 2)}
        loader = Loader(session=session, repo=repo, stop=Stop(), ledger=True, epoch=1, draw="d")
        with pytest.raises(PlanOutdated, match="another restore"):
            loader.table(Item(load=part))
        session.rollback()
        loaded = loader.table(Item(load=part, truncate=False))
        assert loaded.finding is None and loaded.sums is None, "of a part of its rows alone there are no sums"
        assert ledger.read_ledger(session)[load.data.number] == {0: len(load.data.layers)}
    there = [layer.rows for place, layer in enumerate(load.data.layers) if place not in (1, 2)]
    assert _count(back.target, "SELECT count(*) FROM texts") == sum(there)


def test_a_restore_that_goes_on_loads_small_parts_alone(back: Back, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a connection that never lasts for a long one would never get further."""

    def table(self: Loader, item: Item) -> Loaded:
        frozen.append(item.frozen)
        if breaks:
            raise Interrupted("the connection is gone")
        return original(self, item)

    breaks, frozen = True, list[bool]()
    original = Loader.table
    monkeypatch.setattr(Loader, "table", table)
    with pytest.raises(Interrupted):
        back.restore()
    assert frozen and all(frozen)
    frozen.clear()
    breaks = False
    rest = back.planned_again()
    assert rest.planned.plan.goes_on
    restored = rest.restore()
    assert len(frozen) > 4 and not any(frozen) and restored.rows_kept == 0
    assert rest.prove(restored).equal


def test_without_a_ledger_a_table_is_loaded_as_a_whole(back: Back, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgkura.restore.executor.put_mark", lambda session, mark: False)
    restored = back.restore()
    assert not restored.seen.sums
    assert back.prove(restored).equal
