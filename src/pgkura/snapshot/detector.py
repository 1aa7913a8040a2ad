"""What has to be read of a page range: the decision. Pure. The argument is docs/decisions/0004.

Everything here may only err towards reading more.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from pgkura.core.refs import Layer

# A frozen tuple keeps its xid; half of 2^31 leaves room for those that look newer than they are.
MAX_DISTANCE = 1 << 30


class Verdict(StrEnum):
    """quiet: nothing; grown: new rows; changed: new rows and the places of all; whole: everything."""

    QUIET = "quiet"
    GROWN = "grown"
    CHANGED = "changed"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where in the history of which server a state was taken.

    visible  pg_current_snapshot() as text: xmin:xmax:in progress, 64 bits each
    lsn      a WAL position as text
    started  when the server was started, as text
    """

    system: str
    timeline: str
    database: int
    visible: str
    lsn: str
    started: str

    @property
    def xmin(self) -> int:
        """The oldest transaction that was running: all before it had ended."""
        return int(self.visible.split(":")[0])

    @property
    def xmax(self) -> int:
        """The first transaction that had not begun."""
        return int(self.visible.split(":")[1])

    @property
    def horizon(self) -> tuple[int, int]:
        """xmin and xmax: of two snapshots of one history the later has more, though a long one may hold xmin."""
        return self.xmin, self.xmax

    @property
    def wal(self) -> int:
        """`lsn` as a number."""
        high, low = self.lsn.split("/")
        return (int(high, 16) << 32) | int(low, 16)


def why_not(before: Point, now: Point) -> str:
    """Why nothing that was remembered then can be believed now; '' when it can."""
    if (before.system, before.database) != (now.system, now.database):
        return "it is another database"
    if before.timeline != now.timeline:
        return "the server has changed its timeline (failover or recovery)"
    if before.started != now.started:
        return "the server was restarted: its data folder may be another one (a volume put back)"
    if now.wal < before.wal or now.xmin < before.xmin or now.xmax < before.xmax:
        return "the server has gone back in time"
    if now.xmax - before.xmin >= MAX_DISTANCE:
        return "more than a thousand million transactions have passed"
    return ""


def nothing_since(before: Point, now: Point) -> bool:
    """Whether no transaction has ended in between, in a history for which `why_not` knows no reason.

    Then exactly what was visible is visible, and need not be counted. A snapshot does not list a transaction that
    is younger than all that have ended; but the end of it, either way, raises xmax.
    """
    xmin, xmax, running = before.visible.split(":")
    return xmin == xmax and not running and now.visible == before.visible


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A page range as the last snapshot knew it.

    rows   that counted
    end    its first page no more, None = none
    since  the day on which it was last read whole, ISO
    """

    rows: int
    end: int | None
    since: str
    layers: tuple[Layer, ...]

    def covers(self, end: int | None, pages: int) -> bool:
        """Whether it held every tuple that a range from the same page to `end` can hold, in a heap of `pages` now.

        Only of such a range are the old tuples a subset of what is remembered.
        """
        return self.end is None or (pages if end is None else end) <= self.end

    @property
    def stored(self) -> int:
        """Rows in its chunks, those that do not count any more included."""
        return sum(layer.chunk.rows for layer in self.layers)

    @property
    def placed(self) -> bool:
        """Whether the place of every row is known; small tables are not worth it."""
        return all(layer.places is not None for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a range is read whole although its changes are known.

    share    rows stored in vain, of those that count
    layers   chunks of one range
    days     since it was last read whole
    """

    share: float = 0.5
    layers: int = 48
    days: int = 30


DEFAULT_POLICY = Policy()


def judge(before: Before, count: int, new: int, policy: Policy) -> Verdict:
    """`count` tuples are visible now, `new` of them have an xid from the last snapshot's xmin on."""
    old = count - new
    if new == 0 and old == before.rows:
        return Verdict.QUIET
    vain = before.stored + new - count
    if old > before.rows or not before.placed or vain > policy.share * count or not old:
        return Verdict.WHOLE
    if len(before.layers) >= policy.layers:
        return Verdict.WHOLE
    return Verdict.GROWN if old == before.rows else Verdict.CHANGED


def due(before: Before, today: date, start: int, policy: Policy) -> bool:
    """Whether it is time to read a range whole: the last quarter of the period is shared out by position."""
    age = (today - date.fromisoformat(before.since)).days
    return age >= policy.days * (0.75 + 0.25 * ((start * 2654435761) % 256) / 256)
