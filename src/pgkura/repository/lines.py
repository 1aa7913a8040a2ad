"""Rows of a chunk by their number, in bulk: where lines end, and what is left when some rows are taken out. Pure.

Two shapes of rows: COPY text, whose rows end with a newline and never hold a raw one, and rows whose lengths are known
(binary COPY). Nothing here runs once per row in Python; what is kept is returned as views, never copied.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pgkura.core.errors import Tampered

Numbers = NDArray[np.int64]

_NEWLINE = 10
# Searched at a time: the bytes of a mask are never as many as those of a long value.
_BLOCK = 4 << 20
# A COPY sends pieces of this size as they are.
PIECE = 256 * 1024


def write_numbers(numbers: Numbers) -> bytes:
    """One number a line, in decimal: for people and for the repository's own script."""
    return "".join(f"{n}\n" for n in numbers.tolist()).encode()


def read_numbers(text: bytes) -> Numbers:
    """What `write_numbers` wrote. Raises Tampered."""
    try:
        return np.array(text.split(), np.int64)
    except ValueError as error:
        raise Tampered("a list of numbers is damaged", detail=str(error)) from error


def read_drops(text: bytes, count: int) -> Numbers:
    """The dropped rows, from 0. Raises Tampered unless they are so many."""
    drops = read_numbers(text) - 1
    if len(drops) != count:
        raise Tampered("a list of dropped rows is damaged", detail=f"{len(drops)} instead of {count}")
    return drops


def pack_sizes(sizes: Numbers) -> bytes:
    """Sizes of rows as 4 bytes each, little-endian, transposed: all lowest bytes, then all second ones, …"""
    return sizes.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()


def unpack_sizes(stored: bytes) -> Numbers:
    """What `pack_sizes` made. Raises Tampered."""
    if len(stored) % 4:
        raise Tampered("a list of row sizes is damaged", detail="it ends within a size")
    return np.frombuffer(stored, np.uint8).reshape(4, -1).T.copy().view("<u4").reshape(-1).astype(np.int64)


def line_ends(text: bytes | memoryview) -> Numbers:
    """The place after each newline, ascending."""
    view = np.frombuffer(text, np.uint8)
    blocks = [np.flatnonzero(view[at : at + _BLOCK] == _NEWLINE) + (at + 1) for at in range(0, len(view), _BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.int64)


def drop_lines(text: bytes | memoryview, drops: Numbers) -> list[memoryview]:
    """Newline-terminated text without these lines (ascending, from 0), as the runs that are kept."""
    ends = line_ends(text)
    if len(text) != (ends[-1] if len(ends) else 0):
        raise Tampered("rows end in the middle of a line", detail="COPY text always ends with a newline")
    return _without(memoryview(text), ends, drops)


def drop_rows(buffer: bytes | memoryview, lengths: Numbers, drops: Numbers) -> list[memoryview]:
    """Rows of these lengths, one after the other, without the dropped ones, as the runs that are kept."""
    ends = np.cumsum(lengths, dtype=np.int64)
    if (len(lengths) and np.min(lengths) < 0) or len(buffer) != (ends[-1] if len(ends) else 0):
        raise Tampered("rows are not as long as they are said to be")
    return _without(memoryview(buffer), ends, drops)


def rows_left(whole: bytes | memoryview, sizes: Numbers | None, drops: Numbers) -> Iterator[bytes]:
    """A chunk without its dropped rows, in pieces. `sizes` of its rows, None = text."""
    return joined(drop_lines(whole, drops) if sizes is None else drop_rows(whole, sizes, drops))


def joined(runs: Sequence[memoryview]) -> Iterator[bytes]:
    """What is left, in pieces of some hundred kilobytes: no second copy of all of it."""
    # By their mean: runs are many, and of about the same length where it matters.
    together = max(1, len(runs) * PIECE // max(1, sum(map(len, runs))))
    for first in range(0, len(runs), together):
        if together > 1:
            yield b"".join(runs[first : first + together])
        else:
            run = runs[first]
            yield from (bytes(run[at : at + PIECE]) for at in range(0, len(run), PIECE))


def _without(view: memoryview, ends: Numbers, drops: Numbers) -> list[memoryview]:
    if not len(drops):
        return [view] if view else []
    drops = np.asarray(drops, np.int64)
    if drops[0] < 0 or drops[-1] >= len(ends) or np.any(drops[1:] <= drops[:-1]):
        raise Tampered("a list of dropped rows does not fit its rows", detail="numbers must ascend and exist")
    # What is kept lies between the end of one dropped row and the start of the next.
    starts = np.concatenate(([0], ends))
    froms = np.concatenate(([0], ends[drops]))
    untils = np.concatenate((starts[drops], [len(view)]))
    some = froms < untils
    return [view[a:b] for a, b in zip(froms[some].tolist(), untils[some].tolist(), strict=True)]
