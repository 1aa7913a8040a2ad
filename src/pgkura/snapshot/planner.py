"""Tables become pieces, pieces become units, largest first. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from pgkura.core.facts import LargeObjectFacts, TableFacts
from pgkura.snapshot.options import MIB, Options
from pgkura.snapshot.units import BlobRange, Piece

PAGE_BYTES = 8192
FEWER = 8
# One unit of a split table: long enough to pay for its five round trips, short enough to give up.
UNIT_BYTES = 64 * MIB
# Tables below this share a unit, its transaction and its pack.
TINY_BYTES = MIB
TINY_PER_UNIT = 64
# Estimated work of a table whatever its size, so that a thousand empty tables are not one unit.
TABLE_COST = 32 * 1024
BLOB_UNIT_BYTES = 64 * MIB
BLOBS_PER_UNIT = 1000


def has_rows(table: TableFacts) -> bool:
    """Whether rows are read from it: ordinary tables and leaves, not roots, matviews or foreign tables."""
    return table.kind == "r" and table.readable


class Ranges(Sequence[Piece]):
    """Neighbouring page ranges of one table, each made when it is looked at: a large table has a million."""

    __slots__ = ("_first", "_number", "_step", "_table", "_until")

    def __init__(self, number: int, table: TableFacts, step: int, first: int, until: int) -> None:
        self._number = number
        self._table = table
        self._step = step
        self._first = first
        self._until = until

    def __len__(self) -> int:
        return self._until - self._first

    @overload
    def __getitem__(self, at: int) -> Piece: ...
    @overload
    def __getitem__(self, at: slice) -> "Ranges": ...
    def __getitem__(self, at: int | slice) -> "Piece | Ranges":
        if isinstance(at, slice):
            begun, until, _ = at.indices(len(self))
            return Ranges(self._number, self._table, self._step, self._first + begun, self._first + max(begun, until))
        first = range(self._first, self._until)[at]
        end = (first + 1) * self._step
        return Piece(
            number=self._number,
            table=self._table,
            first=first,
            start=first * self._step,
            end=None if end >= self._table.pages else end,
        )


def pieces_of(number: int, table: TableFacts, options: Options, *, divisible: bool) -> Sequence[Piece]:
    """Page ranges for a large heap, else the whole table.

    `divisible`: whether a planned query on it runs nobody's code (see queries/divisible.sql); COPY of a whole
    table plans nothing.
    """
    pages, step = table.pages, step_of(table, options.range_pages)
    if pages <= 2 * step or not divisible or options.gentle or table.access_method != "heap" or table.config_where:
        return [Piece(number=number, table=table)]
    return Ranges(number, table, step, 0, -(-pages // step))


def step_of(table: TableFacts, pages: int) -> int:
    """Pages of one range: fewer where most of the table lies beside its heap (TOAST), else one change reads it all.

    By powers of eight: where the step changes, the table is read anew.
    """
    weight = table.bytes // max(1, table.pages * PAGE_BYTES)
    while weight >= FEWER and pages >= 2 * FEWER:
        weight, pages = weight // FEWER, pages // FEWER
    return pages


def size_of(piece: Piece) -> int:
    """Estimated bytes on disk that reading it touches."""
    table = piece.table
    if piece.whole:
        return table.bytes + TABLE_COST
    end = table.pages if piece.end is None else piece.end
    return table.bytes * max(0, end - piece.start) // max(1, table.pages) + TABLE_COST


def group_pieces(
    tables: Iterable[tuple[int, TableFacts]], options: Options, divisible: frozenset[int]
) -> list[Sequence[Piece]]:
    """Units as groups of pieces, largest first: ranges of one table together, tiny tables together."""
    groups: list[Sequence[Piece]] = []
    tiny: list[Piece] = []
    for number, table in tables:
        pieces = pieces_of(number, table, options, divisible=table.oid in divisible)
        if len(pieces) > 1:
            groups.extend(_runs(pieces, UNIT_BYTES))
        elif size_of(pieces[0]) <= TINY_BYTES:
            tiny.append(pieces[0])
        else:
            groups.append((pieces[0],))
    tiny.sort(key=lambda p: (-size_of(p), p.number))
    groups.extend(_runs(tiny, UNIT_BYTES, TINY_PER_UNIT))
    return sorted(groups, key=lambda g: (-sum(map(size_of, g)), g[0].number, g[0].first))


def _runs(pieces: Sequence[Piece], limit: int, most: int = 1 << 30) -> Iterator[Sequence[Piece]]:
    begun = total = 0
    for at, piece in enumerate(pieces):
        size = size_of(piece)
        if begun < at and (total + size > limit or at - begun >= most):
            yield pieces[begun:at]
            begun, total = at, 0
        total += size
    if begun < len(pieces):
        yield pieces[begun:]


def group_blobs(objects: Sequence[LargeObjectFacts]) -> list[BlobRange]:
    """Large objects in ascending order, cut by size and number."""
    ranges: list[BlobRange] = []
    run: list[LargeObjectFacts] = []
    total = 0
    for item in sorted(objects, key=lambda o: o.oid):
        if run and (total + item.size > BLOB_UNIT_BYTES or len(run) >= BLOBS_PER_UNIT):
            ranges.append(BlobRange(first=len(ranges), objects=tuple(run)))
            run, total = [], 0
        run.append(item)
        total += item.size
    if run:
        ranges.append(BlobRange(first=len(ranges), objects=tuple(run)))
    return ranges
