"""Runs work units on an executor, books their results, sends again what was taken from us."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context

from pgkura.core.access import Access, held
from pgkura.core.errors import PgkuraError
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.snapshot.holders import Holders
from pgkura.snapshot.ledger import Ledger, Request
from pgkura.snapshot.options import PROCESS_THRESHOLD, Options
from pgkura.snapshot.planner import size_of
from pgkura.snapshot.reader import read_unit
from pgkura.snapshot.remembering import Remembered
from pgkura.snapshot.station import close_stations, leave, start_worker_process
from pgkura.snapshot.units import Mode, UnitResult, WorkUnit
from pgkura.snapshot.watcher import Watcher

# Results are awaited in slices this long, so that stops, notes and lost locks are seen in between.
TICK_SECONDS = 0.2


class WorkerDied(PgkuraError):
    """A worker process ended without a word (killed, out of memory)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The exported snapshot that units read at, and when it was taken (monotonic clock)."""

    id: str
    visible: str
    lsn: str
    since: float


@contextmanager
def workers(
    options: Options,
    access: Access,
    *,
    count: int,
    data_bytes: int,
    abort: Callable[[], None],
    given: Executor | None = None,
) -> Iterator[Executor]:
    """The `given` executor, threads, or spawned processes. On the way out our own end; in an error at once, after
    `abort` has ended their connections on the server."""
    if given is not None:
        try:
            yield given
        except BaseException:
            abort()
            raise
        return
    if options.executor == "threads" or (options.executor == "auto" and data_bytes < PROCESS_THRESHOLD):
        pool: Executor = ThreadPoolExecutor(max_workers=count, thread_name_prefix="pgkura-worker")
        before = set[int]()
    else:
        before = {child.pid for child in active_children() if child.pid is not None}
        pool = ProcessPoolExecutor(
            max_workers=count,
            mp_context=get_context("spawn"),
            initializer=start_worker_process,
            initargs=(held(access.references),),
        )
    try:
        yield pool
    except BaseException:
        leave(access)
        pool.shutdown(wait=False, cancel_futures=True)
        abort()
        _end_children(pool, before)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        close_stations(access)


def _end_children(pool: Executor, before: set[int]) -> None:
    if isinstance(pool, ProcessPoolExecutor):
        for child in active_children():
            if child.pid not in before and child.name.startswith("SpawnProcess"):
                child.terminate()


class Conductor:
    """One run of all units."""

    def __init__(
        self,
        *,
        options: Options,
        access: Access,
        run: str,
        moment: Moment,
        count: int,
        ledger: Ledger,
        holders: Holders,
        numbers: Mapping[int, int],
        watcher: Watcher,
        remembered: Remembered,
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._options = options
        self._access = access
        self._run_name = run
        self._moment = moment
        self._count = count
        self._ledger = ledger
        self._holders = holders
        self._numbers = numbers
        self._watcher = watcher
        self._remembered = remembered
        self._progress = progress
        self._stop = stop
        self._next_id = 0
        self._age_told = False

    def run(self, executor: Executor, requests: Sequence[Request]) -> None:
        """Until nothing is left to read. Raises the first error of a worker, or the stop's reason."""
        waiting = deque(requests)
        running: set[Future[UnitResult]] = set()
        while waiting or running:
            # Few units are on their way at a time: those not sent yet can still change their mode.
            while waiting and len(running) < self._count + 1:
                running.add(self._submit(executor, self._unit(waiting.popleft())))
            done, running = wait(running, timeout=TICK_SECONDS, return_when=FIRST_COMPLETED)
            self._look_around()
            for future in done:
                result = self._result(future)
                waiting.extend(self._ledger.record(result))
                self._progress.advance(result.unit.bytes if result.unit.mode is not Mode.REREAD else 0)

    def _submit(self, executor: Executor, unit: WorkUnit) -> Future[UnitResult]:
        try:
            with _interrupts_held_back():
                return executor.submit(read_unit, unit)
        except BrokenExecutor as error:
            raise _died() from error

    def _result(self, future: Future[UnitResult]) -> UnitResult:
        try:
            return future.result()
        except BrokenExecutor as error:
            raise _died() from error

    def _look_around(self) -> None:
        self._stop.check()
        for note in self._watcher.notes():
            self._progress.note(note)
        for holder in self._holders:
            if holder.released_at is not None:
                self._ledger.release(
                    (self._numbers[oid] for oid in holder.oids if oid in self._numbers), holder.released_at
                )
        age = time.monotonic() - self._moment.since
        if age > self._options.max_snapshot_age_seconds and not self._age_told:
            self._age_told = True
            self._progress.note(f"the snapshot is {age / 3600:.1f} h old and holds back VACUUM on the server")

    def _unit(self, request: Request) -> WorkUnit:
        self._next_id += 1
        options = self._options
        mode = request.mode
        if request.pieces and any(self._ledger.mode_of(p.number, mode) is not mode for p in request.pieces):
            mode = Mode.LATE
        sizes = sum(size_of(p) for p in request.pieces)
        return WorkUnit(
            id=self._next_id,
            mode=mode,
            access=self._access,
            snapshot=self._moment.id,
            run=self._run_name,
            pieces=tuple(map(self._remembered.piece, request.pieces)),
            blobs=request.blobs,
            bytes=sizes + (sum(o.size for o in request.blobs.objects) if request.blobs else 0),
            chunk_bytes=options.chunk_bytes,
            lock_wait_ms=options.lock_wait_ms,
            late_lock_seconds=options.late_lock_seconds,
            bytes_per_second=options.bytes_per_second // self._count,
            storage_class=options.storage_class,
            since=self._remembered.since,
            small_bytes=options.small_bytes,
            policy=options.follow,
        )


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Workers started inside inherit the mask: Ctrl-C reaches this process alone, which ends them in order."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _died() -> WorkerDied:
    return WorkerDied(
        "a worker process died",
        detail="it was killed from outside, or the machine ran out of memory",
        hint="nothing of this run is taken for a backup; run it again, with fewer workers if memory is short",
    )
