"""What is known of the last run, attached to the pieces of this one, where it can be believed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from pgkura.core.errors import FormatTooNew, Tampered, WrongKey
from pgkura.core.facts import SourceFacts, TableFacts
from pgkura.repository.repository import Repository
from pgkura.snapshot.components import LOOK_BACK
from pgkura.snapshot.detector import Before, Point, due, nothing_since, why_not
from pgkura.snapshot.options import Options
from pgkura.snapshot.state import PreviousState, TableKey
from pgkura.snapshot.units import Piece

# A piece that is not cut into ranges is followed up to this size: the places of its rows lie in memory.
MAX_PAGES = 32 * 1024
# Well below the grace time of a prune.
PARTIAL_SECONDS = 12 * 3600.0


@dataclass(frozen=True, slots=True)
class RowType:
    """A table's columns and their types, as queries/row_types.sql sees them.

    unsteady     a value may print differently while its tuple stays the same
    binary_safe  binary COPY of it means the same on every server
    """

    fingerprint: str
    unsteady: bool
    binary_safe: bool


def binary(table: TableFacts, row_type: RowType, small_bytes: int) -> bool:
    """Whether its rows travel in binary form: a fifth less work for the server, each way. Pure.

    A small table is not worth the second chunk, with the sizes of its rows.

    Text where somebody may want to look into rows: columns that a target lacks (managed tables), rows that move to
    other leaves (load_root), rows chosen by an extension's condition.
    """
    own = not table.managed and not table.config_of and not table.load_root
    return own and row_type.binary_safe and bool(table.data_columns) and table.bytes > small_bytes


def keys_of(
    facts: SourceFacts, divisible: frozenset[int], row_types: Mapping[int, RowType], small_bytes: int
) -> dict[int, TableKey]:
    """The tables whose tuples can be followed, by object id: plain heaps whose values print the same for ever. Pure."""
    keys = {}
    for table in facts.tables:
        row_type = row_types.get(table.oid)
        if row_type is None or row_type.unsteady or table.oid not in divisible or not _plain_heap(table):
            continue
        form = "binary" if binary(table, row_type, small_bytes) else "text"
        keys[table.oid] = TableKey(filenode=table.filenode, row_type=row_type.fingerprint, form=form)
    return keys


def _plain_heap(table: TableFacts) -> bool:
    return table.kind == "r" and table.access_method == "heap" and not table.config_where and table.readable


class Remembered:
    """Asked for every piece before it is sent out. Close it after use."""

    def __init__(self, keys: Mapping[int, TableKey], binary: frozenset[int], options: Options, today: date) -> None:
        self.keys = keys
        self._binary = binary
        self.today = today
        self._options = options
        self._previous: PreviousState | None = None
        self._stored: Repository | None = None
        self._partial: PreviousState | None = None
        self._now: Point | None = None

    def recall_partial(self, repo: Repository, name: str, now: Point) -> bool:
        """Find what a later run, that was cut short, had read; whether there is something.

        What is old may have been pruned meanwhile: no snapshot needs it.
        """
        if time.time() - repo.state_written(name) > PARTIAL_SECONDS:
            return False
        found = PreviousState()
        try:
            pieces = repo.state(name)
            if pieces is not None:
                found.load(pieces)
        except (Tampered, FormatTooNew, WrongKey):
            pieces = None
        later = pieces is not None and found.point is not None and found.point.horizon > self._horizon
        if not later or found.point is None or why_not(found.point, now):
            found.close()
            return False
        self._partial = found
        return True

    def recall(self, repo: Repository, database: str, now: Point) -> str:
        """Find the newest state of this database that can be believed; says why there is none, '' if there is one."""
        self._stored = repo if self._options.doubt_stored else None
        self._now = now
        reason = "there is no earlier backup of it"
        for snapshot_id in reversed(repo.manifest_ids()[-LOOK_BACK:]):
            try:
                manifest = repo.manifest(snapshot_id)
                if (manifest.database, manifest.system_identifier) != (database, now.system):
                    continue
                if manifest.epoch != repo.epoch:
                    return "a new epoch has begun: everything is read and stored once"
                pieces = repo.state(snapshot_id)
                if pieces is None:
                    reason = "the last backup left no state"
                    continue
                found = PreviousState()
                found.load(pieces)
            except (Tampered, FormatTooNew, WrongKey) as error:
                reason = f"the state of {snapshot_id} cannot be read ({error.msg})"
                continue
            if found.point is None:
                reason = f"the state of {snapshot_id} is empty"
            elif not (reason := why_not(found.point, now)):
                self._previous = found
                return ""
            found.close()
            # An older one would be believed even less.
            return reason
        return reason

    @property
    def since(self) -> int:
        """The xmin of the snapshot that is remembered; 0 = none."""
        return self._horizon[0]

    @property
    def _horizon(self) -> tuple[int, int]:
        point = self._previous.point if self._previous is not None else None
        return (0, 0) if point is None else point.horizon

    def piece(self, piece: Piece) -> Piece:
        """The piece with what is known of it."""
        table = piece.table
        piece = replace(piece, binary=table.oid in self._binary)
        key = self.keys.get(table.oid)
        if key is None or (piece.whole and table.pages > MAX_PAGES):
            return piece
        for state in (self._partial, self._previous):
            if state is None or state.point is None or state.key(table.oid) != key:
                continue
            before = state.of(table.oid, piece.start)
            if before is not None and before.covers(piece.end, table.pages) and self._lies_there(before):
                overdue = due(before, self.today, piece.start, self._options.follow)
                # A crash empties unlogged tables, and is no transaction.
                still = table.persistence == "p" and self._now is not None and nothing_since(state.point, self._now)
                since = state.point.xmin
                return replace(piece, follow=True, before=before, since=since, due=overdue, still=still)
        return replace(piece, follow=True)

    def _lies_there(self, before: Before) -> bool:
        if self._stored is None:
            return True
        refs = [r for x in before.layers for r in (x.chunk, x.drops, x.sizes, x.places) if r is not None]
        known = [self._stored.known(ref.mac) for ref in refs]
        return all(found is not None and found.object == ref.object for found, ref in zip(known, refs, strict=True))

    def close(self) -> None:
        """Let go of the state."""
        for state in (self._partial, self._previous):
            if state is not None:
                state.close()
