"""Holds one worker back: bytes per second, and the share of time in which the server works for us."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgkura.snapshot.manners import CREDIT_SECONDS, ahead_of, pause_for

# Slept at a time: a stop, a cancelled statement or an ended connection is noticed after so long.
SLICE_SECONDS = 0.2
# Between two batches of a running COPY, so that it is noticed when the server has ended it.
MOST_BETWEEN_BATCHES = 0.5


class Pacer:
    """One unit's pace. What is left to rest when the unit ends is slept off by `rest`, outside its transaction.

    A statement counts as the server's work from its beginning to its end, but for the pauses in between: then the
    server is held up, since nobody takes its rows. `last_statement` is how long the last one took, pauses included.
    """

    def __init__(self, *, bytes_per_second: int, share: float, stopped: Callable[[], bool]) -> None:
        self._rate = bytes_per_second
        self._share = share
        self._stopped = stopped
        self._began = time.monotonic()
        self._received = 0
        self._owed = 0.0
        self._since: float | None = None
        self._rested_until = self._began
        self.last_statement = 0.0

    @contextmanager
    def statement(self) -> Iterator[None]:
        """Around a statement that reads rows. Afterwards a pause, at most as long as one between batches: more
        is slept off when the locks are gone."""
        self._credit()
        began = self._since = time.monotonic()
        try:
            yield
        finally:
            self._work()
            self._since = None
            self.last_statement = time.monotonic() - began
        self._sleep(min(self._wanted(), MOST_BETWEEN_BATCHES))

    def received(self, count: int) -> None:
        """Bytes that came: a pause between two batches, if it is time for one."""
        self._received += count
        self._work()
        self._sleep(min(self._wanted(), MOST_BETWEEN_BATCHES))

    def rest(self) -> None:
        """Everything that is still owed."""
        self._credit()
        self._sleep(self._wanted())

    def _work(self) -> None:
        """Book the time since the last booking as the server's work."""
        if self._since is not None:
            now = time.monotonic()
            self._owed += pause_for(now - self._since, self._share)
            self._since = self._rested_until = now

    def _credit(self) -> None:
        """Time outside statements was rest."""
        now = time.monotonic()
        self._owed = max(-CREDIT_SECONDS, self._owed - (now - self._rested_until))
        self._rested_until = now

    def _wanted(self) -> float:
        return max(self._owed, ahead_of(self._received, time.monotonic() - self._began, self._rate))

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stopped():
            began = time.monotonic()
            time.sleep(min(left, SLICE_SECONDS))
            now = time.monotonic()
            self._owed -= now - began
            self._rested_until = now
            if self._since is not None:
                self._since = now
