"""Reads the pieces of a unit: what is known to be unchanged is kept, of the rest only what changed travels.

Runs inside a worker's transaction, under its locks. The decisions are detector.judge's and places.gone's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pgkura.core.errors import Tampered, WrongKey
from pgkura.core.names import QualifiedName
from pgkura.core.refs import ChunkRef
from pgkura.postgres.session import Session
from pgkura.postgres.several import Several
from pgkura.repository.lines import Numbers, read_numbers
from pgkura.repository.repository import Repository
from pgkura.snapshot.copying import Copier, Draft
from pgkura.snapshot.detector import Before, Verdict, judge
from pgkura.snapshot.places import Contradiction, Places, ascending, decode, from_server, gone
from pgkura.snapshot.statements import (
    copy_statement,
    counts_statement,
    new_statement,
    places_statement,
    rows_statement,
)
from pgkura.snapshot.units import Piece, RangeRead, WorkUnit

# Ranges asked about in one statement.
AT_ONCE = 64
# New rows of a range that are asked for by their places; of more, all of the range are looked through.
BY_PLACE = 4096
# Ranges of a table in one unit that are counted before the others.
PROBES = 2
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Counted:
    """What the server says of a range."""

    visible: int
    new: int


class Follower:
    """One unit's reading. `name` is the table's name of now, where it was renamed."""

    def __init__(self, session: Session, copier: Copier, repo: Repository, unit: WorkUnit) -> None:
        self._session = session
        self._copier = copier
        self._repo = repo
        self._unit = unit
        self._ages = {since: self._age_of(since) for since in {p.since for p in unit.pieces if p.before is not None}}

    def read(self, pieces: Sequence[Piece], name: QualifiedName | None = None) -> None:
        """Every piece ends with layers that hold exactly its visible rows."""
        known = [p for p in pieces if p.before is not None and not p.due]
        counted = {p: _Counted(p.before.rows, 0) for p in known if p.still and p.before is not None}
        known = [p for p in known if p not in counted]
        probes = _probes(known)
        counted |= self._counts(probes, name)
        busy = self._busy({p: counted[p] for p in probes})
        counted |= self._counts([p for p in known if p not in counted and p.number not in busy], name)
        changed: list[tuple[Piece, Before]] = []
        whole: list[tuple[Piece, list[Draft]]] = []
        small: list[Piece] = []
        for piece in pieces:
            verdict = self._verdict(piece, counted, busy)
            if piece.before is None or verdict is Verdict.WHOLE:
                if self._is_small(piece):
                    small.append(piece)
                else:
                    whole.append((piece, self._whole(piece, name)))
            elif verdict is Verdict.CHANGED:
                changed.append((piece, piece.before))
            else:
                self._kept(piece, piece.before, counted[piece].new, name)
        whole.extend(self._together(small, name))
        whole.extend(self._changed(changed, name))
        self._place(whole, name)

    def _verdict(self, piece: Piece, counted: Mapping[Piece, _Counted], busy: frozenset[int]) -> Verdict:
        if piece.before is None or piece.due:
            return Verdict.WHOLE
        if piece in counted:
            return judge(piece.before, counted[piece].visible, counted[piece].new, self._unit.policy)
        # Not counted, since it is expected to have changed: the places of all rows will tell what the count would.
        return Verdict.CHANGED if piece.number in busy and piece.before.placed else Verdict.WHOLE

    def _busy(self, probes: Mapping[Piece, _Counted]) -> frozenset[int]:
        """Tables all of whose probed ranges have changed: counting the others first would be a scan in vain."""
        quiet = {p.number for p in probes if self._verdict(p, probes, frozenset()) is not Verdict.CHANGED}
        several = {p.number for p in probes if sum(q.number == p.number for q in probes) >= PROBES}
        return frozenset(several - quiet)

    def _age_of(self, since: int) -> int:
        """Ages are relative to this transaction: all xids from that snapshot's xmin on are at most so old."""
        xid = since & 0xFFFFFFFF
        return int(self._session.one(f"SELECT pg_catalog.age('{xid}'::pg_catalog.xid)")[0])

    def _counts(self, pieces: Sequence[Piece], name: QualifiedName | None) -> Iterator[tuple[Piece, _Counted]]:
        for some in _slices(pieces):
            with self._copier.pacer.statement():
                rows = self._session.rows(counts_statement(some, [self._ages[p.since] for p in some], name=name))
            for place, visible, new in rows:
                yield some[place], _Counted(visible, new)

    def _whole(self, piece: Piece, name: QualifiedName | None) -> list[Draft]:
        return self._copier.copy(self._session, piece, copy_statement(piece, name=name))

    def _is_small(self, piece: Piece) -> bool:
        return piece.whole and not piece.binary and piece.table.bytes <= self._unit.small_bytes

    def _together(self, pieces: Sequence[Piece], name: QualifiedName | None) -> Iterator[tuple[Piece, list[Draft]]]:
        """Whole small tables, many to a query."""
        for some in _slices(pieces):
            statements = [copy_statement(piece, name=name) for piece in some]
            with Several(self._session, statements) as several:
                for piece, statement in zip(some, statements, strict=True):
                    yield piece, self._copier.copy(several, piece, statement)

    def _kept(self, piece: Piece, before: Before, new: int, name: QualifiedName | None) -> None:
        """Quiet or grown: no row that was there is gone."""
        drafts = self._copier.keep(piece, before.layers)
        self._new_rows(piece, new, name)
        self._remember(piece, drafts, before.since)

    def _new_rows(self, piece: Piece, count: int, name: QualifiedName | None) -> Places:
        if not count:
            return np.zeros(0, np.int64)
        statement = new_statement(piece, self._ages[piece.since], name=name)
        return self._copier.copy_placed(self._session, piece, statement)

    def _rows_at(self, piece: Piece, places: Places, name: QualifiedName | None) -> None:
        """The new rows, which lie there."""
        if len(places) > BY_PLACE:
            found = self._new_rows(piece, len(places), name)
        elif len(places):
            tids = zip((places >> 16).tolist(), (places & 0xFFFF).tolist(), strict=True)
            statement = rows_statement(piece, list(tids), name=name)
            found = self._copier.copy_placed(self._session, piece, statement)
        else:
            found = places
        if not np.array_equal(found, places):
            raise Contradiction("new rows did not come from where they lie")

    def _changed(
        self, pieces: Sequence[tuple[Piece, Before]], name: QualifiedName | None
    ) -> Iterator[tuple[Piece, list[Draft]]]:
        """New rows travel, and the places of all; yields what has to be read whole after all."""
        for some in _slices(pieces):
            seen = self._visible([p for p, _ in some], name, [self._ages[p.since] for p, _ in some])
            for (piece, before), (visible, new) in zip(some, seen, strict=True):
                try:
                    self._one_changed(piece, before, visible, new, name)
                except (Contradiction, Tampered, WrongKey):
                    self._copier.forget(piece.number, piece.first)
                    yield piece, self._whole(piece, name)

    def _one_changed(
        self, piece: Piece, before: Before, visible: Places, new: Places, name: QualifiedName | None
    ) -> None:
        if not ascending(visible) or not ascending(new):
            raise Contradiction("rows did not come in the order in which they lie")
        # What is stored and then not wanted stays in its pack: look first.
        self._not_too_much(before, len(visible), len(new))
        remembered = [(self._places_of(layer.places), self._drops_of(layer.drops)) for layer in before.layers]
        dropped = gone(remembered, visible, new)
        drafts = self._copier.keep(piece, before.layers)
        self._rows_at(piece, new, name)
        for draft, (_, were), lines in zip(drafts, remembered, dropped, strict=False):
            if len(lines) != len(were):
                self._copier.drop(draft, lines)
        self._remember(piece, drafts, before.since)

    def _not_too_much(self, before: Before, visible: int, new: int) -> None:
        if judge(before, visible, new, self._unit.policy) is Verdict.WHOLE:
            raise Contradiction("it has changed too much")

    def _places_of(self, ref: ChunkRef | None) -> Places:
        if ref is None:
            raise Contradiction("the places of its rows are not known")
        return decode(self._repo.read_bytes(ref))

    def _drops_of(self, ref: ChunkRef | None) -> Numbers:
        return read_numbers(b"" if ref is None else self._repo.read_bytes(ref))

    def _visible(
        self, pieces: Sequence[Piece], name: QualifiedName | None, ages: Sequence[int | None] | None = None
    ) -> Iterator[tuple[Places, Places]]:
        """Of each piece the places of its rows, and of those that are new if their age is given."""
        with self._copier.pacer.statement():
            rows = self._session.binary_rows(places_statement(pieces, ages or [None] * len(pieces), name=name))
        by_piece = {number: (visible or b"", new or b"") for number, visible, new in rows}
        for number, piece in enumerate(pieces):
            visible, new = by_piece.get(number, (b"", b""))
            self._copier.received(piece.number, len(visible) + len(new))
            yield from_server(visible), from_server(new)

    def _place(self, pieces: Sequence[tuple[Piece, list[Draft]]], name: QualifiedName | None) -> None:
        """Find out where the rows of pieces just read whole lie, so that the next run can follow them."""
        followed = [(p, d) for p, d in pieces if p.follow]
        small = self._unit.small_bytes
        wanted = [(p, d) for p, d in followed if d and not (p.whole and p.table.bytes <= small)]
        for piece, drafts in followed:
            if not drafts or (piece.whole and piece.table.bytes <= small):
                self._remember(piece, drafts)
        for some in _slices(wanted):
            visible = self._visible([p for p, _ in some], name)
            for (piece, drafts), (places, _) in zip(some, visible, strict=True):
                if len(places) != sum(d.rows for d in drafts) or not ascending(places):
                    continue  # then it is read whole again next time
                at = 0
                for draft in drafts:
                    self._copier.store_places(draft, places[at : at + draft.rows])
                    at += draft.rows
                self._remember(piece, drafts)

    def _remember(self, piece: Piece, drafts: Sequence[Draft], since: str | None = None) -> None:
        rows = sum(d.rows - d.dropped for d in drafts)
        done = RangeRead(piece=piece.first, start=piece.start, end=piece.end, rows=rows, since=since)
        self._copier.read(piece.number, done)


def _probes(pieces: Sequence[Piece]) -> list[Piece]:
    """The first ranges of each table that has more of them."""
    seen: dict[int, int] = {}
    found = []
    for piece in pieces:
        seen[piece.number] = seen.get(piece.number, 0) + 1
        if seen[piece.number] <= PROBES:
            found.append(piece)
    return found


def _slices(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for at in range(0, len(items), AT_ONCE):
        yield items[at : at + AT_ONCE]
