"""Work units: what one worker reads in one transaction, and what it reports. Plain data that pickles.

A unit carries references and facts, never a credential; any `concurrent.futures.Executor` may run it.
"""

from dataclasses import dataclass
from enum import StrEnum

from pgkura.core.access import Access
from pgkura.core.facts import LargeObjectFacts, TableFacts
from pgkura.core.refs import ChunkRef, Layer
from pgkura.snapshot.detector import DEFAULT_POLICY, Before, Policy

# The pseudo table of large objects, as in the chunk list of docs/formats/repository.md.
BLOBS = -1


class Mode(StrEnum):
    """How a unit's tables are protected.

    held    a holder locked them before the snapshot; the worker's own lock is granted at once
    late    nobody locked them before: lock now, compare with the snapshot's facts, then read at the snapshot
    reread  they changed after the snapshot: lock, new snapshot, read what there is now
    """

    HELD = "held"
    LATE = "late"
    REREAD = "reread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A table or a page range of it. `first` is its place among the table's pieces.

    start, end  heap pages, `end` exclusive; (0, None) is the whole table
    follow      whether what is read shall be remembered for the next run: its key is known
    before      what an earlier run remembers of it, if that can be believed
    since       xmin of that run's snapshot
    due         time to read it whole
    still       no transaction has ended since that snapshot: nothing to count
    binary      rows travel in binary form
    """

    number: int
    table: TableFacts
    first: int = 0
    start: int = 0
    end: int | None = None
    follow: bool = False
    before: Before | None = None
    since: int = 0
    due: bool = False
    still: bool = False
    binary: bool = False

    @property
    def whole(self) -> bool:
        """Whether this is all of the table."""
        return self.start == 0 and self.end is None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRange:
    """Large objects read by one unit, in ascending order."""

    first: int
    objects: tuple[LargeObjectFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """One transaction's worth of reading. `bytes` is the planner's estimate, for order and progress.

    small_bytes  tables up to this size are read whole when they changed
    statement_timeout_ms  of the statements that read rows, 0 = none
    """

    id: int
    mode: Mode
    access: Access
    snapshot: str
    run: str
    pieces: tuple[Piece, ...] = ()
    blobs: BlobRange | None = None
    bytes: int = 0
    chunk_bytes: int
    lock_wait_ms: int
    late_lock_seconds: float
    bytes_per_second: int
    storage_class: str
    cpu_share: float = 1.0
    statement_timeout_ms: int = 0
    small_bytes: int = 0
    policy: Policy = DEFAULT_POLICY

    @property
    def title(self) -> str:
        """What it reads, for people."""
        if self.blobs:
            return f"{len(self.blobs.objects)} large objects"
        names = list(dict.fromkeys(p.table.qname.sql for p in self.pieces))
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more tables" if len(names) > 3 else "")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The tables it touches."""
        return (BLOBS,) if self.blobs else tuple(dict.fromkeys(p.number for p in self.pieces))


class Read(StrEnum):
    """What became of one table of a unit.

    done         its rows are in the repository
    interrupted  the watcher cancelled us, or the lock was not granted in time
    changed      it is not the table that the snapshot knew (see `reason`)
    gone         it does not exist any more
    refused      the lock was not granted within late_lock_seconds
    overran      a statement took longer than statement_timeout_ms
    unreadable   it holds a value that cannot be written in UTF-8
    """

    DONE = "done"
    INTERRUPTED = "interrupted"
    CHANGED = "changed"
    GONE = "gone"
    REFUSED = "refused"
    OVERRAN = "overran"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """A chunk and its place in its table: piece, then position in the piece. `fresh`: what this run stored for it."""

    piece: int
    position: int
    layer: Layer
    fresh: tuple[ChunkRef, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether its rows were stored by this run."""
        return self.layer.chunk in self.fresh


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRead:
    """A piece that can be followed: its pages, the rows that count, the day it was last read whole (None: now)."""

    piece: int
    start: int
    end: int | None
    rows: int
    since: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRead:
    """What a unit did with one table. `columns` differs from the snapshot's only after a reread.

    rows    of the snapshot; bytes: received from the server
    """

    number: int
    outcome: Read
    reason: str = ""
    rows: int = 0
    bytes: int = 0
    chunks: tuple[StoredChunk, ...] = ()
    ranges: tuple[RangeRead, ...] = ()
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """A unit's report. `locked_at` is the server's clock, in seconds, after its locks were granted."""

    unit: WorkUnit
    tables: tuple[TableRead, ...]
    locked_at: float = 0.0
