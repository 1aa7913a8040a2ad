"""Connections that are opened while something else is asked: each costs several round trips."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pgkura.postgres.session import Session
from pgkura.snapshot.yielding import Part


class Opening:
    """Opens one connection for each of `parts` at once. The first who asks gets it; for others one is opened then.

    What opening raised is raised where it is asked for.
    """

    def __init__(self, connect: Callable[[Part], Session], parts: Sequence[Part]) -> None:
        self._connect = connect
        self._pool = ThreadPoolExecutor(len(parts), thread_name_prefix="pgkura-opening")
        self._coming = {part: self._pool.submit(connect, part) for part in parts}

    def __call__(self, part: Part) -> Session:
        """A connection of its own for whoever asks."""
        coming = self._coming.pop(part, None)
        if coming is None:
            return self._connect(part)
        try:
            return coming.result()
        except BaseException:  # stopped while it was waited for: nobody else knows of it
            coming.add_done_callback(_close)
            raise

    def close(self) -> None:
        """Close what nobody asked for, now or as soon as it is open."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for coming in self._coming.values():
            coming.add_done_callback(_close)


def _close(coming: Future[Session]) -> None:
    if not coming.cancelled() and coming.exception() is None:
        coming.result().close()
