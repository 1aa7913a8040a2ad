"""What can be reached from which base, and what lies between. Reads records only."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgkura.changes.covers import Cover, read_cover
from pgkura.changes.log import Log, Segment
from pgkura.core.errors import Unreachable
from pgkura.core.wal import lsn_text
from pgkura.replay.moments import Kind, Moment, time_text
from pgkura.replay.resolving import Base, bases_in, place_of
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository

# Of a window that has no end yet.
OPEN = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What one base leads to: positions and times, both included. `last` None where it is nothing but itself.

    unfit  why it leads nowhere
    """

    base: Base
    last: Segment | None
    unfit: str = ""

    @property
    def first_position(self) -> int:
        """The earliest prefix of the log that it leads to."""
        return self.base.after

    @property
    def last_position(self) -> int:
        """The latest one; before the first where there is none."""
        return self.last.name.end - 1 if self.last else self.base.after - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Moments of a living chain that no base leads to: what changed then is not in a log.

    since, until   positions, neither included: both can be reached. `until` OPEN: no base of after it yet. Where the
                   change came right after the first base, `since` is that base's own position, less one
    times          the same as times, as far as they are known ('' = now)
    before, after  bases at its ends
    """

    chain: str
    since: int
    until: int
    since_time: str
    until_time: str
    reason: str
    before: Base
    after: Base | None

    def holds(self, position: int) -> bool:
        """Whether a moment is in it."""
        return self.since < position < self.until

    @property
    def instead(self) -> str:
        """In words: its ends."""
        told = f"reachable: before it {lsn_text(self.since)} ({self.since_time})"
        if self.since < self.before.after:
            told = f"reachable: before it snapshot {self.before.manifest.id} itself, without --at"
        if self.until != OPEN:
            told += f"; after it {lsn_text(self.until)} ({self.until_time})"
        return told

    def as_json(self) -> dict[str, Any]:
        """One of `windows` of `timeline --json`, and `window` of a plan."""
        return {
            "chain": self.chain,
            "since": self.since_time,
            "since_lsn": lsn_text(self.since),
            "until": self.until_time,
            "until_lsn": "" if self.until == OPEN else lsn_text(self.until),
            "reason": self.reason,
        }


CHANGED = "tables were changed: exact again from the next base on"
CARRIED = "tables were changed: exact again from the next look on"
WAITING = "tables were changed: no base has been taken since"


def check_base(repo: Repository, log: Log, base: Base) -> Cover:
    """What is in the log for a base's shape. Raises Unreachable where the base cannot be gone on from."""
    if log.facts.left(base.timeline, base.after):
        raise Unreachable(
            f"snapshot {base.manifest.id} was taken on a server whose history was left",
            detail="it may have seen what the server that was promoted never had",
        )
    cover = read_cover(repo, log.facts.id, base.rows)
    if cover is None:
        raise Unreachable(
            f"snapshot {base.manifest.id} was taken while tables changed",
            detail="no look of the watcher's shows the tables as it has them",
        )
    if base.visible.xmin < cover.settled:
        raise Unreachable(
            f"snapshot {base.manifest.id} was taken while a transaction ran that is older than a table in the log",
            detail=f"transaction {base.visible.xmin} may have changed it, and the log would not have all of that",
        )
    return cover


def reach(repo: Repository, log: Log, base: Base) -> Reach:
    """A shape that is gone never comes back: transaction numbers are in its fingerprint."""
    try:
        check_base(repo, log, base)
    except Unreachable as unfit:
        return Reach(base=base, last=None, unfit=unfit.msg)
    if not log.names or log.names[-1].end <= base.after:
        return Reach(base=base, last=None)
    first = place_of(log, base.after)
    places = range(first, len(log.names))
    good = bisect_left(places, True, key=lambda p: log.at(p).poll.shape.rows != base.rows)
    return Reach(base=base, last=log.at(first + good - 1) if good else None)


def reaches(repo: Repository, log: Log, manifests: list[Manifest]) -> list[Reach]:
    """Of all bases of a chain, oldest first."""
    return [reach(repo, log, base) for base in bases_in(log, manifests)]


def windows(log: Log, found: Sequence[Reach]) -> list[Window]:
    """Between the first base and the end of the log. Where no base is yet there is no window, but nothing either."""
    made: list[Window] = []
    before: Reach | None = None
    for one in sorted((r for r in found if not r.unfit), key=lambda r: r.first_position):
        if one.last is None and before is not None:
            continue  # it lies in the window that the base before it leads up to
        if before is not None and one.first_position > before.last_position + 1:
            made.append(_window(log, before, one))
        if before is None or one.last_position > before.last_position:
            before = one
    if before is not None and log.names and before.last_position + 1 < log.facts.end:
        made.append(_window(log, before, None))
    return made


def _window(log: Log, before: Reach, after: Reach | None) -> Window:
    until = ""
    if after is not None:
        until = time_text(after.base.time) if after.base.time else after.base.manifest.created
    return Window(
        chain=log.facts.id,
        since=before.last_position,
        until=OPEN if after is None else after.first_position,
        since_time=time_text(before.last.known) if before.last else before.base.manifest.created,
        until_time=until,
        reason=WAITING if after is None else CHANGED,
        before=before.base,
        after=after.base if after is not None else None,
    )


def guess(log: Log, moment: Moment) -> int | None:
    """About where a moment lies that a chain does not hold; None where nobody can say."""
    if moment.kind is Kind.LSN:
        return moment.number
    if moment.kind is Kind.TIME and log.names:
        return OPEN if moment.number > log.at(len(log.names) - 1).known else log.facts.start
    return None


def nearest(found: Sequence[Reach], position: int | None) -> str:
    """In words: the nearest moments before and after that can be reached; without a position, the newest ones."""
    good = sorted((r for r in found if r.last is not None), key=lambda r: r.first_position)
    if not good:
        alone = [r.base.manifest.id for r in found]
        if alone:
            return f"reachable: snapshot {alone[-1]} itself, without --at"
        return "`pgkura backup` makes a base: moments after it can be reached"
    if position is None:
        last = max(good, key=lambda r: r.last_position)
        return f"reachable: {_first(last)} to {_last(last)}, from snapshot {last.base.manifest.id}"
    told = []
    if before := [r for r in good if r.last_position < position]:
        told.append(f"before it {_last(max(before, key=lambda r: r.last_position))}")
    if after := [r for r in good if r.first_position > position]:
        told.append(f"after it {_first(min(after, key=lambda r: r.first_position))}")
    return "reachable: " + ("; ".join(told) or f"{_first(good[-1])} to {_last(good[-1])}")


def _first(one: Reach) -> str:
    when = time_text(one.base.time) if one.base.time else one.base.manifest.created
    return f"{lsn_text(one.first_position)} ({when})"


def _last(one: Reach) -> str:
    when = time_text(one.last.known) if one.last else one.base.manifest.created
    return f"{lsn_text(one.last_position)} ({when})"
