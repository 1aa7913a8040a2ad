"""Pools of workers: threads, spawned processes, or an executor that somebody gave us."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pgkura.core.access import Access, held
from pgkura.core.errors import PgkuraError
from pgkura.work.station import close_stations, leave, start_worker_process, visit

Kind = Literal["auto", "threads", "processes"]
MIB = 1024 * 1024
# Below this much data a spawned interpreter costs more than it brings.
PROCESS_THRESHOLD = 64 * MIB
# So many threads do not wait for each other: compressing and hashing leave the interpreter to the others, and the
# server is slower than we are. Each process is another 60 MB (docs/decisions/0011).
THREADS_ENOUGH = 2


class WorkerDied(PgkuraError):
    """A worker ended without a word (killed, out of memory)."""


def worker_died() -> WorkerDied:
    """Of a worker process of this machine."""
    return WorkerDied(
        "a worker process died",
        detail="it was killed from outside, or the machine ran out of memory",
        hint="nothing of this run is taken for a backup; run it again, with fewer workers if memory is short",
    )


@runtime_checkable
class Reachable(Protocol):
    """An executor whose workers, elsewhere, can be told something beside their units."""

    def everywhere(self, function: Callable[..., Any], /, *args: Any) -> None:
        """Run it in each worker's process, at once; quiet about those that cannot be reached."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who does the work: the `given` executor, else threads or processes ("auto": the work's own choice)."""

    kind: Kind = "auto"
    given: Executor | None = None

    def else_threads(self) -> "Crew":
        """For work that another process makes dearer: threads, where nobody asked for something else."""
        return Crew(kind="threads" if self.kind == "auto" else self.kind, given=self.given)

    def local(self) -> "Crew":
        """The same without workers elsewhere."""
        return Crew(kind=self.kind)


@contextmanager
def workers(
    crew: Crew,
    access: Access,
    *,
    count: int,
    data_bytes: int,
    abort: Callable[[], None],
) -> Iterator[Executor]:
    """An executor for units of this access. On the way out our own end; in an error at once, after `abort` has
    ended their connections on the server."""
    end_children: Callable[[], None] | None = None
    if crew.given is not None:
        pool: Executor = Visiting(crew.given)
    elif crew.kind == "threads" or (
        crew.kind == "auto" and (min(count, processors()) <= THREADS_ENOUGH or data_bytes < PROCESS_THRESHOLD)
    ):
        pool = ThreadPoolExecutor(max_workers=count, thread_name_prefix="pgkura-worker")
    else:
        from pgkura.work.processes import spawn_pool  # takes a while to load

        pool, end_children = spawn_pool(count, start_worker_process, held(access.references))
    try:
        yield pool
    except BaseException:
        leave(access)
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(crew.given, Reachable):
            crew.given.everywhere(leave, access)
        abort()
        if end_children is not None:
            end_children()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        close_stations(access)


def processors() -> int:
    """Those that we may use: more workers than that wait for the server or its distance, not for an interpreter."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Visiting(Executor):
    """Somebody else's executor: units leave nothing behind there, and ending us does not end it."""

    def __init__(self, given: Executor) -> None:
        self._given = given
        self._sent: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As the executor does it."""
        future = self._given.submit(visit, fn, *args, **kwargs)
        self._sent.add(future)
        future.add_done_callback(self._sent.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel what has not begun; what runs there is ended through its connections."""
        if cancel_futures:
            for future in tuple(self._sent):
                future.cancel()


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Workers started inside inherit the mask: Ctrl-C reaches this process alone, which ends them in order."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
