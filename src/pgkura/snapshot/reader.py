"""A worker's unit: lock, make sure that it is the table the snapshot knew, COPY, store. Runs in any process."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pgkura.core.errors import DatabaseError
from pgkura.core.facts import TableFacts
from pgkura.core.names import QualifiedName
from pgkura.postgres.patience import BLINK_MS
from pgkura.postgres.session import UNTRANSLATABLE, Session, SqlError
from pgkura.snapshot.changed import LiveTable, difference, plan_reread
from pgkura.snapshot.copying import Copier
from pgkura.snapshot.following import Follower
from pgkura.snapshot.live import read_live
from pgkura.snapshot.manners import spoken
from pgkura.snapshot.pacing import Pacer
from pgkura.snapshot.queries import query
from pgkura.snapshot.statements import blob_statement, copy_statement
from pgkura.snapshot.units import BLOBS, Mode, Piece, Read, TableRead, UnitResult, WorkUnit
from pgkura.snapshot.yielding import Part, application_name
from pgkura.work.station import Station, leaving, station_for

_HOW_TO_FIND = 'docs/known-faults.md, "Encodings", says how to find and mend it'
LARGE_ROW = 8 * 1024 * 1024
# Cancelled by the watcher; its connection ended by the watcher, or cut; lock not granted in time; deadlock.
_INTERRUPTED = frozenset({"57014", "57P01", "", "55P03", "40P01"})
# The name or a column is gone: renamed or dropped since the snapshot; the late way finds out what it is now.
_MISSING = frozenset({"42P01", "3F000", "42703"})
# What is told of one table, and not known of which while several are read.
_OF_ONE = frozenset({Read.OVERRAN, Read.UNREADABLE})
# Rows must come in physical order, from one scan: a chunk's bytes then repeat while its pages do not change, and their
# places can be asked for by another query.
_PHYSICAL = (
    "SET max_parallel_workers_per_gather = 0",
    "SET enable_seqscan = on",
    "SET enable_tidscan = on",
    "SET enable_indexscan = off",
    "SET enable_indexonlyscan = off",
    "SET enable_bitmapscan = off",
)


def read_unit(unit: WorkUnit) -> UnitResult:
    """Read and store one unit. Raises only what ends the whole run."""
    station = station_for(unit.access)
    reader = _Reader(unit, station)
    if unit.mode is Mode.HELD:
        result = reader.held()
    else:
        reads = reader.late() if unit.mode is Mode.LATE and len(unit.numbers) > 1 else {}
        result = UnitResult(unit=unit, tables=tuple(reads.get(n) or reader.alone(n) for n in unit.numbers))
    reader.rest()
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What stands under the name we locked. `reason` is '' when it is the snapshot's table."""

    outcome: Read
    reason: str = ""


class _Reader:
    def __init__(self, unit: WorkUnit, station: Station) -> None:
        self._unit = unit
        self._station = station
        self._pacer = Pacer(
            bytes_per_second=unit.bytes_per_second,
            share=unit.cpu_share,
            stopped=lambda: leaving(unit.access) or station.shared().stop.requested,
        )

    def rest(self) -> None:
        """What the unit's rates still demand, after its locks are gone."""
        self._pacer.rest()

    # -- held: all tables of the unit in one transaction -------------------------------------------------------

    def held(self) -> UnitResult:
        """Lock, verify and copy everything in one transaction of the snapshot."""
        unit = self._unit
        copier = Copier(self._station.repository(), unit, self._pacer)
        locked_at = 0.0
        try:
            session = self._worker()
            session.adopt(unit.snapshot)
            changed: dict[int, _Verdict] = {}
            if unit.pieces:
                self._lock(session, [p.table.qname for p in unit.pieces])
                changed, locked_at = self._verify(session)
            self._limit(session)
            self._follow(session, copier, [p for p in unit.pieces if p.number not in changed])
            if unit.blobs is not None:
                copier.copy_rows(session, BLOBS, unit.blobs.first, blob_statement(unit.blobs))
            session.commit()
        except SqlError as error:
            verdict = self._after(error)
            if verdict.outcome in _OF_ONE and len(unit.numbers) > 1:
                verdict = _Verdict(outcome=Read.INTERRUPTED)  # each alone: then it is known which one
            return UnitResult(
                unit=unit,
                tables=tuple(TableRead(number=n, outcome=verdict.outcome, reason=verdict.reason) for n in unit.numbers),
            )
        except BaseException:
            self._station.discard(self._name(Part.WORKER))
            raise
        self._forget_buffer(copier)
        reads = copier.finish()
        return UnitResult(
            unit=unit,
            locked_at=locked_at,
            tables=tuple(
                TableRead(number=n, outcome=changed[n].outcome, reason=changed[n].reason) if n in changed else reads[n]
                for n in unit.numbers
            ),
        )

    def _verify(self, session: Session) -> tuple[dict[int, _Verdict], float]:
        """Compare name and file of every table, as they are now, with the snapshot's facts."""
        tables = {p.number: p.table for p in self._unit.pieces}
        names = [_plain_quoted(t.qname) for t in tables.values()]
        rows = session.rows(query("under_lock"), (names, [t.oid for t in tables.values()]))
        wrong: dict[int, _Verdict] = {}
        for (number, table), (_, oid, filenode, _at) in zip(tables.items(), rows, strict=True):
            if filenode is None:
                wrong[number] = _Verdict(outcome=Read.GONE)
            elif filenode != table.filenode:
                wrong[number] = _Verdict(outcome=Read.CHANGED, reason="truncated or rewritten")
            elif oid != table.oid:
                # Another schema took the name: our lock is on the wrong table. Ask again by object id.
                wrong[number] = _Verdict(outcome=Read.INTERRUPTED)
        return wrong, max((float(r[3]) for r in rows), default=0.0)

    # -- late: the same, where nobody locked them before -------------------------------------------------------

    def late(self) -> dict[int, TableRead]:
        """Those of several tables that could be locked at once, and are who they were. The others are left to
        `alone`: all of them, where one lock was not granted."""
        unit = self._unit
        known = {p.number: p.table for p in unit.pieces}
        oids = [t.oid for t in known.values()]
        clerk = self._session(Part.CLERK)
        copier = Copier(self._station.repository(), unit, self._pacer)
        try:
            session = self._worker()
            session.adopt(unit.snapshot)
            self._lock(session, [t.qname for t in known.values()])
            now = read_live(clerk, oids)
            same = {n for n, t in known.items() if _is_same(t, now.get(t.oid))}
            self._limit(session)
            self._follow(session, copier, [p for p in unit.pieces if p.number in same])
            session.commit()
        except SqlError as error:
            self._after(error)
            return {}
        except BaseException:
            self._station.discard(self._name(Part.WORKER))
            raise
        self._forget_buffer(copier)
        return {n: read for n, read in copier.finish().items() if n in same}

    # -- late and reread: one table, one transaction -----------------------------------------------------------

    def alone(self, number: int) -> TableRead:
        """One table that nobody locked for us: short waits until `late_lock_seconds` have passed."""
        deadline = time.monotonic() + self._unit.late_lock_seconds
        while True:
            read = self._attempt(number)
            if read.outcome is not Read.REFUSED or time.monotonic() > deadline or leaving(self._unit.access):
                return read
            time.sleep(0.25)

    def _attempt(self, number: int) -> TableRead:
        unit = self._unit
        pieces = [p for p in unit.pieces if p.number == number]
        known = pieces[0].table
        clerk = self._session(Part.CLERK)
        live = read_live(clerk, [known.oid]).get(known.oid)
        if live is None:
            return TableRead(number=number, outcome=Read.GONE)
        copier = Copier(self._station.repository(), unit, self._pacer)
        try:
            session = self._worker()
            if unit.mode is Mode.REREAD:
                session.begin(isolation="repeatable read", read_only=True)
            else:
                session.adopt(unit.snapshot)
            self._lock(session, [QualifiedName(live.schema, live.name)])
            under_lock = read_live(clerk, [known.oid]).get(known.oid)
            self._limit(session)
            read = self._copy_verified(session, copier, pieces, live, under_lock)
            session.commit()
            self._forget_buffer(copier)
        except SqlError as error:
            locking = error.sqlstate in _MISSING or error.sqlstate == "55P03"
            verdict = self._after(error)
            outcome = Read.REFUSED if locking else verdict.outcome
            return TableRead(number=number, outcome=outcome, reason=verdict.reason)
        except BaseException:
            self._station.discard(self._name(Part.WORKER))
            raise
        return read

    def _copy_verified(
        self, session: Session, copier: Copier, pieces: Sequence[Piece], live: LiveTable, now: LiveTable | None
    ) -> TableRead:
        number, known = pieces[0].number, pieces[0].table
        if now is None:
            return TableRead(number=number, outcome=Read.GONE)
        if (now.schema, now.name) != (live.schema, live.name):
            return TableRead(number=number, outcome=Read.REFUSED)  # renamed just now: the lock is on another table
        name = QualifiedName(now.schema, now.name)
        if self._unit.mode is Mode.LATE:
            reason = difference(known, now)
            if reason:
                return TableRead(number=number, outcome=Read.CHANGED, reason=reason)
            self._follow(session, copier, pieces, name)
            return copier.finish()[number]
        plan = plan_reread(known, now)
        if plan.columns is None:
            return TableRead(number=number, outcome=Read.CHANGED, reason=plan.reason)
        names = tuple(c.name for c in plan.columns)
        copier.copy_rows(session, number, 0, copy_statement(pieces[0], name=name, columns=names))
        read = copier.finish()[number]
        return replace(read, reason=plan.reason, columns=names)

    def _follow(
        self, session: Session, copier: Copier, pieces: Sequence[Piece], name: QualifiedName | None = None
    ) -> None:
        Follower(session, copier, self._station.repository(), self._unit).read(pieces, name)

    # -- shared ------------------------------------------------------------------------------------------------

    def _worker(self) -> Session:
        return self._session(Part.WORKER)

    def _session(self, part: Part) -> Session:
        # The clerk reads catalogs alone, and needs their indexes.
        return self._station.session(self._name(part), _PHYSICAL if part is Part.WORKER else ())

    def _name(self, part: Part) -> str:
        return application_name(self._unit.run, part)

    def _lock(self, session: Session, names: Sequence[QualifiedName]) -> None:
        # Granted at once while a holder has it; otherwise a short wait, never long in a queue before others. Several
        # are asked for without any wait, and indexes with hardly one: who holds locks must not wait for others.
        listed = list(dict.fromkeys(f"ONLY {name.sql}" for name in names))
        nowait = " NOWAIT" if len(listed) > 1 else ""
        session.script(
            f"SET LOCAL lock_timeout = '{self._unit.lock_wait_ms}ms'; "
            f"LOCK TABLE {', '.join(listed)} IN ACCESS SHARE MODE{nowait}; "
            f"SET LOCAL lock_timeout = '{BLINK_MS}ms'"
        )

    def _limit(self, session: Session) -> None:
        """From here on rows are read."""
        if self._unit.statement_timeout_ms:
            session.execute(f"SET LOCAL statement_timeout = {self._unit.statement_timeout_ms}")

    def _forget_buffer(self, copier: Copier) -> None:
        # The driver's receive buffer grows with the largest row and is kept until the connection ends.
        if copier.largest > LARGE_ROW:
            self._station.discard(self._name(Part.WORKER))

    def _after(self, error: SqlError) -> _Verdict:
        """Leave the transaction; tell an interruption from an error that ends the run."""
        self._leave()
        # Only in words of its own language does the server tell a statement that ran too long from a cancelled one.
        limit = self._unit.statement_timeout_ms / 1000
        if error.sqlstate == "57014" and limit and self._pacer.last_statement >= limit:
            allowed = spoken(limit)
            return _Verdict(outcome=Read.OVERRAN, reason=f"a statement ran longer than the {allowed} allowed")
        if error.sqlstate in UNTRANSLATABLE:
            # In which row, the server does not say; its message has bytes of the value, which belong in no manifest.
            return _Verdict(outcome=Read.UNREADABLE, reason=_HOW_TO_FIND)
        if error.sqlstate in _INTERRUPTED or error.sqlstate in _MISSING:
            return _Verdict(outcome=Read.INTERRUPTED)
        raise error

    def _leave(self) -> None:
        session = self._worker()
        try:
            session.rollback()
        except DatabaseError:
            self._station.discard(self._name(Part.WORKER))


def _is_same(known: TableFacts, live: LiveTable | None) -> bool:
    """Whether a name that we locked stands for the snapshot's table, unchanged."""
    return live is not None and QualifiedName(live.schema, live.name) == known.qname and not difference(known, live)


def _plain_quoted(name: QualifiedName) -> str:
    # to_regclass knows no U&"..." form; as a parameter, any character may stand as it is.
    return ".".join('"' + part.replace('"', '""') + '"' for part in (name.schema, name.name))
