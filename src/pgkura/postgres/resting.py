"""A replication connection that rests between two portions while commits are many.

The server wakes its sender at every commit that is flushed, and the sender wakes us: with hundreds of commits a second
that is most of what being followed costs, and what the committing sessions feel. Nobody needs each commit at once: a
segment is cut once a period. So when commits are many and all of them are here, the stream is ended, and begun again
where it was left when the period is over: on a new connection, because servers of today end a second stream of one
connection at once (PostgreSQL's bug 18754). A beginning reads the server's log from the slot's `restart_lsn` on; where
that takes long (much log with few commits), there is no rest for a while.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from pgkura.core.wal import parse_lsn
from pgkura.postgres.replication import Alive, Begun, Frame, Identity, Replication, nothing

# Below, being woken costs next to nothing.
MANY_COMMITS_A_SECOND = 20.0
# Of the period: how long one looks before one judges, and how long a beginning may take.
_LOOK, _DEAR = 0.25, 0.25
# A beginning that was dear is not tried again for so many periods.
_PERIODS_WITHOUT = 15
# So long the last portion may take.
_LAST_SECONDS = 3.0
_BEGIN, _COMMIT, _MESSAGE = ord("B"), ord("C"), ord("M")
_COMMIT_END = slice(10, 18)


class Resting:
    """One replication connection at a time, which `connect` opens; use from one thread. `period` in seconds."""

    kind = "stream"

    def __init__(self, connect: Callable[[], Replication], period: float) -> None:
        self._connect, self._period = connect, period
        self._inner = connect()
        self._slot = ""
        self._publications: tuple[str, ...] = ()
        self._begun = nothing
        self._taken = self._stored = self._aside = self._goal = self._seen = 0
        self._inside = self._behind = False
        self._commits = 0
        self._since = self._start = self._due = self._never_before = self._last = 0.0

    @property
    def rested(self) -> bool:
        """Whether nothing more comes before the rest is over."""
        return self._due > 0

    def identify(self) -> Identity:
        """Which server answers here."""
        return self._inner.identify()

    def history(self, timeline: int) -> tuple[tuple[int, int], ...]:
        """(timeline, where it was left) of all that came before this one."""
        return self._inner.history(timeline)

    def start(self, slot: str, publications: Sequence[str], position: int, begun: Begun = nothing) -> None:
        """Begin to receive. `begun` is called at each beginning, when nobody else can move the slot any more."""
        self._slot, self._publications, self._begun = slot, tuple(publications), begun
        self._taken = self._stored = position
        self._begin()

    def _begin(self) -> None:
        self._start = time.monotonic()
        self._goal = parse_lsn(self._inner.identify().position)
        self._inner.start(self._slot, self._publications, self._taken, self._begun, stored=self._stored)
        self._behind, self._inside = True, False

    def receive(self, seconds: float) -> Iterator[Frame | Alive]:
        """What is there, or comes within `seconds`. Raises SqlError."""
        if self._due:
            left = self._due - time.monotonic()
            if left > 0:
                time.sleep(min(seconds, left))
                return
            self._inner = self._connect()
            self._due = 0.0
            self._begin()
            self._inner.confirm(self._stored)
        for message in self._inner.receive(seconds):
            if isinstance(message, Alive):
                self._seen = max(self._seen, message.lsn)
            elif not self._take(message):
                continue
            yield message
        if not self._inside and max(self._taken, self._seen) >= self._goal:
            self._caught_up()

    def _take(self, frame: Frame) -> bool:
        """False for a message outside of transactions that came before the last rest already."""
        kind = frame.payload[0]
        if kind == _BEGIN:
            self._inside = True
        elif kind == _COMMIT:
            self._inside = False
            self._commits += 1
            self._taken = int.from_bytes(frame.payload[_COMMIT_END])
        elif kind == _MESSAGE and not frame.payload[1] & 1:
            if frame.lsn <= self._aside:
                return False
            self._aside = frame.lsn
        return True

    def _caught_up(self) -> None:
        """All that there was when the stream began is here: rest, if it is worth it."""
        now = time.monotonic()
        if self._behind:
            self._behind = False
            if now - self._start > _DEAR * self._period:
                self._never_before = now + _PERIODS_WITHOUT * self._period
        looked = now - self._since
        if looked < _LOOK * self._period:
            return
        many = self._commits >= MANY_COMMITS_A_SECOND * looked
        self._since, self._commits = now, 0
        if many and now >= self._never_before and not self._last:
            self._due = now + self._period
            self._inner.stop()
            self._inner.close()

    def hurry(self) -> bool:
        """No more rests. True as long as it is worth waiting for what came during the last one."""
        now = time.monotonic()
        if self._due:
            self._due, self._last = now, now
        elif not self._last:
            self._last = now
            return False
        return (self.rested or self._behind) and now - self._last < _LAST_SECONDS

    def confirm(self, lsn: int) -> None:
        """Everything up to here is stored for good: the server hears it now, or when the rest is over."""
        self._stored = max(self._stored, lsn)
        if not self._due:
            self._inner.confirm(lsn)

    def keep_alive(self) -> None:
        """Say that we live, if it is time; while the stream rests nobody asks."""
        if not self._due:
            self._inner.keep_alive()

    def close(self) -> None:
        """Close; idempotent. The server process ends, and the slot is free."""
        self._inner.close()
