"""Take a snapshot: everything at one instant, or a result that names what is not."""

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pgkura.catalog.platform import detect
from pgkura.core.access import Access, own_access
from pgkura.core.errors import DatabaseError, RightsError
from pgkura.core.memory import MemoryMeter
from pgkura.core.names import QualifiedName
from pgkura.core.platform import Platform
from pgkura.core.progress import Progress, Silent
from pgkura.core.scratch import new_scratch
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.facts import read_platform_names, read_system_identifier
from pgkura.postgres.pinning import connect, rename
from pgkura.postgres.queries import query as server_query
from pgkura.postgres.session import Session
from pgkura.repository.repository import Repository
from pgkura.snapshot.attempt import (
    Desk,
    GaveWay,
    Seen,
    enumerate_tables,
    export_snapshot,
    lock_before,
    look,
    wait_for_tables,
)
from pgkura.snapshot.booked import Booked
from pgkura.snapshot.budget import Capacity, ConnectionPlan, LockPlan, plan_connections
from pgkura.snapshot.conductor import Conductor
from pgkura.snapshot.definitions import Dumping
from pgkura.snapshot.finishing import Finished, Reading, finish
from pgkura.snapshot.holders import Holders
from pgkura.snapshot.inventory import Listing
from pgkura.snapshot.ledger import Ledger, by_oid, first_requests
from pgkura.snapshot.opening import Opening
from pgkura.snapshot.options import Options
from pgkura.snapshot.planner import group_blobs, group_pieces, has_rows, size_of
from pgkura.snapshot.queries import query
from pgkura.snapshot.remembering import Remembered
from pgkura.snapshot.resuming import Checkpoint, partial_name
from pgkura.snapshot.standby import on_standby, replay_explained, standby_note
from pgkura.snapshot.taken import Taken
from pgkura.snapshot.watcher import Watcher, busy_again
from pgkura.snapshot.yielding import Part, application_name
from pgkura.work.pools import Crew, workers
from pgkura.work.station import seed


def take(
    source: Endpoint,
    repo: Repository,
    options: Options | None = None,
    progress: Progress | None = None,
    *,
    access: Access | None = None,
    stop: Stop | None = None,
    executor: Executor | None = None,
) -> Taken:
    """Back `source` up into `repo`. Needs the host key.

    `access` lets worker processes open the same things by reference; without it the work stays in threads.
    `executor`, if given, runs the units wherever it likes (the references must mean the same there).
    Raises SourceBusy, RightsError, DatabaseError, ToolError, StoreError, Interrupted …; then nothing is a snapshot.
    """
    repo.need_host()
    meter = MemoryMeter()
    try:
        with ExitStack() as stack:
            run = _Run(source, repo, options or Options(), progress or Silent(), access, stop or Stop(), stack)
            return run.take(meter, executor)
    finally:
        meter.close()


class _Run:
    def __init__(
        self,
        source: Endpoint,
        repo: Repository,
        options: Options,
        progress: Progress,
        access: Access | None,
        stop: Stop,
        stack: ExitStack,
    ) -> None:
        self._source = source
        self._repo = repo
        self._options = options if access else replace(options, executor="threads")
        self._progress = progress
        self._stop = stop
        self._stack = stack
        self._started = time.monotonic()
        self._name = secrets.token_hex(6)
        access = access or own_access(f"run-{self._name}", source.url(), repo.url)
        # Whoever only reads the source has no use for the identity, wherever it runs.
        self._access = replace(access, identity="")

    def take(self, meter: MemoryMeter, executor: Executor | None) -> Taken:
        """All steps, in their order."""
        progress = self._progress
        progress.stage("looking at the database")
        exporter = self._open_until_end(Part.EXPORTER)
        refuse_filtered(exporter)
        free, slots, views = exporter.one(server_query("capacity", "capacity"))
        capacity = Capacity(free_connections=free + 1, lock_slots=slots)  # one of them is ours already
        connections = plan_connections(capacity, share=self._options.connection_share, workers=self._options.workers)
        if connections.workers < self._options.workers:
            progress.note(f"{connections.workers} of {self._options.workers} workers: few connections are free")
        opening = Opening(self._open, (Part.WATCHER, Part.HOLDER, Part.READER))
        self._stack.callback(opening.close)
        platform = detect(*read_platform_names(exporter))
        holders = Holders(lambda: opening(Part.HOLDER))
        self._stack.callback(holders.close)
        watcher = Watcher(opening(Part.WATCHER), self._options, self._name, holders.release_by_pid, self._stop)
        self._stack.callback(watcher.close)
        watcher.start()
        desk = Desk(
            open=opening,
            options=self._options,
            progress=progress,
            stop=self._stop,
            watcher=watcher,
            scratch=lambda: self._stack.enter_context(new_scratch()),
            # Looked for before the snapshot: then its slot saw everything that the snapshot does not.
            chain=self._repo.living_chain(
                read_system_identifier(exporter), str(exporter.one("SELECT pg_catalog.current_database()::text")[0])
            ),
        )
        standby = on_standby(exporter)
        if standby and (warning := standby_note(exporter)):
            progress.note(warning)
        with replay_explained(exporter, standby, holders.alive):
            plan = lock_before(desk, exporter, holders, capacity, connections, views)
            course = _Course(desk, exporter, holders, plan, connections, platform, executor)
            reading = self._attempts(course)
            holders.check_alive()
            exporter.rollback()  # nothing is read in the snapshot any more: VACUUM may go on
            watcher.watch_age(0, 0)
        # One connection less to open: from now on it is a reader, which gives way as such.
        rename(exporter, application_name(self._name, Part.READER))
        done = finish(
            desk,
            exporter,
            self._repo,
            platform,
            reading,
            elapsed=lambda: time.monotonic() - self._started,
            peak_memory=lambda: meter.peak,
        )
        return self._taken(done)

    def _attempts(self, course: "_Course") -> Reading:
        """Snapshot, facts, definitions and rows, repeated until nobody had to be given way to."""
        note, last = course.desk.progress.note, self._options.attempts - 1
        for attempt in range(self._options.attempts):
            self._stop.check()
            if attempt:
                course.exporter.rollback()
                self._lock_newcomers(course)
            try:
                found = self._attempt(course, is_last=attempt == last)
            except GaveWay as gave_way:
                if attempt == last:
                    raise gave_way.instead or busy_again(self._options.attempts, gave_way.reason) from gave_way
                note(f"{gave_way.reason}; taking a new snapshot")
            else:
                if found is not None:
                    return found
                note("tables were made or could not be locked in time; taking a new snapshot")
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _attempt(self, course: "_Course", *, is_last: bool) -> Reading | None:
        """pg_dump runs while we read the catalogs, and where locks suffice for both, the rows.

        None: tables are unlocked that another attempt can lock.
        """
        desk, exporter, late = course.desk, course.exporter, course.plan.late
        moment = export_snapshot(desk, exporter)
        locked = course.holders.read_locked(exporter)
        tables = [oid for oid, *_ in exporter.rows(query("lockable"))]
        if not is_last and any(oid not in locked and oid not in late for oid in tables):
            return None
        with (
            Dumping(desk, self._source, self._name, exporter, moment, tables=len(tables)) as dumping,
            closing(desk.open(Part.READER)) as reader,
            ExitStack() as kept,
        ):
            seen = look(desk, reader, moment, locked, course.platform)
            if not is_last and any(seen.facts.tables[i].oid not in late for i in seen.comparison.late):
                return None
            remembered = Remembered(seen.keys, seen.binary, self._options, datetime.now(UTC).date())
            kept.callback(remembered.close)
            booked = Booked()
            kept.callback(booked.close)
            with Listing(desk, reader, moment) as listing:
                if not course.plan.together:
                    listing.file()
                    dumping.definitions()
                self._recall(remembered, seen)
                beside = (dumping.check, listing.check)
                ledger = self._read(course, seen, remembered, booked, beside)
                # In this order: the reader gives up what it cannot have, pg_dump may wait for a view without end.
                inventory, definitions = listing.file(), dumping.definitions()
            self._stack.push(kept.pop_all())
            return Reading(
                seen=seen,
                definitions=definitions,
                inventory=inventory,
                ledger=ledger,
                today=remembered.today.isoformat(),
            )

    def _recall(self, remembered: Remembered, seen: Seen) -> None:
        if self._options.full:
            self._progress.note("everything is read, as asked")
        elif seen.point is None:
            self._progress.note("everything is read: what changed cannot be followed on a standby")
        elif reason := remembered.recall(self._repo, seen.facts.database.name, seen.point):
            self._progress.note(f"everything is read: {reason}")
        if seen.point is not None and not self._options.full:
            name = partial_name(self._repo, seen.point)
            if remembered.recall_partial(self._repo, name, seen.point):
                self._progress.note("a backup was cut short: what it had read is not read again")

    def _lock_newcomers(self, course: "_Course") -> None:
        locked = course.holders.read_locked(course.exporter)
        new = [t for t in enumerate_tables(course.exporter) if t.oid not in locked]
        if not course.plan.late:  # else the budget is used up
            wait_for_tables(course.desk, course.holders, course.holders.lock_more(new))

    def _read(
        self,
        course: "_Course",
        seen: Seen,
        remembered: Remembered,
        booked: Booked,
        beside: Sequence[Callable[[], None]],
    ) -> Ledger:
        """All rows. Raises what `beside` raises (GaveWay): what was read is then not of the next snapshot."""
        options, facts, desk = self._options, seen.facts, course.desk
        readable = [(i, t) for i, t in enumerate(facts.tables) if has_rows(t) and i not in seen.absent]
        groups = group_pieces(readable, options, seen.divisible)
        blobs = group_blobs(facts.large_objects)
        total = sum(size_of(p) for g in groups for p in g) + sum(o.size for b in blobs for o in b.objects)
        ledger = Ledger(facts.tables, booked)
        checkpoint = Checkpoint(
            self._repo,
            seen,
            ledger,
            booked,
            flushed=lambda: bool(course.exporter.one(query("flushed"), (seen.moment.lsn,))[0]),
            pages=options.range_pages,
            today=remembered.today.isoformat(),
            every=options.checkpoint_seconds,
        )

        def alongside() -> None:
            for check in beside:
                check()
            checkpoint()

        desk.progress.stage("reading rows", total=total, unit="bytes")
        # A run of its own to the workers: those elsewhere are told that one reading is over, and another may follow.
        access = replace(self._access, run=secrets.token_hex(6))
        seed(access, self._repo, stop=self._stop)
        count = course.connections.workers
        with workers(
            Crew(kind=options.executor, given=course.executor),
            access,
            count=count,
            # Where most is known already, starting processes would take longer than the reading.
            data_bytes=0 if remembered.since else total,
            abort=_ending(desk.watcher),
        ) as pool:
            Conductor(
                options=options,
                access=access,
                run=self._name,
                moment=seen.moment,
                count=count,
                # A pool of ours has as many workers as connections; one given has as many as it likes.
                ahead=0 if course.executor is not None else 1,
                ledger=ledger,
                holders=course.holders,
                numbers=by_oid(facts.tables),
                watcher=desk.watcher,
                remembered=remembered,
                alongside=alongside,
                progress=desk.progress,
                stop=self._stop,
            ).run(pool, first_requests(groups, seen.comparison.held, blobs))
        return ledger

    def _taken(self, done: Finished) -> Taken:
        return Taken(
            manifest=done.manifest,
            result=done.result,
            findings=done.manifest.skipped,
            accepted=done.manifest.accepted,
            counts=done.manifest.counts,
            seconds=time.monotonic() - self._started,
        )

    def _open(self, part: Part) -> Session:
        return connect(self._source, application_name=application_name(self._name, part))

    def _open_until_end(self, part: Part) -> Session:
        session = self._open(part)
        self._stack.callback(session.close)
        return session


@dataclass(frozen=True, slots=True)
class _Course:
    """What all attempts of a run share."""

    desk: Desk
    exporter: Session
    holders: Holders
    plan: LockPlan
    connections: ConnectionPlan
    platform: Platform
    executor: Executor | None


def _ending(watcher: Watcher) -> Callable[[], None]:
    def end() -> None:
        try:
            watcher.end_all((Part.WORKER, Part.CLERK))
        except DatabaseError:
            return  # the server is gone, and so are they

    return end


def refuse_filtered(session: Session) -> None:
    """Raises RightsError naming the tables of which this role would see only some rows."""
    hidden = [QualifiedName(schema, name).sql for schema, name in session.rows(query("row_filters"))]
    if hidden:
        shown = ", ".join(hidden[:10]) + (f" and {len(hidden) - 10} more" if len(hidden) > 10 else "")
        raise RightsError(
            f"row level security hides rows of {len(hidden)} table{'s' if len(hidden) > 1 else ''} from this role",
            detail=f"{shown}: a backup would silently hold only the rows that policies let through",
            hint="use a role with BYPASSRLS (on Supabase: postgres), or the owner of tables without FORCE",
        )
