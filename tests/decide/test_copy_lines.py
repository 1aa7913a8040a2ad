"""Lines of COPY text, compiled or not: what the server makes of them is what was meant."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.servers import needs

from pgkura.changes.pgoutput import UNCHANGED, Row
from pgkura.core.errors import Tampered
from pgkura.replay import lines
from pgkura.replay.lines import pieces, write, write_in_python

LETTERS = st.sampled_from([b"\\", b"\n", b"\t", b"\r", b"N", b"n", b".", b"\0", b"\xff", b"x" * 30])
VALUES = st.one_of(st.none(), st.lists(LETTERS, max_size=6).map(b"".join))
PARTS: st.SearchStrategy[Row] = st.lists(VALUES, max_size=4).map(tuple)
LINES = st.lists(st.lists(PARTS, min_size=1, max_size=3).map(tuple), max_size=20)

READ = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"\\": b"\\"}


def read_field(field: bytes) -> bytes | None:
    """As COPY reads it."""
    if field == b"\\N":
        return None
    first, *more = field.split(b"\\")
    found, rest = first, iter(more)
    for part in rest:
        # Nothing between two of them: the second is meant, and what follows it.
        found += READ[part[:1]] + part[1:] if part else b"\\" + next(rest)
    return found


@given(LINES, st.integers(1, 200))
def test_rows_come_back(rows: Sequence[tuple[Row, ...]], enough: int) -> None:
    """Whatever is in them, and however many are taken at a time."""
    meant = [tuple(v for part in parts for v in part) or (b"",) for parts in rows]
    for way in (write, write_in_python):
        waiting, found = iter(rows), []
        while piece := way(waiting, enough):
            assert piece.endswith(b"\n") and len(piece[:-1].rpartition(b"\n")[0]) < enough
            found.append(piece)
        text = b"".join(found)
        assert [tuple(map(read_field, line.split(b"\t"))) for line in text.split(b"\n")[:-1]] == meant
    assert b"".join(pieces(rows)) == text


def test_a_value_that_is_not_told_is_refused() -> None:
    """And a row that cannot be had is not hidden by it."""
    for way in (write, write_in_python):
        with pytest.raises(Tampered, match="not told"):
            way(iter([((b"1", UNCHANGED),)]), 10)
        with pytest.raises(ZeroDivisionError):
            way((((b"%d" % (1 // n),),) for n in (1, 0)), 10)


def test_large_values() -> None:
    """More than what is set aside at first, with and without what is escaped."""
    rows: list[tuple[Row, ...]] = [((b"a" * 300_000, None),), ((b"\\" * 70_000,), (b"\t" * 9,))]
    assert b"".join(pieces(rows)) == b"a" * 300_000 + b"\t\\N\n" + b"\\\\" * 70_000 + b"\t" + b"\\t" * 9 + b"\n"
    assert [len(p) for p in pieces(rows)] == [300_004, 140_020]


def test_the_compiled_part_is_what_is_tested() -> None:
    """Where it could be built."""
    needs("a C compiler when `make setup` runs", lines.compiled is not None)
    assert lines.compiled is not None
    for wrong in ([((b"1",),)], iter([[b"1"]]), iter([([b"1"],)])):
        with pytest.raises((TypeError, SystemError)):
            lines.compiled(wrong, 10)  # type: ignore[arg-type]


def test_without_the_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, in Python."""
    monkeypatch.setattr(lines, "compiled", None)
    assert write(iter([((b"1", None), (b"\t",))]), 10) == b"1\t\\N\t\\t\n"
