"""The loop that feeds units to an executor and hands their results out as they come."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import TypeVar

from pgkura.core.access import Access
from pgkura.core.errors import DatabaseError, UsageError
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.work.pools import interrupts_held_back, worker_died
from pgkura.work.station import Unit, cancel_stations

# Results are awaited in slices this long, so that stops are seen in between.
TICK_SECONDS = 0.2
_END = (
    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
    "WHERE application_name = %s AND pid <> pg_catalog.pg_backend_pid()"
)
U = TypeVar("U", bound=Unit)
R = TypeVar("R")


def run_units(
    pool: Executor,
    function: Callable[[U], R],
    units: Sequence[U],
    *,
    at_once: int,
    stop: Stop,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[tuple[U, R]]:
    """Results as they come; units begun in their order, `at_once` of them on their way at a time.

    `tick` is called a few times a second. The first error of a worker is raised; the pool's owner ends the others.
    """
    waiting = deque(units)
    running: dict[Future[R], U] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            unit = waiting.popleft()
            running[submit(pool, function, unit)] = unit
        done, _ = wait(running, timeout=TICK_SECONDS, return_when=FIRST_COMPLETED)
        stop.check()
        tick()
        for future in done:
            unit = running.pop(future)
            yield unit, result_of(future)
    tick()


def submit(pool: Executor, function: Callable[[U], R], unit: U) -> Future[R]:
    """Hand a unit to the pool. Raises WorkerDied."""
    try:
        with interrupts_held_back():
            return pool.submit(function, unit)
    except BrokenExecutor as error:
        raise worker_died() from error


def result_of(future: Future[R]) -> R:
    """What came of it, or its error."""
    try:
        return future.result()
    except BrokenExecutor as error:
        raise worker_died() from error


def end_work(access: Access, endpoint: Endpoint, application_name: str, stop: Stop) -> None:
    """Stop the workers of a failing run: threads here through their connections, others through the server."""
    stop.request()
    if not cancel_stations(access):
        end_connections(endpoint, application_name)


def end_connections(endpoint: Endpoint, application_name: str) -> None:
    """End our connections of this name on the server, wherever they come from; quiet when it cannot be reached."""
    try:
        with connect(endpoint, application_name="pgkura clerk") as session:
            session.rows(_END, (application_name,))
    except (DatabaseError, UsageError):
        return
