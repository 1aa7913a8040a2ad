"""One attempt: locks, snapshot, facts and definitions. Repeated as a whole when it had to give way."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TypeVar

from pgkura.core.errors import PgkuraError
from pgkura.core.facts import SourceFacts
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.platform import Platform
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.postgres.facts import read_facts
from pgkura.postgres.patience import DEADLOCK, LOCK_NOT_AVAILABLE, patient
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.shape import read_clock, read_position, read_shape
from pgkura.repository.changes import LivingChain
from pgkura.snapshot.budget import Capacity, ConnectionPlan, Lockable, LockPlan, plan_locks
from pgkura.snapshot.changed import Comparison, compare_with_locks, moved
from pgkura.snapshot.conductor import TICK_SECONDS, Moment
from pgkura.snapshot.detector import Point
from pgkura.snapshot.holders import Holders
from pgkura.snapshot.live import read_live
from pgkura.snapshot.options import Options
from pgkura.snapshot.planner import TINY_PER_UNIT
from pgkura.snapshot.queries import query
from pgkura.snapshot.remembering import RowType, binary, keys_of
from pgkura.snapshot.standby import on_standby, unlogged, unlogged_findings
from pgkura.snapshot.state import TableKey
from pgkura.snapshot.watcher import Watcher
from pgkura.snapshot.yielding import Part

T = TypeVar("T")
# What a reader of catalogs meets when an object vanishes between two of its statements.
VANISHED = frozenset({"42P01", "3F000", "XX000", "42704"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one attempt has read at its snapshot. `absent`: numbers of the tables whose rows are not on this server."""

    moment: Moment
    facts: SourceFacts
    denied: tuple[Finding, ...]
    comparison: Comparison
    labels: dict[int, tuple[str, str, str]]
    divisible: frozenset[int]
    point: Point | None
    keys: Mapping[int, TableKey]
    binary: frozenset[int]
    public: tuple[str | None, ...]
    absent: frozenset[int] = frozenset()
    log: Mapping[str, str] | None = None


class GaveWay(Exception):
    """The reader or pg_dump was ended because somebody waited, or met an object that vanished: try again."""

    def __init__(self, reason: str, instead: PgkuraError | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead  # what to say when it happens every time, if that is not that the source is busy


@contextmanager
def giving_way(desk: "Desk") -> Iterator[None]:
    """What a reader of catalogs meets may be gone at another snapshot: then it raises GaveWay."""
    try:
        yield
    except SqlError as error:
        if desk.watcher.take_ended():
            raise GaveWay("gave way to the application") from error
        if error.sqlstate in (LOCK_NOT_AVAILABLE, DEADLOCK):
            raise GaveWay("the application keeps a table locked") from error
        if error.sqlstate in VANISHED:
            raise GaveWay(f"something vanished while the catalogs were read ({error.msg})") from error
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every step of a run needs."""

    open: Callable[[Part], Session]
    options: Options
    progress: Progress
    stop: Stop
    watcher: Watcher
    scratch: Callable[[], IO[bytes]]
    chain: LivingChain | None = None


def awaited(desk: Desk, future: "Future[T]") -> T:
    """What it gives, or raises, unless the run is stopped before."""
    while not future.done():
        desk.stop.check()
        wait([future], TICK_SECONDS)
    return future.result()


def enumerate_tables(session: Session) -> list[Lockable]:
    """What there is to lock, before any lock."""
    return [
        Lockable(oid=oid, qname=QualifiedName(schema, name), kind=kind, bytes=size)
        for oid, schema, name, kind, size in session.rows(query("lockable"))
    ]


def lock_before(
    desk: Desk, exporter: Session, holders: Holders, capacity: Capacity, connections: ConnectionPlan, views: int
) -> LockPlan:
    """Decide, say, then lock. Raises SourceBusy before the first lock when locks cannot suffice."""
    tables = enumerate_tables(exporter)
    plan = plan_locks(
        tables,
        capacity,
        share=desk.options.lock_share,
        connections=connections,
        views=views,
        tables_per_unit=TINY_PER_UNIT,
    )
    if plan.late:
        desk.progress.note(
            f"{len(plan.late):,} of {len(tables):,} tables are locked late: {plan.budget:,} locks may be taken"
        )
    desk.progress.stage("locking tables", total=len(tables), unit="tables")
    missed = holders.lock(plan.holders, desk.stop)
    desk.progress.advance(len(tables) - len(plan.late) - len(missed))
    wait_for_tables(desk, holders, missed)
    return plan


def wait_for_tables(desk: Desk, holders: Holders, missed: Sequence[Lockable]) -> None:
    """pg_dump must lock every table: what the application has locked now is waited for before the snapshot."""
    if missed:
        names = ", ".join(t.qname.sql for t in missed[:3]) + (" …" if len(missed) > 3 else "")
        desk.progress.note(f"the application has {names} locked; waiting up to {desk.options.late_lock_seconds:.0f} s")
        holders.lock_patiently(missed, desk.options.late_lock_seconds, desk.stop)


def export_snapshot(desk: Desk, exporter: Session) -> Moment:
    """The instant. Every lock that shall protect it must stand before this."""
    desk.progress.stage("taking the snapshot")
    exporter.begin(isolation="repeatable read", read_only=True)
    snapshot, visible, lsn = exporter.one(query("moment"))
    moment = Moment(id=snapshot, visible=visible, lsn=lsn, since=time.monotonic())
    desk.watcher.watch_age(exporter.pid, moment.since)
    return moment


def look(desk: Desk, reader: Session, moment: Moment, locked: frozenset[int], platform: Platform) -> Seen:
    """Read what of the catalogs must be known before rows are read, in the snapshot. Raises GaveWay."""
    with giving_way(desk):
        # Sizes of a relation, values of a sequence and texts of a view wait for locks.
        reader.execute(f"SET lock_timeout = '{desk.options.queue_wait_ms}ms'")
        reader.adopt(moment.id)
        with patient(reader, desk.options.queue_wait_ms / 1000):
            read = read_facts(reader, platform)
            labels = read_labels(reader)
            divisible = frozenset(oid for (oid,) in reader.rows(query("divisible"), (sorted(platform.owners),)))
            row_types = {oid: RowType(*rest) for oid, *rest in reader.rows(query("row_types"))}
            stands = reader.rows(query("point"))
            public = tuple(privilege for (privilege,) in reader.rows(query("public_privileges")))
            absent = unlogged(read.facts.tables) if on_standby(reader) else frozenset[int]()
            log = _log(reader, desk.chain, stands)
        reader.commit()
        now = read_live(reader, [t.oid for t in read.facts.tables])
    comparison = compare_with_locks(read.facts.tables, locked)
    lost = moved(read.facts.tables, now, comparison.held)
    small = desk.options.small_bytes
    return Seen(
        moment=moment,
        facts=read.facts,
        denied=(*read.denied, *unlogged_findings(read.facts.tables, absent)),
        absent=absent,
        comparison=Comparison(held=comparison.held - lost, late=comparison.late | lost),
        labels=labels,
        divisible=divisible,
        point=_point(read.facts.system_identifier, moment, stands),
        keys=keys_of(read.facts, divisible, row_types, small),
        public=public,
        log=log,
        binary=frozenset(t.oid for t in read.facts.tables if t.oid in row_types and binary(t, row_types[t.oid], small)),
    )


def _log(reader: Session, chain: LivingChain | None, stands: Sequence[tuple[str, int, str]]) -> dict[str, str] | None:
    """What makes this a base of the change log: its shape in the snapshot, and a position that lies after it."""
    if chain is None or on_standby(reader):
        return None
    shape = read_shape(reader, chain.slot)
    return {
        "chain": chain.id,
        "rows": shape.rows,
        "definitions": shape.definitions,
        "after": read_position(reader),
        "time": str(read_clock(reader)),
        # After a promotion a base may have seen what the new history does not have.
        "timeline": str(int(stands[0][0], 16)) if stands else "",
    }


def _point(system: str, moment: Moment, stands: Sequence[tuple[str, int, str]]) -> Point | None:
    """None where nothing can be followed: a standby, or a server that does not say who it is."""
    if not system or not stands:
        return None
    timeline, database, started = stands[0]
    return Point(
        system=system,
        timeline=timeline,
        database=database,
        visible=moment.visible,
        lsn=moment.lsn,
        started=started,
    )


def read_labels(session: Session) -> dict[int, tuple[str, str, str]]:
    """Enum labels by object id: schema, type, label."""
    return {oid: (schema, name, label) for oid, schema, name, label in session.rows(query("enum_labels"))}


def relabelled(before: dict[int, tuple[str, str, str]], after: dict[int, tuple[str, str, str]]) -> list[Finding]:
    """COPY writes the labels of now: a renamed one stands under either name in what was read."""
    types = {before[oid][:2] for oid in before if oid in after and before[oid][2] != after[oid][2]}
    return [
        Finding(
            cls=FindingClass.LOST,
            object=f"type {QualifiedName(*name).sql}",
            reason="a label was renamed while the backup ran; rows may hold the old or the new one",
        )
        for name in sorted(types)
    ]
