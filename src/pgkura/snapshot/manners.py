"""How much we may ask of the server, and for how long we may keep its past alive: decisions. Pure."""

from dataclasses import dataclass
from enum import StrEnum

# Rest that was not asked for (uploads, waiting for work) makes up for later work, but not for more than this.
CREDIT_SECONDS = 0.5


def pause_for(worked_seconds: float, share: float) -> float:
    """How long to rest after the server has worked so long for us, so that it works `share` of the time."""
    if share >= 1:
        return 0.0
    return worked_seconds * (1 - share) / share


def ahead_of(received: int, passed_seconds: float, bytes_per_second: int) -> float:
    """By how many seconds so many bytes came too early; negative when they are late. 0 = no limit."""
    if not bytes_per_second:
        return 0.0
    return received / bytes_per_second - passed_seconds


class Age(StrEnum):
    """What to say of a snapshot's age: nothing, that half of it is over, that it is over."""

    YOUNG = "young"
    HALF = "half"
    OVER = "over"


def age_of(seconds: float, limit: float) -> Age:
    """A snapshot of this age, of which at most `limit` seconds were meant."""
    if seconds >= limit:
        return Age.OVER
    return Age.HALF if seconds >= limit / 2 else Age.YOUNG


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What an old snapshot keeps from VACUUM.

    transactions  that began since the oldest one it may have to see (age of its xmin)
    dead          rows of this database that wait to be removed, whoever holds them
    """

    transactions: int
    dead: int


def age_told(seconds: float, limit: float, held: Held | None, *, ends: bool) -> str:
    """The sentence for people: while it is not over, what comes; then, what is."""
    cost = "it holds back VACUUM"
    if held is not None:
        cost += f": age(backend_xmin) is {held.transactions:,} transactions, {held.dead:,} dead rows wait"
    if age_of(seconds, limit) is Age.OVER:
        after = "; the backup goes on (--end-at-snapshot-age would end it)" if not ends else ""
        return f"the snapshot is {spoken(seconds)} old, {spoken(limit)} were meant; {cost}{after}"
    then = "the backup ends" if ends else "this is said again"
    return f"the snapshot is {spoken(seconds)} old; {cost}; at {spoken(limit)} {then}"


def spoken(seconds: float) -> str:
    """A duration in the largest unit that says it well."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.3g} s"
