"""CopyData messages, cut and unpacked in bulk. Pure. (PostgreSQL manual, "Message Formats": `d`, a length that counts
itself in four bytes, and one row.)

A Python loop costs 0.2 µs for each row, arrays one to two seconds for each GB, the compiled part (_rows.c) a tenth of
that; it is not there where a package was built without a C compiler.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from struct import Struct

import numpy as np
from numpy.typing import NDArray

compiled: Callable[[memoryview], tuple[bytes, bytes, int]] | None
try:
    from pgkura.postgres._rows import take as compiled
except ImportError:
    compiled = None

Numbers = NDArray[np.int64]

Data = bytes | memoryview

HEADER = 5  # of a message: its type and its length
# Signature, no flags, no extension; a tuple of -1 columns.
BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
BINARY_TRAILER = b"\xff\xff"

_COPY_DATA = ord("d")
_length = Struct(">I").unpack_from
# So many messages are looked at one by one; if they are this large on average, so are the rest.
_SAMPLE = 32
_LARGE = 1500


def _no_numbers() -> Numbers:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class CopyBatch:
    """Whole rows of COPY text, newlines included; or rows of binary COPY without its header, and the size of each."""

    data: Data
    rows: int
    sizes: Numbers = field(default_factory=_no_numbers)


class Scratch:
    """Memory used again for each cut: to ask the system for it costs as much as the work. For one thread."""

    def __init__(self) -> None:
        self._same = np.empty(0, np.bool_)
        self._kept = np.empty(0, np.bool_)

    def same(self, size: int) -> NDArray[np.bool_]:
        """Of any content; a multiple of eight."""
        if len(self._same) < size:
            self._same = np.empty((size + 7) & ~7, np.bool_)
        return self._same

    def kept(self, size: int) -> NDArray[np.bool_]:
        """All true; to be left so."""
        if len(self._kept) < size:
            self._kept = np.ones(size, np.bool_)
        return self._kept[:size]


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows, the size of each, and the first place that does not begin a whole CopyData message."""

    data: Data
    sizes: Numbers
    stop: int


def take(view: memoryview, scratch: Scratch, *, binary: bool) -> Taken:
    """The rows of all whole CopyData messages at the front. Raises ValueError for what no server sends."""
    if compiled is not None:
        data, sizes, stop = compiled(view)
        return Taken(data, np.frombuffer(sizes, np.int64), stop)
    return take_by_arrays(view, scratch, binary=binary)


def take_by_arrays(view: memoryview, scratch: Scratch, *, binary: bool) -> Taken:
    """The same, without the compiled part."""
    starts, stop = cut(view, scratch, binary=binary)
    return Taken(*unpack(view, starts, stop, scratch), stop) if len(starts) else Taken(b"", _no_numbers(), stop)


def cut(view: memoryview, scratch: Scratch, *, binary: bool) -> tuple[Numbers, int]:
    """Where each whole CopyData message begins, and the first place that does not begin one."""
    starts, at = _walk(view, 0, _SAMPLE)
    if len(starts) < _SAMPLE or at > _SAMPLE * _LARGE:
        more, at = _walk(view, at, len(view))
        return np.array(starts + more, np.int64), at
    # All binary rows of a table begin with the same two bytes, the number of columns.
    count = bytes(view[starts[-1] + HEADER : starts[-1] + HEADER + 2]) if binary else b""
    found, stop = _find(view[at:], count, scratch)
    return np.concatenate((np.array(starts, np.int64), *(part + at for part in found))), stop + at


def _walk(view: memoryview, at: int, most: int) -> tuple[list[int], int]:
    starts: list[int] = []
    end = len(view)
    while len(starts) < most and at + HEADER <= end and view[at] == _COPY_DATA:
        after = at + 1 + _length(view, at + 1)[0]
        if after > end:
            break
        starts.append(at)
        at = after
    return starts, at


def _find(view: memoryview, beginning: bytes, scratch: Scratch) -> tuple[list[Numbers], int]:
    """All that look like a message of less than 64 KiB are found at once; those count that follow upon each other."""
    data = np.frombuffer(view, np.uint8)
    places = _all(data[: max(len(data) - HEADER - len(beginning) + 1, 0)], _COPY_DATA, scratch)
    places = places[(data[places + 1] | data[places + 2]) == 0]
    for offset, byte in enumerate(beginning, HEADER):
        places = places[data[places + offset] == byte]
    after = places + 1 + ((data[places + 3].astype(np.int64) << 8) | data[places + 4])
    lasts = np.flatnonzero(np.append(after[:-1] != places[1:], True)) if len(places) else places
    chains: list[Numbers] = []
    at = 0
    while True:
        first = int(places.searchsorted(at))
        if first < len(places) and places[first] == at:
            last = int(lasts[lasts.searchsorted(first)])
            if after[last] > len(data):
                chains.append(places[first:last])
                return chains, int(places[last])
            chains.append(places[first : last + 1])
            at = int(after[last])
            continue
        # What does not look like one: a large row, another type, or less than a whole message.
        starts, at = _walk(view, at, 1)
        if not starts:
            return chains, at
        chains.append(np.array(starts, np.int64))


def _all(data: NDArray[np.uint8], byte: int, scratch: Scratch) -> Numbers:
    """Where a rare byte is. Eight at a time: to look through single ones takes four times as long."""
    same = scratch.same(len(data))
    end = (len(data) + 7) & ~7
    same[len(data) : end] = False
    np.equal(data, byte, out=same[: len(data)])
    words = np.flatnonzero(same[:end].view(np.uint64) != 0)
    inside = np.flatnonzero(same[:end].reshape(-1, 8)[words])
    found: Numbers = (words[inside >> 3] << 3) + (inside & 7)
    return found


def unpack(view: memoryview, starts: Numbers, stop: int, scratch: Scratch) -> tuple[Data, Numbers]:
    """The rows of these messages, which end at `stop`, without what frames them; and their sizes.

    Raises ValueError for what no server sends.
    """
    sizes = np.diff(starts, append=np.int64(stop)) - HEADER
    if sizes.min() < 0:
        raise ValueError("a message that is shorter than its own length")
    if len(starts) < _SAMPLE or stop - starts[0] > len(starts) * _LARGE:
        firsts = (starts + HEADER).tolist()
        return b"".join([view[a : a + n] for a, n in zip(firsts, sizes.tolist(), strict=True)]), sizes
    kept = scratch.kept(stop)
    frames = (starts[:, None] + np.arange(HEADER)).ravel()
    kept[frames] = False
    rows = np.frombuffer(view[:stop], np.uint8)[kept]
    kept[frames] = True
    return rows.data, sizes


def tuples(data: Data, sizes: Numbers, *, first: bool) -> CopyBatch:
    """Binary rows without the header, which stands in front of the first, and without the trailer, which is the last.

    Raises ValueError when the header is another one.
    """
    begin = 0
    if first:
        if data[: len(BINARY_HEADER)] != BINARY_HEADER:
            raise ValueError("the server's binary COPY begins with something else")
        begin = len(BINARY_HEADER)
        sizes = sizes.copy()
        sizes[0] -= begin
        sizes = sizes[1:] if not sizes[0] else sizes
    # Every tuple begins with two bytes that count its columns: one of none is as short, but not as negative.
    if len(sizes) and sizes[-1] == len(BINARY_TRAILER) and data[-len(BINARY_TRAILER) :] == BINARY_TRAILER:
        return CopyBatch(data[begin : -len(BINARY_TRAILER)], len(sizes) - 1, sizes[:-1])
    return CopyBatch(data[begin:] if begin else data, len(sizes), sizes)


def joined(parts: Sequence[bytes | memoryview]) -> tuple[bytes, Numbers]:
    """Messages that a driver has cut, as one; and their sizes."""
    return b"".join(parts), np.fromiter(map(len, parts), np.int64, len(parts))
