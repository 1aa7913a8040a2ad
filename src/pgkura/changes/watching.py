"""Follow a slot: receive, cut, seal, store, and only then confirm. SIGKILL at any point loses and doubles nothing."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

from pgkura.changes.bundling import Bundler
from pgkura.changes.chains import Chain, ChainBroken, Origin, check_slot, end_chain, look, open_chain
from pgkura.changes.counting import Telling
from pgkura.changes.covers import cover
from pgkura.changes.guarding import Guard
from pgkura.changes.options import Options, Watched
from pgkura.changes.publishing import publish, to_publish
from pgkura.changes.rebasing import BaseTaker, Rebasing
from pgkura.changes.rekeying import Rekeying
from pgkura.changes.segment import BEAT, Cut, Segmenter, record_of, widening
from pgkura.core.errors import DatabaseError, SourceBusy, StoreError
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.core.wal import lsn_text, parse_lsn
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.replication import Alive
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.shape import Poll
from pgkura.postgres.transports import LogReader, Transports
from pgkura.repository.changes import END, PartRef, SegmentName
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyExists

APPLICATION = "pgkura watch"
_IN_USE = "55006"
_LOST = ("55000", "42704", "58P01")
_SLOT_CHECK_SECONDS = 30.0
# Segments that may wait for a slow store; then receiving stops, and the server keeps the log.
_WAITING = 2
R = TypeVar("R")


def follow(
    source: Endpoint,
    repo: Repository,
    options: Options,
    progress: Progress,
    stop: Stop,
    taker: BaseTaker | None = None,
) -> Watched:
    """Until stopped, or (once) up to now. Comes back after a lost connection or a store that refuses.

    `taker` makes new bases meanwhile, when tables or definitions changed.

    Raises RightsError, DatabaseError for what will not pass by itself, WrongKey, Tampered.
    """
    repo.need_host()
    told = Watched()
    bases = Rebasing(taker, options.base_after, progress.note)
    try:
        with Guard(source, progress.note, max_retained=options.max_retained, manners=options.manners) as guard:
            return _follow(source, repo, options, progress, stop, told, bases, guard)
    finally:
        bases.stop()
        told.bases = bases.taken


def _follow(
    source: Endpoint,
    repo: Repository,
    options: Options,
    progress: Progress,
    stop: Stop,
    told: Watched,
    bases: Rebasing,
    guard: Guard,
) -> Watched:
    failures = 0
    transports = Transports(options.transport, options.period, progress.note)
    rekeying = Rekeying(repo, options.keys_every, progress.note)
    while True:
        before = told.segments
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="pgkura-store") as pool:
                _Run(source, repo, options, progress, stop, told, pool, bases, guard, transports, rekeying).run()
            return told
        except (DatabaseError, StoreError, SourceBusy) as error:
            failures = 1 if told.segments > before else failures + 1
            if stop.requested or (options.once and failures > 5) or not told.chain:
                raise
            progress.note(f"{error.msg}; trying again ({error.detail})" if error.detail else f"{error.msg}; again")
            if stop.wait(patience(failures)):
                return told


def patience(failures: int) -> float:
    """Seconds until the next try, after so many without success."""
    return min(0.2 * 2.0 ** min(failures, 10), 15.0)


class _Run:
    """One connection's time."""

    def __init__(
        self,
        source: Endpoint,
        repo: Repository,
        options: Options,
        progress: Progress,
        stop: Stop,
        told: Watched,
        pool: ThreadPoolExecutor,
        bases: Rebasing,
        guard: Guard,
        transports: Transports,
        rekeying: Rekeying,
    ) -> None:
        self._source, self._repo, self._options = source, repo, options
        self._progress, self._stop, self._told, self._pool = progress, stop, told, pool
        self._bases, self._guard, self._transports = bases, guard, transports
        self._rekeying = rekeying
        self._counts = Telling()
        self._storing: deque[tuple[Future[None], Cut]] = deque()
        self._first_commit = self._last_stored = self._slot_seen = time.monotonic()
        self._until = self._judge = 0
        self._failed = False
        self._bundler = Bundler(repo, options.bundle, progress)

    def run(self) -> None:
        """Connect, find the chain, follow."""
        if self._rekeying.due:
            self._rekeying.look()
        with connect(self._source, application_name=APPLICATION) as session:
            session.execute("SET lock_timeout = '2s'")
            replication = self._transports.open(session, self._source, application_name=APPLICATION)
            try:
                self._follow(session, replication)
            finally:
                replication.close()
                self._bundler.close(patiently=self._options.once)

    def _follow(self, session: Session, replication: LogReader) -> None:
        seen = replication.identify()
        database = str(session.one("SELECT pg_catalog.current_database()::text")[0])
        history = replication.history(seen.timeline)
        origin = Origin(system=seen.system, timeline=seen.timeline, database=database, history=history)
        self._progress.stage("following the change log")
        for chain_id, slot, reason in self._guard.given_up():
            self._end(session, chain_id, slot, reason)
        if self._guard.rest and not self._options.once and self._stop.wait(self._guard.rest):
            return
        by_sql = replication.kind == "sql"
        self._chain = chain = open_chain(
            self._repo,
            session,
            origin,
            self._progress.note,
            self._hole,
            last_slot=self._options.last_slot,
            by_sql=by_sql,
        )
        self._guard.mind(chain.id, chain.slot, inserts=bool(chain.inserts))
        self._told.chain, self._told.position = chain.id, lsn_text(chain.position)
        self._told.transport = replication.kind
        self._session, self._replication = session, replication
        try:
            self._poll = self._look()
            self._start(chain)
            self._segmenter = Segmenter(chain.position, self._spill)
            self._segmenter.widen = widening(self._poll.visible)
            if self._options.once:
                self._until = self._beat()
            self._loop_or_lost()
        except ChainBroken as broken:
            replication.close()
            self._end(session, chain.id, chain.slot, broken.reason)
            raise SqlError("the chain has ended", detail=broken.reason) from broken

    def _end(self, session: Session, chain: str, slot: str, reason: str) -> None:
        """Once; whoever comes later finds it ended."""
        if self._repo.chain_record(chain, END) is None:
            end_chain(self._repo, session, chain, slot, reason)
            self._hole(reason)
        self._guard.was_told(chain)

    def _hole(self, reason: str) -> None:
        self._told.holes += 1
        self._progress.note(f"the change log is broken: {reason}; a new chain begins, and it needs a new backup")

    def _start(self, chain: Chain) -> None:
        try:
            self._replication.start(
                chain.slot, chain.publications, chain.position, lambda: check_slot(self._session, chain)
            )
        except DatabaseError as error:
            state = getattr(error, "sqlstate", "")
            if state == _IN_USE:
                raise SourceBusy(
                    "the slot is in use", detail=error.msg, hint="another watcher follows this database"
                ) from error
            if state in _LOST:
                raise ChainBroken(f"the slot cannot be read: {error.msg}") from error
            raise

    def _loop_or_lost(self) -> None:
        try:
            self._loop()
        except SqlError as error:
            if error.sqlstate not in _LOST:
                raise
            why = self._guard.broken(self._chain.slot) or f"the slot cannot be read any more: {error.msg}"
            raise ChainBroken(why) from error

    def _loop(self) -> None:
        polled = time.monotonic()
        while True:
            self._receive()
            if self._rekeying.due:
                # Behind the segments that are being stored: of a host that was revoked none of them is confirmed.
                self._attend(self._pool.submit(self._rekeying.look))
            self._confirm()
            if reason := self._guard.broken(self._chain.slot):
                raise ChainBroken(reason)
            now = time.monotonic()
            if self._due(now):
                self._store()
                polled = now
            elif now - polled >= self._options.period:
                self._poll, polled = self._look(), now
            self._bases.tend(self._chain, self._poll, now)
            if now - self._slot_seen >= _SLOT_CHECK_SECONDS:
                self._slot_seen = now
                check_slot(self._session, self._chain)
            if self._done():
                return

    def _receive(self) -> None:
        if len(self._storing) > _WAITING:
            self._replication.keep_alive()
            wait([self._storing[0][0]], timeout=0.5)
            return
        segmenter = self._segmenter
        for message in self._replication.receive(min(self._options.period / 4, 0.25)):
            if isinstance(message, Alive):
                continue
            was_empty = segmenter.empty
            segmenter.take(message.lsn, message.payload)
            if was_empty and not segmenter.empty:
                self._first_commit = time.monotonic()
            if segmenter.size >= self._options.segment_bytes and not segmenter.inside:
                return

    def _due(self, now: float) -> bool:
        segmenter = self._segmenter
        if segmenter.inside:
            return False
        if segmenter.empty:
            if now - self._last_stored >= self._options.beat and not self._storing:
                self._last_stored = now
                self._beat()
            return False
        waited = self._replication.rested or now - self._first_commit >= self._options.period
        last = self._stop.requested or 0 < self._until <= segmenter.position
        return waited or last or segmenter.size >= self._options.segment_bytes

    def _done(self) -> bool:
        if self._stop.requested:
            # What is half here is sent again to whoever comes next.
            if not self._segmenter.inside and not self._segmenter.empty:
                self._store()
            self._finish_storing()
            return True
        if not 0 < self._until <= self._chain.position:
            return False
        # A snapshot of before this run is known to be held once the log has passed the look that sees all of it.
        if self._judge <= self._chain.position:
            # Under a load that never rests something is always being stored: no reason to stay.
            self._finish_storing()
            return True
        self._until = self._beat()
        return False

    def _finish_storing(self) -> None:
        while self._storing:
            self._confirm(patiently=True)

    def _look(self, *, lasting: bool = False) -> Poll:
        """The shape of now; tables that can be logged join, those that lost their key leave at once."""
        chain = self._chain
        seen = look(self._session, chain, lasting=lasting)
        if (
            any(to_publish(t, chain.slot, chain.inserts) for t in seen.tables)
            and (done := publish(self._session, chain.slot, chain.inserts, self._progress.note)).changed
        ):
            chain.empty = chain.empty - done.filled | done.empty
            seen = look(self._session, chain, lasting=lasting)
        known: Poll | None = getattr(self, "_poll", None)
        if known is None or known.shape.rows != seen.shape.rows:
            cover(self._repo, self._chain, seen)
            if known is not None and not self._options.base_after:
                self._progress.note("tables changed: moments from here on need a new backup")
        if hasattr(self, "_segmenter"):
            self._segmenter.widen = widening(seen.visible)
        return seen

    def _store(self) -> None:
        # The look comes after the last commit of the segment: its shape is a shape of after all of it.
        self._poll = seen = self._look(lasting=True)
        self._judge = self._judge or (parse_lsn(seen.after) if seen.after else 0)
        chain, cut = self._chain, self._segmenter.cut()
        sealed = self._repo.seal_messages(cut.rest) if cut.rest else b""
        record = record_of(cut, chain=chain.id, before=(chain.top_xid, chain.top_time), rest_bytes=len(sealed))
        record["poll"] = {
            "position": seen.position,
            "visible": seen.visible,
            "time": seen.time,
            "rows": seen.shape.rows,
            "definitions": seen.shape.definitions,
            **({"after": seen.after} if seen.after else {}),
        }
        if (counted := self._counts.tell(seen.counted)) is not None:
            record["counted"] = counted
        record["sequences"] = [list(s) for s in self._new_values(seen)]
        chain.top_xid, chain.top_time = record["top_xid"], record["top_time"]
        name = SegmentName(cut.tally.start, cut.tally.end)
        self._storing.append((self._pool.submit(self._put, name, record, sealed, cut), cut))
        self._last_stored = time.monotonic()

    def _new_values(self, seen: Poll) -> list[tuple[str, str, int]]:
        """Sequences that moved since the last segment; all of them in the first one of a run."""
        known: dict[tuple[str, str], int] = getattr(self, "_values", {})
        moved = [(s, n, v) for s, n, v in seen.sequences if known.get((s, n)) != v]
        self._values = {(s, n): v for s, n, v in seen.sequences}
        return moved

    def _put(self, name: SegmentName, record: dict[str, object], sealed: bytes, cut: Cut) -> None:
        # Segments that wait behind one that was refused must not be stored: the log would have a gap in between.
        if self._failed:
            raise StoreError("an earlier segment was not stored")
        self._failed = True
        chain = self._chain.id
        for mark in cut.tally.marks:
            told = {"name": mark.name, "lsn": lsn_text(mark.lsn), "end": lsn_text(mark.end), "time": mark.time}
            with suppress(KeyExists):
                self._repo.put_chain_record(chain, f"mark-{mark.end:016X}", {**told, "xid": mark.xid})
        try:
            self._repo.put_segment(chain, name, record, sealed)
        except KeyExists:  # it was stored, and nobody lived to hear it
            self._repo.segment(chain, name)  # by a host that counts, or the server must not forget it
        self._failed = False

    def _confirm(self, *, patiently: bool = False) -> None:
        while self._storing and (patiently or self._storing[0][0].done()):
            future, cut = self._storing[0]
            self._attend(future)
            self._storing.popleft()
            self._chain.position = cut.tally.end
            self._replication.confirm(cut.tally.end)
            told = self._told
            told.segments += 1
            self._bundler.stored(self._chain.id)
            told.transactions += cut.tally.transactions
            told.bytes += len(cut.rest) + sum(ref.bytes for ref, _ in cut.parts)
            told.position = lsn_text(cut.tally.end)

    def _spill(self, packed: bytes) -> PartRef:
        return self._attend(self._pool.submit(self._repo.put_part, self._chain.id, packed))

    def _attend(self, future: "Future[R]") -> R:
        """Its result; meanwhile the server hears that we live."""
        while not future.done():
            wait([future], timeout=1.0)
            self._replication.keep_alive()
        return future.result()

    def _beat(self) -> int:
        """Something to receive. Returns where the log is after it."""
        said = self._session.one("SELECT pg_catalog.pg_logical_emit_message(true, %s, '')::text", (BEAT,))[0]
        return parse_lsn(str(said))
