"""When a watcher has a base taken: after tables or definitions changed, or where a chain has none that fits.

A base is an ordinary backup, which reads only what changed. Whoever takes it does so beside the watcher, which goes on
receiving. Migrations are waited out, and a database whose tables change all the time is not backed up all the time.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from pgkura.changes.chains import Chain
from pgkura.core.errors import PgkuraError
from pgkura.core.wal import Visible
from pgkura.postgres.shape import Poll, Shape

# A change is waited out, but not for ever: so many times the quiet that is wanted.
_PATIENCE = 6
# A base may take a quarter of the time; and each one within an hour doubles the pause, up to this.
_REST, _LONGEST_PAUSE, _RECENT = 3, 900.0, 3600.0
# Whether somebody has made the first backup meanwhile.
_ASK_AGAIN = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A base that fits: a snapshot of this chain's database with this shape."""

    chain: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTaken:
    """A snapshot. `shape` None: it is no base, since it could not read everything at one instant.

    made  by us; else somebody's backup was there already
    """

    snapshot: str
    shape: Shape | None
    made: bool


class BaseTaker(Protocol):
    """Takes bases beside the watcher, one at a time."""

    def take(self, wanted: Wanted) -> "Future[BaseTaken | None]":
        """The one that is there, or a new one. None: this database was never backed up, and the first is not ours."""
        ...

    def stop(self) -> None:
        """End what runs; what it stored stays."""
        ...


@dataclass(slots=True, kw_only=True)
class Schedule:
    """Decides. Pure: whoever asks brings the time.

    after     seconds without a change after which a base is taken; 0 = never
    have      shape of the newest base that is known
    since     when the present shape was first seen; first: since when no base fits
    none      nobody had backed this database up when that was asked
    """

    after: float
    seen: Shape | None = None
    have: Shape | None = None
    since: float = 0.0
    first: float = 0.0
    not_before: float = 0.0
    none: bool = False
    starts: list[float] = field(default_factory=list)

    def look(self, shape: Shape, now: float) -> bool:
        """What the source looks like now. True if it has changed."""
        if shape == self.seen:
            return False
        if self.seen == self.have:
            self.first = now
        changed = self.seen is not None
        if self.none:
            self.none, self.not_before = False, now
        self.seen, self.since = shape, now
        return changed

    def due(self, now: float) -> bool:
        """Whether to take a base now."""
        if not self.after or self.seen is None or self.seen == self.have or now < self.not_before:
            return False
        return now - self.since >= self.after or now - self.first >= _PATIENCE * self.after

    def ended(self, shape: Shape | None, *, began: float, now: float) -> None:
        """A base was taken, or could not be."""
        self.have = shape
        self.first = now
        self.starts = [t for t in self.starts if now - t < _RECENT] + [began]
        pause = min(self.after * 2 ** (len(self.starts) - 1), _LONGEST_PAUSE)
        self.not_before = now + max(pause, _REST * (now - began))

    def found(self, shape: Shape | None, *, now: float) -> None:
        """Somebody's backup is the base; None: there is none yet, and it is not ours to make."""
        self.have, self.none = shape, shape is None
        if shape is None:
            self.not_before = now + _ASK_AGAIN


class Rebasing:
    """A watcher's bases, over all its connections and chains."""

    def __init__(self, taker: BaseTaker | None, after: float, note: Callable[[str], None]) -> None:
        self._taker, self._note = taker, note
        self._schedule = Schedule(after=after if taker is not None else 0.0)
        self._chain = ""
        self._running: Future[BaseTaken | None] | None = None
        self._began = 0.0
        self._waiting = 0
        self.taken = 0

    def tend(self, chain: Chain, seen: Poll, now: float) -> None:
        """After each look: take note of it, begin what is due, hear of what has ended. Never waits."""
        schedule = self._schedule
        if chain.id != self._chain:
            self._chain, schedule.have = chain.id, None
        if schedule.look(seen.shape, now) and schedule.after:
            self._note(f"tables or definitions changed: a base is taken once {schedule.after:g} s passed without that")
        if self._running is not None:
            if self._running.done():
                self._hear(self._running, now)
                self._running = None
            return
        if self._taker is None or not schedule.due(now) or not self._settled(chain, seen):
            return
        self._began = now
        self._running = self._taker.take(Wanted(chain=chain.id, shape=seen.shape))

    def _settled(self, chain: Chain, seen: Poll) -> bool:
        """A base that is taken before old transactions end could not be gone on from."""
        oldest = Visible.parse(seen.visible).xmin
        if oldest >= chain.settled:
            return True
        if self._waiting != oldest:
            self._waiting = oldest
            self._note(f"the base waits for transaction {oldest}, which is older than a table in the log")
        return False

    def _hear(self, done: "Future[BaseTaken | None]", now: float) -> None:
        schedule = self._schedule
        try:
            base = done.result()
        except PgkuraError as error:
            schedule.ended(None, began=self._began, now=now)
            why = f" ({error.detail})" if error.detail else ""
            self._note(f"no base was taken: {error.msg}{why}; it is tried again")
            return
        if base is None:
            schedule.found(None, now=now)
            self._note("no base yet: `pgkura backup` makes the first; later ones are taken here")
        elif not base.made:
            schedule.found(base.shape, now=now)
        else:
            schedule.ended(base.shape, began=self._began, now=now)
            self.taken += base.shape is not None
            told = "moments from it on can be restored" if base.shape else "it is no base: it is tried again"
            self._note(f"snapshot {base.snapshot} was taken after the change: {told}")

    def stop(self) -> None:
        """End what runs."""
        if self._taker is not None:
            self._taker.stop()
