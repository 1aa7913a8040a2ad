"""Rows, and what follows them, in parallel along the dependency graph: an index of a table that is loaded need not
wait for the rows of another."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from pgkura.core.errors import DatabaseError
from pgkura.core.stop import Stop
from pgkura.postgres.session import Session
from pgkura.restore.units import LoadReport, LoadUnit, load_unit
from pgkura.work.running import result_of, submit

TICK_SECONDS = 0.2
# What is done on a connection.
Work = Callable[[Session], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing to do: `unit` on a worker, else `work` here, on a connection that is its own meanwhile.

    gives   what is done with it; deps: what must be done before it
    uses    the tables it works on; locks: those of them that it locks against everything else
    weight  the heavier, the sooner
    size    in the unit of its stage: bytes of rows, or entries
    rows    bytes of rows that it loads
    part_of the table that it loads a part of: two connections at one table get in each other's way a little
    needless  asked when its turn comes: it need not be done any more
    light   it waits for the disk more than it computes: it may run beside as many others as there are connections
    """

    gives: frozenset[int]
    deps: frozenset[int] = frozenset()
    uses: frozenset[int] = frozenset()
    locks: frozenset[int] = frozenset()
    weight: int = 0
    size: int = 0
    rows: int = 0
    part_of: int | None = None
    needless: Callable[[], bool] | None = None
    light: bool = False
    unit: LoadUnit | None = None
    work: Work | None = None


@dataclass(slots=True)
class Schedule:
    """Which jobs may run now, the heaviest first. Pure but for its own state.

    At most `parallel` jobs compute at a time, and as many light ones wait beside them: each new file of an index is
    flushed to the disk by itself, and until it is there a connection and a processor have nothing to do.
    `at_most`: all together; less than that where the server has no more connections for us.
    """

    waiting: list[Job]
    parallel: int
    at_most: int = 0
    unfinished: set[int] = field(default_factory=set)
    running: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at_most = self.at_most or 2 * self.parallel
        self.waiting.sort(key=lambda job: -job.weight)
        self.unfinished = {given for job in self.waiting for given in job.gives}

    def take(self) -> Job | None:
        """The first job whose dependencies are done and that neither waits for a running one nor holds it up; a part of
        a table that is being loaded only where there is nothing else."""
        if len(self.running) >= self._limit():
            return None
        heavy = sum(not job.light for job in self.running) >= self.parallel
        loading = {job.part_of for job in self.running if job.part_of is not None}
        second: int | None = None
        for place, job in enumerate(self.waiting):
            if (heavy and not job.light) or not self._free(job):
                continue
            if job.part_of not in loading:
                return self._begin(place)
            second = place if second is None else second
        return None if second is None else self._begin(second)

    def _free(self, job: Job) -> bool:
        return self.unfinished.isdisjoint(job.deps) and not any(_conflict(job, other) for other in self.running)

    def _begin(self, place: int) -> Job:
        self.running.append(self.waiting[place])
        return self.waiting.pop(place)

    def _limit(self) -> int:
        """How many may run now.

        A table larger than all others that are left decides when everything ends. What waits for the disk would take
        from it the processor that stands idle once only that table loads.
        """
        giant = max((self._whole(job) for job in self.running), default=0)
        if 2 * giant > sum(job.rows for job in (*self.waiting, *self.running)):
            return min(self.at_most, self.parallel + 1)
        return self.at_most

    def _whole(self, job: Job) -> int:
        """What is left of a part's table, the part's own rows among it."""
        if job.part_of is None:
            return job.rows
        return sum(other.rows for other in (*self.waiting, *self.running) if other.part_of == job.part_of)

    def put_back(self, job: Job) -> None:
        """It could not begin: as many as run now are all that can."""
        self.running.remove(job)
        self.waiting.insert(0, job)
        self.at_most = max(1, len(self.running))

    def done(self, job: Job) -> None:
        """A job has ended, well or not."""
        self.unfinished -= job.gives
        self.running.remove(job)


def _conflict(one: Job, other: Job) -> bool:
    return not (one.locks.isdisjoint(other.uses) and other.locks.isdisjoint(one.uses))


def run_jobs(
    jobs: Sequence[Job],
    pool: Executor | None,
    open_session: Callable[[], Session],
    *,
    parallel: int,
    stop: Stop,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Job, LoadReport | None]]:
    """Run every job once; results as they come. Jobs turn the server's refusals into findings themselves.

    `pool` is for units, where there are some. `tick` is called a few times a second.
    """
    schedule = Schedule(list(jobs), parallel)
    sessions: list[Session] = []
    idle: list[Session] = []
    running: dict[Future[LoadReport | None], tuple[Job, Session | None]] = {}
    with ThreadPoolExecutor(2 * parallel, thread_name_prefix="pgkura-build") as here:
        try:
            while schedule.waiting or running:
                while (job := schedule.take()) is not None:
                    if job.needless is not None and job.needless():
                        schedule.done(job)
                        yield job, None
                        continue
                    if job.unit is not None and pool is not None:
                        running[submit(pool, _load, job.unit)] = (job, None)
                        continue
                    session = idle.pop() if idle else _opened(open_session, sessions, needed=not running)
                    if session is None:
                        schedule.put_back(job)
                        break
                    running[here.submit(_work, job, session)] = (job, session)
                if not running:
                    # A cycle can only come from a damaged archive: run the rest in its order rather than never.
                    schedule.unfinished.clear()
                    continue
                done, _ = wait(running, timeout=TICK_SECONDS, return_when=FIRST_COMPLETED)
                stop.check()
                tick()
                for future in done:
                    job, used = running.pop(future)
                    if used is not None:
                        idle.append(used)
                    schedule.done(job)
                    yield job, result_of(future)
        except BaseException:
            stop.request()
            for _, used in running.values():
                if used is not None:
                    used.cancel()
            raise
        finally:
            wait([future for future, (_, used) in running.items() if used is not None])
            for session in sessions:
                session.close()


def _opened(open_session: Callable[[], Session], sessions: list[Session], *, needed: bool) -> Session | None:
    """One connection more; None where there is none and we can go on without."""
    try:
        sessions.append(open_session())
    except DatabaseError:
        if needed:
            raise
        return None
    return sessions[-1]


def _load(unit: LoadUnit) -> LoadReport | None:
    return load_unit(unit)


def _work(job: Job, session: Session) -> LoadReport | None:
    if job.work is not None:
        job.work(session)
    return None
