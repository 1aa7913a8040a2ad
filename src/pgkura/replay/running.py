"""The replay of one restore: after rows and keys, before triggers and foreign keys."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from pgkura.changes import pgoutput
from pgkura.changes.log import Log
from pgkura.changes.pgoutput import Parts, Row
from pgkura.core.errors import Tampered
from pgkura.core.facts import SequenceState, TableFacts
from pgkura.core.forms import Form
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.wal import lsn_text
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.replay.applying import Appends, Place, apply_appends, apply_fold, apply_one
from pgkura.replay.carrying import Carrying
from pgkura.replay.folding import Fold
from pgkura.replay.lanes import Lanes
from pgkura.replay.moments import time_text
from pgkura.replay.resolving import Base, Until
from pgkura.repository.manifest import Manifest
from pgkura.restore.parallel import Work
from pgkura.restore.run import Run

REFUSED = "as of the base: replaying would run other roles' code (--trust-code allows it)"
# How a table is logged whose updates and deletes are not.
INSERTS_ALONE = "inserts"
# Changes after which what is folded is applied, and the bytes of their messages.
_CHANGES, _BYTES = 50_000, 16 * 1024 * 1024
_LANES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """Definitions are those of a later snapshot."""

    definitions: Manifest
    carrying: Carrying


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """Exactly what will be applied: transactions of these segments that the base does not see, up to the moment.

    places   first and last segment
    tables   those that are in the log; left_out: those that are not, with the reason
    exact    from which position to which the base leads, the moment among them
    over     the rows of the base are carried over a change of definitions
    """

    log: Log
    base: Base
    until: Until
    first: int
    tables: Mapping[QualifiedName, str]
    findings: tuple[Finding, ...]
    sequences: Mapping[QualifiedName, int]
    segments: int
    bytes: int
    exact: tuple[int, int]
    over: Over | None = None

    @property
    def last(self) -> int:
        """Place of the last segment."""
        return self.until.place


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What was applied. `lsn`, `xid` and `time` are of the last commit."""

    transactions: int = 0
    changes: int = 0
    written: int = 0
    lsn: int = 0
    xid: int = 0
    time: int = 0
    tables: set[QualifiedName] = field(default_factory=set)
    refused: set[QualifiedName] = field(default_factory=set)
    milliseconds: int = 0

    def as_json(self) -> dict[str, Any]:
        """A part of `restore --json`."""
        return {
            "transactions": self.transactions,
            "changes": self.changes,
            "rows_written": self.written,
            "milliseconds": self.milliseconds,
            "tables": sorted(str(t) for t in self.tables),
            "every_change_met_its_row": not self.refused,
            "last_commit": {"lsn": lsn_text(self.lsn), "xid": self.xid, "time": time_text(self.time)}
            if self.transactions
            else None,
        }


@dataclass(slots=True)
class _Table:
    """`qname` in the target; form: how rows of before the table was altered become rows of it.

    refused  by the server: what comes is not looked at any more
    """

    relation: pgoutput.Relation
    qname: QualifiedName
    place: Place
    fold: Fold | None
    form: Form | None = None
    constants: Row = ()
    appends: Appends | None = None
    refused: bool = False

    def reformed(self, change: Parts) -> Parts:
        form = self.form
        if form is None:
            return change
        kind, oid, *rows, whole, size = change
        old, new = (row if row is None else form.take(row, self.constants) for row in rows)
        return kind, oid, old, new, whole, size


class Replay:
    """One run of a ReplayPlan."""

    def __init__(self, plan: ReplayPlan) -> None:
        self.plan = plan
        self.done = Replayed()
        self._relations: dict[int, pgoutput.Relation] = {}
        self._tables: dict[int, _Table | None] = {}
        self._pending = self._pending_bytes = 0
        self._exposed: frozenset[QualifiedName] | None = None
        self._behind = 0
        self._count = Lock()

    def __call__(self, run: Run, session: Session) -> None:
        """Apply everything. Raises Tampered, SqlError."""
        plan = self.plan
        self._run, self._session = run, session
        self._facts = {t.qname: t for t in run.plan.facts.tables}
        self._by_oid = {t.oid: t for t in run.plan.facts.tables}
        run.progress.stage("replaying changes", total=plan.segments, unit="segments")
        begun = time.monotonic()
        with Lanes(session, run.open, min(_LANES, run.plan.options.parallel)) as self._lanes:
            for place in range(plan.first, plan.last + 1):
                run.stop.check()
                if not self._segment(place):
                    break
                run.progress.advance(1)
            self._flush()
            self._lanes.commit()
        self.done.milliseconds = round((time.monotonic() - begun) * 1000)
        run.plan = replace(run.plan, sequences=tuple(map(self._value, run.plan.sequences)))

    def _segment(self, place: int) -> bool:
        """False when the moment is reached."""
        plan = self.plan
        wanted = False
        begun: pgoutput.Begin | None = None
        xid = 0
        for told in plan.log.changes(place):
            if isinstance(told, tuple):
                if wanted:
                    self._row(told)
                continue
            kind = told[0]
            if kind == pgoutput.BEGIN:
                begun = pgoutput.begin(told)
                if begun.lsn <= self._behind:
                    wanted = False
                    continue
                if begun.lsn > plan.until.last:
                    return False
                xid = plan.base.visible.widen(begun.xid)
                seen = plan.until.visible
                wanted = not plan.base.visible.sees(xid) and (seen is None or seen.sees(xid))
            elif kind == pgoutput.RELATION:
                self._introduce(pgoutput.relation(told))
            elif kind == pgoutput.COMMIT and begun is not None:
                self._behind = max(self._behind, begun.lsn)
                if wanted:
                    self._commit(begun, xid)
            elif kind == pgoutput.TRUNCATE and wanted:
                self._truncate(told)
        return True

    def _commit(self, begun: pgoutput.Begin, xid: int) -> None:
        done = self.done
        done.transactions += 1
        done.lsn, done.time, done.xid = begun.lsn, begun.time, xid
        if self._pending >= _CHANGES or self._pending_bytes >= _BYTES:
            self._flush(commit=True)

    def _row(self, change: Parts) -> None:
        oid = change[1]
        table = self._tables[oid] if oid in self._tables else self._table(oid)
        if table is None or table.refused:
            return
        if table.form is not None:
            change = table.reformed(change)
        if table.fold is not None:
            table.fold.take(change)
        elif table.appends is not None:
            table.appends.take(change, str(table.qname))
        else:
            place, name = table.place, str(table.qname)
            self._write(table, self._lanes.session(place.target), lambda s: apply_one(s, place, change, name))
        self._took(change[5])

    def _truncate(self, payload: bytes) -> None:
        for oid in pgoutput.truncate(payload).relations:
            table = self._table(oid)
            if table is None or table.refused:
                continue
            if table.appends is not None:
                table.appends.empty_table()
            elif table.fold is None:
                self._lanes.session(table.place.target).execute(f"TRUNCATE ONLY {table.place.target.sql}")
            else:
                table.fold.empty_table()
        self._took(len(payload))

    def _took(self, size: int) -> None:
        self._pending += 1
        self._pending_bytes += size
        if self._pending >= 2 * _CHANGES or self._pending_bytes >= 2 * _BYTES:
            self._flush()  # in the middle of a transaction, which goes on here too

    def _table(self, oid: int) -> _Table | None:
        if oid not in self._tables:
            if oid not in self._relations:
                raise Tampered("the change log names a table that it did not introduce")
            self._lanes.wait()  # what is asked for is asked by a connection that is also a lane
            made = self._tables[oid] = self._made(self._relations[oid])
            if made is not None:
                self.done.tables.add(made.qname)
        return self._tables[oid]

    def _introduce(self, relation: pgoutput.Relation) -> None:
        """Looked at when a change is to be applied: the last segment may go on behind the moment, in another shape."""
        if self._relations.get(relation.oid) == relation:
            return
        known = self._tables.get(relation.oid)
        if known is not None:
            self._lanes.give(self._works([known]), commit=False)
        self._tables.pop(relation.oid, None)
        self._relations[relation.oid] = relation

    def _made(self, relation: pgoutput.Relation) -> _Table | None:
        over = self.plan.over
        facts = self._facts.get(relation.qname) if over is None else self._by_oid.get(relation.oid)
        if facts is None or facts.qname not in self.plan.tables or facts.qname in self._refused():
            return None
        if facts.qname in self.done.refused:
            return None
        columns = [(c.name, c.key) for c in relation.columns]
        altered = over.carrying.altered.get(relation.oid) if over is not None else None
        form: Form | None = None
        if altered is not None:
            form = altered.form([name for name, _ in columns])
            keys = {form.new_name(place) for place, (_, key) in enumerate(columns) if key}
            columns = [(name, name in keys) for name in form.names]
        if {name for name, _ in columns} - {c.name for c in facts.data_columns}:
            raise Tampered(f"the change log of {facts.qname} has columns that its base does not have")
        root = facts.load_root.split("\0") if facts.load_root else None
        place = Place(
            target=QualifiedName(*root) if root else facts.qname,
            columns=tuple(name for name, _ in columns),
            root=root is not None,
        )
        appended = self.plan.tables[facts.qname] == INSERTS_ALONE
        keys_at = () if appended else self._keys(relation, columns, facts)
        fold = Fold(name=str(facts.qname), keys=keys_at) if keys_at else None
        constants = tuple(None if v is None else v.encode() for _, _, v in form.columns) if form is not None else ()
        return _Table(relation, facts.qname, place, fold, form, constants, Appends() if appended else None)

    def _refused(self) -> frozenset[QualifiedName]:
        """Tables whose rows would run other roles' code with our rights."""
        if self._run.plan.options.trust_code:
            return frozenset()
        if self._exposed is None:
            found = {QualifiedName(s, n) for s, n, *_ in self._session.rows(query("target", "exposed"))}
            for name in sorted(found & self.plan.tables.keys() - set(self._run.plan.watched)):
                self._run.tell(FindingClass.LOST, f"rows of {name}", REFUSED)
            self._exposed = frozenset(found | set(self._run.plan.watched))
        return self._exposed

    def _keys(
        self, relation: pgoutput.Relation, columns: Sequence[tuple[str, bool]], facts: TableFacts
    ) -> tuple[int, ...]:
        """Places of the key. Where the whole old row is told, the primary key, if there is one."""
        if relation.identity != "f":
            return tuple(n for n, (_, key) in enumerate(columns) if key)
        names = [
            str(name)
            for (name,) in self._session.rows(
                "SELECT a.attname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a "
                "ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) "
                "JOIN pg_catalog.pg_class c ON c.oid = i.indrelid "
                "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
                "WHERE i.indisprimary AND i.indimmediate AND n.nspname = %s AND c.relname = %s",
                (facts.schema, facts.name),
            )
        ]
        return tuple(n for n, (name, _) in enumerate(columns) if name in names)

    def _flush(self, *, commit: bool = False) -> None:
        self._lanes.give(self._works(list(self._tables.values())), commit=commit)
        self.done.changes += self._pending
        self._pending = self._pending_bytes = 0

    def _works(self, tables: Sequence[_Table | None]) -> list[tuple[QualifiedName, Work]]:
        """What is to be applied; from here on it belongs to whoever applies it."""
        found = ((table, self._taken(table)) for table in tables if table is not None)
        return [(table.place.target, self._applying(table, work)) for table, work in found if work is not None]

    def _taken(self, table: _Table) -> Callable[[Session], int] | None:
        place, fold, appends, name = table.place, table.fold, table.appends, str(table.qname)
        if appends is not None and not appends.empty:
            table.appends = Appends()
            return lambda session: apply_appends(session, place, appends, name)
        if fold is not None and not fold.empty:
            table.fold = Fold(name=fold.name, keys=fold.keys)
            return lambda session: apply_fold(session, place, fold)
        return None

    def _applying(self, table: _Table, work: Callable[[Session], int]) -> Work:
        return lambda session: self._write(table, session, work)

    def _write(self, table: _Table, session: Session, work: Callable[[Session], int]) -> None:
        """The server's refusal is one table's loss, and named."""
        if table.refused:
            return
        try:
            with session.savepoint():
                written = work(session)
        except SqlError as error:
            if session.broken:
                raise
            table.refused = True
            self.done.refused.add(table.qname)
            self._run.tell(
                FindingClass.LOST,
                f"rows of {table.qname}",
                f"as of the base or of a moment after it: the server refused what came then ({error.msg})",
            )
        else:
            with self._count:
                self.done.written += written

    def _value(self, state: SequenceState) -> SequenceState:
        value = self.plan.sequences.get(state.qname)
        return state if value is None else replace(state, last_value=value, is_called=True)


def left_out(name: str, reason: str) -> Finding:
    """Something that is as of the base, not as of the moment."""
    return Finding(cls=FindingClass.DENIED, object=name, reason=reason)
