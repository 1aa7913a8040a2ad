"""Small jobs on several sessions that all look at one exported snapshot."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session

APPLICATION = "pgkura verify"
TICK_SECONDS = 0.2
T = TypeVar("T")


class Meter:
    """Counts in worker threads, read by the one thread that speaks to people."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, amount: int) -> None:
        """From any thread."""
        with self._lock:
            self._count += amount

    def take(self) -> int:
        """What was added since the last call."""
        with self._lock:
            count, self._count = self._count, 0
            return count


class SharedSnapshot:
    """Sessions on one snapshot. The session that exported it must stay in its transaction meanwhile."""

    def __init__(self, endpoint: Endpoint, snapshot: str, parallel: int, stop: Stop) -> None:
        self._endpoint = endpoint
        self._snapshot = snapshot
        self._parallel = parallel
        self._stop = stop

    def run(self, jobs: Sequence[Callable[[Session], T]], tick: Callable[[], None]) -> Iterator[T]:
        """Results as they come, jobs begun in their order; `tick` is called a few times a second. An error cancels
        the rest.
        """
        if not jobs:
            return
        waiting = list(reversed(jobs))
        running: dict[Future[T], Session] = {}
        workers = min(self._parallel, len(jobs))
        with self._sessions(workers) as idle, ThreadPoolExecutor(workers, thread_name_prefix="pgkura-verify") as pool:
            try:
                while waiting or running:
                    while waiting and idle:
                        session = idle.pop()
                        running[pool.submit(waiting.pop(), session)] = session
                    done, _ = wait(running, timeout=TICK_SECONDS, return_when=FIRST_COMPLETED)
                    self._stop.check()
                    tick()
                    for future in done:
                        idle.append(running.pop(future))
                        yield future.result()
            except BaseException:
                self._stop.request()
                for session in running.values():
                    session.cancel()
                raise

    @contextmanager
    def _sessions(self, count: int) -> Iterator[list[Session]]:
        opened: list[Session] = []
        try:
            for _ in range(count):
                opened.append(connect(self._endpoint, application_name=APPLICATION))
                opened[-1].adopt(self._snapshot)
            yield list(opened)
        finally:
            for session in opened:
                session.close()
