"""What was read of each table, and what has to be read next. A state machine; what it booked is kept by Booked.

A table ends in one of three states: its rows of the snapshot's instant are stored; it changed, and its rows of a
later instant are stored; or no rows are stored. The last two leave a `lost` finding, so a run with missing rows
is never green.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pgkura.core.facts import TableFacts
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.refs import ChunkRef, Layer
from pgkura.snapshot.booked import Booked, TableLayers
from pgkura.snapshot.detector import Before
from pgkura.snapshot.state import FollowedRange
from pgkura.snapshot.units import BLOBS, BlobRange, Mode, Piece, Read, TableRead, UnitResult

# How often one table may be taken from us before its rows are given up (each time costs the reader its work).
MAX_INTERRUPTIONS = 8
# How often a statement of one table may run longer than allowed: the second time its pages lie in the cache.
MAX_OVERRUNS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something to read: pieces of tables, or large objects."""

    mode: Mode
    pieces: Sequence[Piece] = ()
    blobs: BlobRange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """The outcome for one table: layers in order, their plain bytes, and the columns they hold where those differ."""

    number: int
    rows: int
    bytes: int
    layers: Collection[Layer]
    binary: bool
    columns: tuple[str, ...] | None


@dataclass(slots=True, kw_only=True)
class _State:
    rows: int = 0
    bytes: int = 0
    chunks: int = 0
    reused: int = 0
    binary: bool = False
    columns: tuple[str, ...] | None = None
    interruptions: int = 0
    overruns: int = 0
    outdated: bool = False
    closed: bool = False
    released_at: float | None = None

    def forget_rows(self) -> None:
        self.rows = self.bytes = self.chunks = self.reused = 0
        self.binary, self.columns = False, None


class Ledger:
    """Feed it results and lost locks; it answers with what to read next."""

    def __init__(self, tables: Sequence[TableFacts], booked: Booked) -> None:
        self._tables = tables
        self._booked = booked
        self._states: dict[int, _State] = {}
        self.findings: list[Finding] = []
        self.chunks_unchanged = 0
        self.bytes_read = 0

    def mode_of(self, number: int, planned: Mode) -> Mode:
        """The mode in which to read a table now: `late` once its holder has given way."""
        return Mode.LATE if planned is Mode.HELD and self._of(number).released_at is not None else planned

    def release(self, numbers: Iterable[int], at: float) -> None:
        """Their holder gave way at this moment of the server's clock. A partitioned table has no rows to read."""
        for number in numbers:
            if self._tables[number].kind == "p":
                continue
            state = self._of(number)
            if state.released_at is None:
                state.released_at = at

    def record(self, result: UnitResult) -> list[Request]:
        """Book a unit's report; returns what has to be read next."""
        with self._booked.together():
            return [r for table in result.tables for r in self._book(result, table)]

    def stored(self) -> list[StoredTable]:
        """All tables that were read, by number; tables without rows included."""
        return [
            StoredTable(
                number=number,
                rows=state.rows,
                bytes=state.bytes,
                columns=state.columns,
                binary=state.binary,
                layers=TableLayers(self._booked, number, state.chunks),
            )
            for number, state in sorted(self._states.items())
        ]

    def followed(self, today: str) -> Iterator[tuple[int, Iterator[FollowedRange]]]:
        """Per table, by number, the ranges that the next run can go on from; each to be read before the next."""
        for number, ranges in groupby(self._booked.ranges(), lambda found: found[0]):
            yield (
                number,
                (
                    FollowedRange(
                        start=r.start, before=Before(rows=r.rows, end=r.end, since=r.since or today, layers=layers)
                    )
                    for _, r, layers in ranges
                ),
            )

    def places(self) -> Iterator[ChunkRef]:
        """Where the rows of those ranges lie: what a restore need not read."""
        return self._booked.places()

    def new_chunks(self) -> Iterator[ChunkRef]:
        """Chunks whose bytes this run stored; those of a reading that was thrown away may be among them."""
        return self._booked.fresh()

    def untold_chunks(self) -> Iterator[ChunkRef]:
        """Those of them that no index file names yet."""
        return self._booked.untold()

    def _of(self, number: int) -> _State:
        return self._states.setdefault(number, _State())

    def _book(self, result: UnitResult, read: TableRead) -> list[Request]:
        state = self._of(read.number)
        self.bytes_read += read.bytes
        mode = result.unit.mode
        if state.closed or (state.outdated and mode is not Mode.REREAD):
            return []
        outcome = read.outcome
        if outcome is Read.DONE and mode is Mode.HELD and _after(result.locked_at, state.released_at):
            outcome = Read.INTERRUPTED  # its lock came after the holder's was gone: something may have slipped in
        match outcome:
            case Read.DONE:
                return self._done(state, read, mode)
            case Read.INTERRUPTED:
                return self._interrupted(state, result, read.number)
            case Read.OVERRAN if state.overruns < MAX_OVERRUNS:
                state.overruns += 1
                return self._again(result, read.number)
            case Read.CHANGED if mode is not Mode.REREAD:
                return self._changed(state, read)
            case _:
                return self._given_up(state, read)

    def _done(self, state: _State, read: TableRead, mode: Mode) -> list[Request]:
        reused = sum(1 for c in read.chunks if not c.is_new)
        state.rows += read.rows
        state.bytes += sum(c.layer.chunk.length for c in read.chunks)
        state.chunks += len(read.chunks)
        state.reused += reused
        # every binary layer with rows has their sizes; a table without rows has no form
        state.binary = state.binary or any(c.layer.sizes is not None for c in read.chunks)
        self.chunks_unchanged += reused
        self._booked.add(read.number, read.chunks, read.ranges if mode is not Mode.REREAD else ())
        if mode is Mode.REREAD:
            state.columns = read.columns
            reason = "changed while the backup ran; stored as of a later instant"
            self._lost(read.number, f"{reason} ({read.reason})" if read.reason else reason)
            state.closed = True
        return []

    def _interrupted(self, state: _State, result: UnitResult, number: int) -> list[Request]:
        state.interruptions += 1
        if state.interruptions > MAX_INTERRUPTIONS:
            self._drop(state, number)
            self._lost(number, "the application needed it again and again while the backup ran; its rows are missing")
            return []
        return self._again(result, number)

    def _again(self, result: UnitResult, number: int) -> list[Request]:
        if number == BLOBS:
            return [Request(mode=result.unit.mode, blobs=result.unit.blobs)]
        mode = Mode.REREAD if result.unit.mode is Mode.REREAD else Mode.LATE
        return [Request(mode=mode, pieces=tuple(p for p in result.unit.pieces if p.number == number))]

    def _changed(self, state: _State, read: TableRead) -> list[Request]:
        self._unstore(state, read.number)
        state.outdated = True
        return [Request(mode=Mode.REREAD, pieces=(Piece(number=read.number, table=self._tables[read.number]),))]

    def _given_up(self, state: _State, read: TableRead) -> list[Request]:
        self._drop(state, read.number)
        said = {
            Read.GONE: "dropped while the backup ran; its rows are missing",
            Read.REFUSED: "the application kept it locked while the backup ran; its rows are missing",
            Read.CHANGED: "changed while the backup ran; its rows are missing",
            Read.OVERRAN: "it took too long to read; its rows are missing",
            Read.UNREADABLE: "it holds a value that cannot be written in UTF-8; its rows are missing",
        }[read.outcome]
        self._lost(read.number, f"{said} ({read.reason})" if read.reason else said)
        return []

    def _drop(self, state: _State, number: int) -> None:
        self._unstore(state, number)
        state.closed = True

    def _unstore(self, state: _State, number: int) -> None:
        self.chunks_unchanged -= state.reused
        state.forget_rows()
        self._booked.forget(number)

    def _lost(self, number: int, reason: str) -> None:
        name = "large objects" if number == BLOBS else f"table {self._tables[number].qname.sql}"
        self.findings.append(Finding(cls=FindingClass.LOST, object=name, reason=reason))


def _after(locked_at: float, released_at: float | None) -> bool:
    return released_at is not None and locked_at >= released_at


def first_requests(
    groups: Sequence[Sequence[Piece]], held: frozenset[int], blobs: Sequence[BlobRange]
) -> list[Request]:
    """The planner's groups as requests; a group is split where some of its tables are held and others are not."""
    requests: list[Request] = []
    for group in groups:
        if len(there := {p.number in held for p in group}) == 1:
            requests.append(Request(mode=Mode.HELD if there.pop() else Mode.LATE, pieces=group))
            continue
        for mode, wanted in ((Mode.HELD, True), (Mode.LATE, False)):
            pieces = tuple(p for p in group if (p.number in held) is wanted)
            if pieces:
                requests.append(Request(mode=mode, pieces=pieces))
    return requests + [Request(mode=Mode.HELD, blobs=b) for b in blobs]


def by_oid(tables: Sequence[TableFacts]) -> Mapping[int, int]:
    """Object id → number."""
    return {t.oid: i for i, t in enumerate(tables)}
