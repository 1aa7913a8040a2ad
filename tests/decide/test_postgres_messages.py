"""CopyData messages cut in bulk give what reading them one by one gives, whatever is inside and wherever they break."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.servers import needs

from pgkura.postgres import messages
from pgkura.postgres.messages import BINARY_HEADER, BINARY_TRAILER, HEADER, Scratch, take, take_by_arrays, tuples

#: What looks like the beginning of a message, inside and across rows.
LURES = [b"d", b"d\0\0", b"d\0\0\0\x10", b"d\0\0\0\x05\0\x03", b"\0\0", b"\0\x03", b"dddd\0\0\0\0", bytes(100), b"x"]

SCRATCH = Scratch()


def framed(row: bytes) -> bytes:
    return b"d" + (len(row) + 4).to_bytes(4, "big") + row


def one_by_one(stream: bytes) -> tuple[list[int], int]:
    starts, at = [], 0
    while at + HEADER <= len(stream) and stream[at : at + 1] == b"d":
        after = at + 1 + int.from_bytes(stream[at + 1 : at + 5], "big")
        if after > len(stream):
            break
        starts.append(at)
        at = after
    return starts, at


def check(rows: Sequence[bytes], end: bytes, cut_off: int, *, binary: bool) -> None:
    stream = b"".join(map(framed, rows)) + end
    stream = stream[: max(len(stream) - cut_off, 0)]
    starts, stop = one_by_one(stream)
    whole = list(rows[: len(starts)])
    for way in (take, take_by_arrays):
        taken = way(memoryview(stream), SCRATCH, binary=binary)
        assert (taken.data, taken.sizes.tolist()) == (b"".join(whole), [len(r) for r in whole])
        assert taken.stop == stop


ROWS = st.lists(st.lists(st.sampled_from(LURES), max_size=4).map(b"".join), max_size=120)
ENDS = st.sampled_from([b"", b"c\0\0\0\x04C\0\0\0\x0bCOPY 9\0Z\0\0\0\x05I", b"d", b"d\0\0\xff", b"N\0\0\0\x05\0"])


@given(ROWS, ENDS, st.integers(0, 60))
def test_any_rows(rows: list[bytes], end: bytes, cut_off: int) -> None:
    check(rows, end, cut_off, binary=False)


@given(ROWS, ENDS, st.integers(0, 60))
def test_binary_rows_after_their_header(rows: list[bytes], end: bytes, cut_off: int) -> None:
    whole = [b"\0\x03" + row for row in rows]
    whole[:1] = [BINARY_HEADER + row for row in whole[:1]]
    check([*whole, BINARY_TRAILER], end, cut_off, binary=True)


@pytest.mark.parametrize("binary", [False, True])
def test_large_rows_among_small_ones(binary: bool) -> None:
    """64 KiB and more, and many: the wide way and the one by one."""
    chance = random.Random(5)
    for shape in ((10, 300), (60_000, 70_000), (10, 140_000), (1_400, 1_600)):
        rows = [b"\0\x03" + chance.randbytes(chance.randint(*shape)) for _ in range(400 if shape[1] < 2000 else 60)]
        for cut_off in (0, 1, 7, shape[0] // 2):
            check(rows, b"c\0\0\0\x04", cut_off, binary=binary)
        rows[1::9] = [b"\0\x03" + chance.randbytes(66_000) for _ in rows[1::9]]
        check(rows, b"", 3, binary=binary)


def test_header_and_trailer_are_no_rows() -> None:
    row = b"\0\x01\0\0\0\x02hi"
    sizes = np.array([len(BINARY_HEADER) + len(row), len(row), 2])
    made = tuples(BINARY_HEADER + row * 2 + BINARY_TRAILER, sizes, first=True)
    assert (made.data, made.rows, made.sizes.tolist()) == (row * 2, 2, [len(row)] * 2)
    empty = tuples(BINARY_HEADER + BINARY_TRAILER, np.array([len(BINARY_HEADER) + 2]), first=True)
    assert (empty.data, empty.rows, len(empty.sizes)) == (b"", 0, 0)
    alone = tuples(BINARY_HEADER, np.array([len(BINARY_HEADER)]), first=True)
    assert (alone.data, alone.rows) == (b"", 0)
    bare = tuples(b"\0\0" * 3, np.array([2, 2, 2]), first=False)
    assert (bare.data, bare.rows) == (b"\0\0" * 3, 3), "rows without columns"
    with pytest.raises(ValueError, match="something else"):
        tuples(b"PGCOPY\n", np.array([7]), first=True)


def test_a_length_no_server_sends_is_refused() -> None:
    stream = memoryview(b"d\0\0\0\x01" + framed(b"row\n"))
    for way in (take, take_by_arrays):
        with pytest.raises(ValueError, match="shorter"):
            way(stream, SCRATCH, binary=False)


def test_the_compiled_part_is_what_is_tested() -> None:
    needs("a C compiler when `make setup` runs", messages.compiled is not None)
    assert messages.compiled is not None
    with pytest.raises(TypeError):
        messages.compiled("no bytes")  # type: ignore[arg-type]
    taken = take(memoryview(framed(b"a") + b"d\xff\xff\xff\xff" + bytes(9)), SCRATCH, binary=False)
    assert (taken.data, taken.stop) == (b"a", 6), "a length of nearly 4 GiB is waited for, not read"
