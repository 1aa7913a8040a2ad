"""What is loaded and built together, and what waits for what."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pgkura.catalog.toc import Entry
from pgkura.core.names import QualifiedName
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.postgres.session import Session
from pgkura.repository.lists import TableData
from pgkura.repository.spool import LayerPile
from pgkura.restore.definitions import stretches
from pgkura.restore.divided import head_bytes, turns
from pgkura.restore.jobs import SMALL_BYTES, TABLES_AT_ONCE, Builder, load_weight, together
from pgkura.restore.load import Item
from pgkura.restore.loads import CHUNK_BYTES, CHUNKS, HEAD_BYTES, PART_BYTES, PARTS, Load
from pgkura.restore.parallel import Job, Schedule

MIB = 1024 * 1024
_OBJECT = ObjectRef(id="0" * 32, cipher_bytes=1, sha256="0" * 64)


def _load(number: int, size: int) -> Load:
    name = f"t{number}"
    data = TableData(number=number, name=name, columns="", target=name, rows=1, bytes=size)
    return Load(data=data, facts=None, target=QualifiedName("s", name), columns=(), managed=False)


def _layer(size: int) -> Layer:
    return Layer(chunk=ChunkRef(object=_OBJECT, offset=0, stored=1, length=size, rows=1, mac="0" * 64))


def _large(count: int, size: int) -> Load:
    """Of so many chunks."""
    load = _load(7, count * size)
    return replace(load, data=replace(load.data, layers=tuple(_layer(size) for _ in range(count))))


def _in_file(layers: Sequence[Layer]) -> Collection[Layer]:
    pile = LayerPile(few=0)
    for layer in layers:
        pile.append(layer)
    return pile.take()


def _entry(number: int, desc: str, tag: str, *deps: int) -> Entry:
    return Entry(
        dump_id=number, desc=desc, tag=tag, schema="s", owner="o", defn=f"-- {tag}\n", drop="", deps=deps,
        table_am="", relkind="", catalog=0, oid=0,
    )  # fmt: skip


def _nothing(_: Sequence[Entry]) -> Callable[[Session], None]:
    return lambda session: None


def _builder(alone: frozenset[int] = frozenset(), late: frozenset[int] = frozenset()) -> Builder:
    """Tables 1 (large), 2 and 3 (small, loaded together)."""
    return Builder(
        tables={n: QualifiedName("s", f"t{n}") for n in (1, 2, 3)},
        loads={1: -1, 2: -2, 3: -2},
        late=late,
        all_rows=frozenset({-1, -2}),
        sizes={1: 100 * MIB, 2: 1, 3: 1},
        alone=alone,
        make=_nothing,
        make_key=lambda entry, steps: (_nothing(()), _nothing(())),
    )


def test_small_loads_go_together_in_bounded_groups() -> None:
    loads = [_load(0, SMALL_BYTES), *(_load(n, 10) for n in range(1, 80))]
    units = together(loads, lambda load: load.data.number == 5)
    assert [x for unit in units for x in unit if x.data.number == 0] == list(units[0])
    assert (loads[5],) in units
    assert max(len(unit) for unit in units) == TABLES_AT_ONCE
    assert sorted(x.data.number for unit in units for x in unit) == list(range(80))


def test_parts_of_a_table_follow_each_other() -> None:
    parts = list(_large(10, PART_BYTES // 4).parts())
    assert [(p.first, len(p.data.layers), p.data.rows, p.data.bytes) for p in parts] == [
        (0, 4, 4, PART_BYTES),
        (4, 4, 4, PART_BYTES),
        (8, 2, 2, PART_BYTES // 2),
    ]
    assert [p.place for p in parts] == [(7, 0), (7, 4), (7, 8)]


def test_a_table_has_a_thousand_parts_at_most() -> None:
    parts = list(_large(5000, PART_BYTES).parts())
    assert PARTS // 2 < len(parts) <= PARTS + 1
    assert sum(len(p.data.layers) for p in parts) == 5000


def test_small_parts_are_one_unit_as_long_as_one_of_the_usual() -> None:
    items = [Item(load=part, truncate=False) for part in _large(20, CHUNK_BYTES).parts_left({3: 2})]
    assert [[item.load.first for item in turn] for turn in turns(items)] == [
        [0, 1, 2, *range(5, 10)],
        [*range(10, 18)],
        [18, 19],
    ]
    few = [Item(load=part, truncate=False) for part in _large(3, PART_BYTES).parts()]
    assert [len(turn) for turn in turns(few)] == [1, 1, 1]
    assert list(turns([])) == []


def test_behind_its_head_a_table_is_cut_as_before() -> None:
    load = _large(10, PART_BYTES // 4)
    assert [(p.first, len(p.data.layers)) for p in load.parts(PART_BYTES * 3 // 2)] == [(0, 6), (6, 4)]
    assert [(p.first, len(p.data.layers)) for p in load.parts(10 * PART_BYTES)] == [(0, 10)]


@given(st.lists(st.integers(1, 300), max_size=12), st.integers(1, 9))
def test_while_heads_load_each_connection_has_a_table_of_its_own(sizes: list[int], parallel: int) -> None:
    sizes = [size * PART_BYTES // 8 for size in sizes]
    head = head_bytes(sizes, parallel)
    busy = [x for x in range(1, HEAD_BYTES + 1, PART_BYTES // 16) if sum(min(s, x) for s in sizes) >= parallel * x]
    wanted = max(busy, default=0)
    if wanted < PART_BYTES:
        assert head <= PART_BYTES + PART_BYTES // 16
    else:
        assert wanted <= head < wanted + PART_BYTES // 16 and head <= HEAD_BYTES
    assert head == 0 or head >= PART_BYTES


def test_one_table_is_shared_from_its_first_row_on() -> None:
    assert head_bytes([1 << 40], 2) == 0
    assert head_bytes([1 << 40], 1) == head_bytes([1 << 40, 1 << 40], 2) == HEAD_BYTES
    assert head_bytes([3 << 30, 1 << 29], 2) == 1 << 29
    assert head_bytes([3 << 30, *[1 << 20] * 64], 2) == 64 << 20
    assert head_bytes([3 << 30, *[1 << 20] * 63], 2) == 0, "less than a part"


@given(
    st.lists(st.integers(1, CHUNK_BYTES * 2), min_size=1, max_size=40),
    st.dictionaries(st.integers(0, 40), st.integers(1, 12), max_size=6),
)
def test_what_is_left_of_a_table_is_all_but_what_is_there(sizes: list[int], covered: dict[int, int]) -> None:
    """Each chunk once, whatever was told; in memory as in a file."""
    there = {place for first, count in covered.items() for place in range(first, first + count)}
    layers = tuple(_layer(size) for size in sizes)
    load = _large(1, 1)
    for given_layers in (layers, _in_file(layers)):
        whole = replace(load, data=replace(load.data, layers=given_layers, bytes=sum(sizes), rows=len(sizes)))
        parts = list(whole.parts_left(covered))
        left = [place for part in parts for place in range(part.first or 0, (part.first or 0) + len(part.data.layers))]
        assert left == [place for place in range(len(sizes)) if place not in there]
        assert [x for part in parts for x in part.data.layers] == [layers[place] for place in left]
        assert all(part.first is not None and part.data.bytes < 3 * CHUNK_BYTES for part in parts)
        assert sum(part.data.rows for part in parts) == len(left)


def test_what_is_left_of_a_very_large_table_is_cut_into_so_many() -> None:
    parts = list(_large(10 * CHUNKS, CHUNK_BYTES).parts_left({}))
    assert CHUNKS // 2 < len(parts) <= CHUNKS + 1


def test_a_second_connection_takes_parts_only_where_nothing_else_is_left() -> None:
    parts = [Job(gives=frozenset({-n}), weight=1 << 62, rows=10, part_of=1) for n in (1, 2, 3)]
    other = Job(gives=frozenset({-9}), weight=1 << 40)
    schedule = Schedule([*parts, other], 2)
    first, second = schedule.take(), schedule.take()
    assert first is parts[0] and second is other
    schedule.done(other)
    assert schedule.take() is parts[1]
    assert schedule.take() is None, "two compute already"
    schedule.done(parts[0])
    assert schedule.take() is parts[2]


def test_the_parts_of_a_giant_count_together() -> None:
    """Else what waits for the disk would take a processor from the table that decides when everything ends."""
    parts = [Job(gives=frozenset({-n}), weight=1 << 62, rows=10, part_of=1) for n in range(1, 5)]
    light = [Job(gives=frozenset({n}), light=True) for n in range(20, 26)]
    schedule = Schedule([*parts, *light], 2)
    begun = list(iter(schedule.take, None))
    assert len(begun) == 3


def test_indexes_and_keys_wait_for_their_tables_only() -> None:
    entries = [
        _entry(10, "INDEX", "i1", 1),
        _entry(11, "CONSTRAINT", "t2 pk", 2),
        _entry(12, "INDEX", "i3", 3),
        _entry(13, "FK CONSTRAINT", "t3 fk", 3, 2, 11),
        _entry(14, "TRIGGER", "t2 tr", 2),
        _entry(15, "FK CONSTRAINT", "t2 elsewhere", 2, 99),
    ]
    jobs = {tuple(sorted(j.gives)): j for j in _builder().jobs(entries)}
    assert set(jobs) == {(10,), (11, 12), (13,), (14, 15)}
    assert jobs[10,].deps == {-1} and jobs[11, 12].deps == {-2}
    assert jobs[13,].deps == {-2, 11} and jobs[13,].locks == {2, 3}
    assert {-1, -2} <= jobs[14, 15].deps  # 99 is a table whose rows may still come


def test_what_must_be_alone_or_late_waits_for_all_rows() -> None:
    entries = [_entry(10, "INDEX", "i1", 1), _entry(11, "INDEX", "i2", 2)]
    jobs = _builder(alone=frozenset({10}), late=frozenset({2})).jobs(entries)
    assert [sorted(j.gives) for j in jobs] == [[10], [11]]
    assert all(j.deps >= {-1, -2} for j in jobs)


def test_the_schedule_takes_the_heaviest_that_nothing_holds_up() -> None:
    rows = [Job(gives=frozenset({-n}), weight=load_weight(n * SMALL_BYTES)) for n in (1, 2)]
    key = Job(gives=frozenset({5}), deps=frozenset({-1}), uses=frozenset({1}), locks=frozenset({1}), weight=7)
    other = Job(gives=frozenset({6}), uses=frozenset({1}), weight=1)
    schedule = Schedule([other, key, *rows], 3)
    assert [schedule.take() for _ in range(4)] == [rows[1], rows[0], other, None]
    schedule.done(rows[0])
    assert schedule.take() is None
    schedule.done(other)
    assert schedule.take() is key


def test_light_jobs_run_beside_heavy_ones_and_never_too_many() -> None:
    heavy = [Job(gives=frozenset({n}), weight=SMALL_BYTES + n) for n in (1, 2, 3)]
    light = [Job(gives=frozenset({n}), light=True) for n in (11, 12, 13)]
    schedule = Schedule([*heavy, *light], 2)
    taken = [schedule.take() for _ in range(5)]
    assert taken == [heavy[2], heavy[1], light[0], light[1], None]
    schedule.done(light[0])
    assert schedule.take() is light[2]  # the third heavy one waits for a heavy one to end
    schedule.done(heavy[2])
    assert schedule.take() is heavy[0]


def test_keys_and_indexes_of_small_tables_are_light() -> None:
    jobs = _builder().jobs([_entry(10, "INDEX", "i1", 1), _entry(11, "INDEX", "i2", 2)])
    assert [job.light for job in jobs] == [False, True]


def test_tables_that_know_nothing_of_each_other_are_made_side_by_side() -> None:
    tables = [_entry(n, "TABLE", f"t{n}") for n in range(100, 300)]
    heir = _entry(300, "TABLE", "heir", 100)
    owned = _entry(301, "SEQUENCE OWNED BY", "s", 100, 302)
    few = [_entry(n, "TABLE", f"t{n}") for n in range(1, 20)]
    view = _entry(90, "VIEW", "v", 1)
    out = list(stretches([*few, view, *tables, heir, owned], frozenset({150})))
    assert [(len(entries), apart) for entries, apart in out] == [(19, False), (1, False), (199, True), (3, False)]
    assert [e.dump_id for e in out[3][0]] == [150, 300, 301]
    assert sorted(e.dump_id for some, _ in out for e in some) == [*range(1, 20), 90, *range(100, 302)]


def test_the_index_of_a_heavy_key_shares_its_table_and_the_key_waits_for_it() -> None:
    definition = "ALTER TABLE ONLY s.t1\n    ADD CONSTRAINT pk PRIMARY KEY (id);\n"
    key = replace(_entry(10, "CONSTRAINT", "t1 pk", 1), defn=definition)
    entries = [key, _entry(11, "INDEX", "i1", 1), _entry(12, "FK CONSTRAINT", "t3 fk", 3, 1, 10)]
    bare, *rest = _builder().jobs(entries)
    made = {tuple(j.gives): j for j in rest}
    assert min(bare.gives) < -1000 and bare.deps == {-1} and not bare.locks and not bare.light
    assert made[(10,)].deps == bare.gives | {-1} and made[(10,)].locks == {1} and made[(10,)].light
    assert 10 in made[(12,)].deps
    schedule = Schedule([Job(gives=frozenset({-1}), weight=1 << 63), bare, *rest], 2)
    rows = schedule.take()
    assert rows is not None and schedule.take() is None
    schedule.done(rows)
    assert [schedule.take(), schedule.take(), schedule.take()] == [bare, made[(11,)], None]
    schedule.done(bare)
    assert schedule.take() is None  # the key would hold up the other index
    schedule.done(made[(11,)])
    assert [schedule.take(), schedule.take()] == [made[(10,)], None]


def test_a_table_larger_than_all_that_are_left_shares_with_few() -> None:
    giant = Job(gives=frozenset({-1}), weight=load_weight(30 * MIB), rows=30 * MIB)
    next_one = Job(gives=frozenset({-2}), weight=load_weight(20 * MIB), rows=20 * MIB)
    light = [Job(gives=frozenset({n}), light=True) for n in (11, 12, 13)]
    schedule = Schedule([giant, next_one, *light], 2)
    assert [schedule.take() for _ in range(4)] == [giant, next_one, light[0], None]
    schedule.done(giant)  # now the other one is all that is left
    assert [schedule.take(), schedule.take()] == [light[1], None]
    schedule.done(next_one)
    assert schedule.take() is light[2]
