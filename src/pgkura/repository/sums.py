"""Sums of a table's stored rows, as a restore saw them while it sent them.

Like cuts (cuts.py) they follow from the snapshot alone. They know no order: a table may be loaded in parts by several
connections, and its rows may come to lie in any order (docs/decisions/0003).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pgkura.core.errors import Tampered
from pgkura.repository.cuts import CutBook
from pgkura.repository.lines import Numbers
from pgkura.repository.rowsums import Multiset, RowHasher


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Of the rows of some chunks of a table.

    covered  those chunks: place of the first of a run, how many
    """

    rows: Multiset
    covered: Mapping[int, int]

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(rows=self.rows + other.rows, covered={**self.covered, **other.covered})


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a restore saw of the stored rows, for the proof that follows it.

    cuts  of tables that one connection loaded; sums: of those that came in parts, by their numbers
    draw  of this restore alone: what the key of the sums was made from (Repository.row_key)
    """

    cuts: CutBook
    sums: dict[int, Sums]
    draw: str = ""


def summed(pieces: Iterable[bytes], sizes: Numbers | None, hasher: RowHasher) -> Iterator[bytes]:
    """The pieces, added up as they go by. `sizes` of binary rows; text knows where its rows end."""
    if sizes is None:
        for piece in pieces:
            hasher.update(piece)
            yield piece
        return
    ends = np.cumsum(sizes, dtype=np.int64)
    done = start = end = 0  # rows; where the first of the others begins, and the bytes seen end
    begun: list[bytes | memoryview] = []
    for piece in pieces:
        view, base = memoryview(piece), end
        end += len(piece)
        last = int(np.searchsorted(ends, end, "right"))
        if last > done:
            head = int(ends[done]) - base
            if begun:
                # The row that began in the piece before.
                hasher.update_rows(b"".join((*begun, view[:head])), sizes[done : done + 1])
                begun, done, start = [], done + 1, base + head
            if last > done:
                hasher.update_rows(view[start - base : int(ends[last - 1]) - base], sizes[done:last])
                done, start = last, int(ends[last - 1])
        if start < end:
            begun.append(bytes(view[max(start - base, 0) :]))
        yield piece
    if done != len(sizes) or start != end:
        raise Tampered("rows are not as long as they are said to be")
