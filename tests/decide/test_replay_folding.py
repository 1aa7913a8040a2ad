"""A fold and a table that takes every change one by one end the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.changes.pgoutput import DELETE, INSERT, UNCHANGED, UPDATE, Change, Row, Value
from pgkura.core.errors import Tampered, UsageError
from pgkura.replay.folding import Fold, Key, in_order, missing
from pgkura.replay.moments import Kind, parse_moment, time_text

Table = dict[Value, Row]


def key(n: int) -> bytes:
    """A key as text."""
    return b"%d" % n


def step(table: Table, kind: str, a: int, b: int, value: int) -> list[Change]:
    """What the log would say of a statement, which is also carried out on `table`."""
    new: Row = (key(a), b"v%d" % value, b"big%d" % value)
    if kind == "insert" and key(a) not in table:
        table[key(a)] = new
        return [Change(INSERT, 1, None, new)]
    if kind == "delete" and key(a) in table:
        del table[key(a)]
        return [Change(DELETE, 1, (key(a), None, None), None)]
    if kind == "update" and key(a) in table:
        big = table[key(a)][2]
        table[key(a)] = (key(a), b"v%d" % value, big)
        return [Change(UPDATE, 1, None, (key(a), b"v%d" % value, UNCHANGED))]
    if kind == "move" and key(a) in table and key(b) not in table:
        row = table.pop(key(a))
        table[key(b)] = (key(b), row[1], row[2])
        return [Change(UPDATE, 1, (key(a), None, None), (key(b), row[1], UNCHANGED))]
    return []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "update", "move", "truncate"]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(0, 99),
    ),
    max_size=60,
)


@given(st.sets(st.integers(0, 5)), STEPS)
def test_a_fold_equals_its_changes(before: set[int], steps: list[tuple[str, int, int, int]]) -> None:
    """Rows gone, then rows come, large values taken from where they were."""
    table: Table = {key(n): (key(n), b"old%d" % n, b"large%d" % n) for n in before}
    target = dict(table)
    fold = Fold(name="t", keys=(0,))
    for kind, a, b, value in steps:
        if kind == "truncate":
            table.clear()
            fold.empty_table()
        for change in step(table, kind, a, b, value):
            fold.take(change)
    if fold.emptied:
        target.clear()
    came: Table = {}
    for told, origin in fold.came.values():
        row = list(told)
        for n in missing(told):
            assert origin is not None
            row[n] = target[origin[0]][n]
        came[row[0]] = tuple(row)
    for gone in fold.gone:
        del target[gone[0]]
    assert not target.keys() & came.keys()
    assert target | came == table


def test_keys_in_order() -> None:
    """Where there is one."""
    assert list(in_order({(b"2", b"b"), (b"1", b"c"), (b"2", b"a")})) == [(b"1", b"c"), (b"2", b"a"), (b"2", b"b")]
    mixed: set[Key] = {(b"1",), (None,)}
    assert set(in_order(mixed)) == mixed


@pytest.mark.parametrize(
    "changes",
    [
        [Change(INSERT, 1, None, (b"1",)), Change(INSERT, 1, None, (b"1",))],
        [Change(DELETE, 1, (b"1",), None), Change(DELETE, 1, (b"1",), None)],
        [Change(DELETE, 1, (b"1",), None), Change(UPDATE, 1, None, (b"1",))],
        [Change(DELETE, 1, (UNCHANGED,), None)],
    ],
)
def test_what_cannot_follow_is_refused(changes: list[Change]) -> None:
    """A log that contradicts itself restores nothing."""
    fold = Fold(name="t", keys=(0,))
    with pytest.raises(Tampered):
        for change in changes:
            fold.take(change)


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("0/10", Kind.LSN, 16),
        ("lsn 1/0", Kind.LSN, 1 << 32),
        ("xid 77", Kind.XID, 77),
        ("after xid 77", Kind.XID, 77),
        ("BEFORE XID 77", Kind.BEFORE, 77),
        ("1970-01-01T00:00:01.5Z", Kind.TIME, 1_500_000),
        ("time 1970-01-01 01:00:00+01:00", Kind.TIME, 0),
        ("latest", Kind.LATEST, 0),
        ("mark latest", Kind.MARK, 0),
        ("before the storm", Kind.MARK, 0),
        ("snapshot 3:5:4", Kind.SNAPSHOT, 0),
    ],
)
def test_moments(text: str, kind: Kind, number: int) -> None:
    """Every way to say one."""
    moment = parse_moment(text)
    assert (moment.kind, moment.number) == (kind, number)


def test_moments_that_are_none() -> None:
    """Blank, or a snapshot that is none."""
    for text in ("", "  ", "snapshot 1", "snapshot 5:4:"):
        with pytest.raises(UsageError):
            parse_moment(text)


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_read_back(microseconds: int) -> None:
    """What is told can be given."""
    assert parse_moment(time_text(microseconds)).number == microseconds
