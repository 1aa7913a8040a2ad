"""Runs work units on an executor, books their results, sends again what was taken from us."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass

from pgkura.core.access import Access
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.snapshot.holders import Holders
from pgkura.snapshot.ledger import Ledger, Request
from pgkura.snapshot.options import Options
from pgkura.snapshot.planner import size_of
from pgkura.snapshot.reader import read_unit
from pgkura.snapshot.remembering import Remembered
from pgkura.snapshot.units import Mode, UnitResult, WorkUnit
from pgkura.snapshot.watcher import Watcher
from pgkura.work.pools import interrupts_held_back, worker_died

# Results are awaited in slices this long, so that stops, notes and lost locks are seen in between.
TICK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The exported snapshot that units read at, and when it was taken (monotonic clock)."""

    id: str
    visible: str
    lsn: str
    since: float


class Conductor:
    """One run of all units: `count` of them are read at a time, and `ahead` wait where they will be read.

    `alongside` is called often, after what has come was booked; what it raises ends the run.
    """

    def __init__(
        self,
        *,
        options: Options,
        access: Access,
        run: str,
        moment: Moment,
        count: int,
        ahead: int,
        ledger: Ledger,
        holders: Holders,
        numbers: Mapping[int, int],
        watcher: Watcher,
        remembered: Remembered,
        alongside: Callable[[], None],
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._options = options
        self._access = access
        self._run_name = run
        self._moment = moment
        self._count = count
        self._ahead = ahead
        self._ledger = ledger
        self._holders = holders
        self._numbers = numbers
        self._watcher = watcher
        self._remembered = remembered
        self._alongside = alongside
        self._progress = progress
        self._stop = stop
        self._next_id = 0

    def run(self, executor: Executor, requests: Sequence[Request]) -> None:
        """Until nothing is left to read. Raises the first error of a worker, or the stop's reason."""
        waiting = deque(requests)
        running: set[Future[UnitResult]] = set()
        while waiting or running:
            # Few units are on their way at a time: those not sent yet can still change their mode.
            while waiting and len(running) < self._count + self._ahead:
                running.add(self._submit(executor, self._unit(waiting.popleft())))
            done, running = wait(running, timeout=TICK_SECONDS, return_when=FIRST_COMPLETED)
            self._look_around()
            for future in done:
                result = self._result(future)
                waiting.extend(self._ledger.record(result))
                self._progress.advance(result.unit.bytes if result.unit.mode is not Mode.REREAD else 0)
            self._alongside()

    def _submit(self, executor: Executor, unit: WorkUnit) -> Future[UnitResult]:
        try:
            with interrupts_held_back():
                return executor.submit(read_unit, unit)
        except BrokenExecutor as error:
            raise worker_died() from error

    def _result(self, future: Future[UnitResult]) -> UnitResult:
        try:
            return future.result()
        except BrokenExecutor as error:
            raise worker_died() from error

    def _look_around(self) -> None:
        self._stop.check()
        for note in self._watcher.notes():
            self._progress.note(note)
        for holder in self._holders:
            if holder.released_at is not None:
                self._ledger.release(
                    (self._numbers[oid] for oid in holder.oids if oid in self._numbers), holder.released_at
                )

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
            bytes_per_second=-(-options.bytes_per_second // self._count),
            cpu_share=options.cpu_share,
            statement_timeout_ms=round(options.statement_timeout_seconds * 1000),
            storage_class=options.storage_class,
            small_bytes=options.small_bytes,
            policy=options.follow,
        )
