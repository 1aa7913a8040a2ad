"""Rows taken out by number: the rest is what a loop over rows would keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.core.errors import Tampered
from pgkura.repository import lines
from pgkura.repository.lines import Numbers, drop_lines, drop_rows, line_ends

ROWS = st.lists(st.binary(max_size=12), max_size=30)


def numbers(some: set[int] | list[int]) -> Numbers:
    """Ascending, as both helpers want them."""
    return np.array(sorted(some), np.int64)


@st.composite
def rows_and_drops(draw: st.DrawFn) -> tuple[list[bytes], set[int]]:
    """Rows and some of their numbers."""
    rows = draw(ROWS)
    return rows, draw(st.sets(st.integers(0, len(rows) - 1))) if rows else set()


@given(rows_and_drops())
def test_lines_are_dropped_by_number(case: tuple[list[bytes], set[int]]) -> None:
    """Empty lines count, and a run is never empty."""
    rows, drops = case
    texts = [row.replace(b"\n", b"\\n") + b"\n" for row in rows]
    kept = drop_lines(b"".join(texts), numbers(drops))
    assert b"".join(kept) == b"".join(text for n, text in enumerate(texts) if n not in drops)
    assert all(kept) and len(kept) <= len(drops) + 1


@given(rows_and_drops())
def test_rows_are_dropped_by_number(case: tuple[list[bytes], set[int]]) -> None:
    """Rows may hold any byte, and none."""
    rows, drops = case
    lengths = np.array([len(row) for row in rows], np.int64)
    kept = drop_rows(memoryview(b"".join(rows)), lengths, numbers(drops))
    assert b"".join(kept) == b"".join(row for n, row in enumerate(rows) if n not in drops)
    assert all(kept) and len(kept) <= len(drops) + 1


@given(st.binary(max_size=40).map(lambda raw: raw.replace(b"\x00", b"\n")), st.integers(1, 9))
def test_newlines_are_found_in_every_block(text: bytes, block: int) -> None:
    """The search is made block by block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_BLOCK", block)
        assert line_ends(text).tolist() == [n + 1 for n, byte in enumerate(text) if byte == 10]


def test_what_is_kept_is_a_view() -> None:
    """A gigabyte is never copied."""
    text = b"a\nb\nc\nd\n"
    assert [run.obj for run in drop_lines(text, numbers([1, 2]))] == [text, text]
    assert drop_lines(text, numbers([])) == [memoryview(text)]
    assert drop_lines(text, numbers([0, 1, 2, 3])) == drop_lines(b"", numbers([])) == []


@pytest.mark.parametrize("drops", [[3], [-1], [0, 0], [1, 0]])
def test_numbers_that_do_not_fit_are_damage(drops: list[int]) -> None:
    """Never other rows than those meant."""
    with pytest.raises(Tampered):
        drop_lines(b"a\nb\nc\n", np.array(drops, np.int64))
    with pytest.raises(Tampered):
        drop_rows(b"abc", np.array([1, 1, 1]), np.array(drops, np.int64))


def test_rows_that_do_not_fill_their_text_are_damage() -> None:
    """Half a line, a length too long, a negative one."""
    with pytest.raises(Tampered):
        drop_lines(b"a\nb", numbers([0]))
    for lengths in ([2, 2], [1, 1], [4, -1]):
        with pytest.raises(Tampered):
            drop_rows(b"abc", np.array(lengths), numbers([]))


@given(st.lists(st.integers(1, 3000), max_size=40), st.integers(1, 4000))
def test_pieces_are_neither_many_nor_long(lengths: list[int], most: int) -> None:
    """Runs of about the same length: as many together as fit; a long one is cut."""
    runs = [memoryview(bytes([n % 251]) * length) for n, length in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE", most)
        pieces = list(lines.joined(runs))
    assert b"".join(pieces) == b"".join(runs)
    assert all(pieces) and len(pieces) <= len(runs) + sum(lengths) // most
