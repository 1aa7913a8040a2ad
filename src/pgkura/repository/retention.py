"""Which snapshots stay. Pure: the same snapshots, rules and time give the same verdicts."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgkura.repository.manifest import SKEW


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How many to keep, for each database apart. 0 = the rule is not given.

    last    the newest N
    hourly … yearly   the newest of each of the last N hours (days, ISO weeks, months, years; UTC) that have one
    within  all not older than the newest one by more than this
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: timedelta = timedelta(0)

    @property
    def given(self) -> bool:
        """Whether any rule is."""
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return any(counts) or bool(self.within)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is known of one snapshot. `database` is whatever tells databases apart; `taken` is UTC.

    locked  until when the store keeps its files whoever wants them away, as a manifest writes it; '' = it does not
    """

    id: str
    database: str
    taken: datetime
    complete: bool
    proven: bool
    locked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Kept for these reasons, or (none) removed."""

    id: str
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def _week(t: datetime) -> str:
    year, week, _ = t.isocalendar()
    return f"{year:04d}-W{week:02d}"


_PERIODS: dict[str, Callable[[datetime], str]] = {
    "hourly": lambda t: t.strftime("%Y-%m-%d %Hh"),
    "daily": lambda t: t.strftime("%Y-%m-%d"),
    "weekly": _week,
    "monthly": lambda t: t.strftime("%Y-%m"),
    "yearly": lambda t: t.strftime("%Y"),
}


def judge(candidates: Iterable[Candidate], rules: Rules, now: datetime) -> list[Verdict]:
    """A verdict for each, oldest first. Raises ValueError without a rule: that would mean "remove all".

    Whatever the rules say, these stay: of each database the newest, the newest complete and the newest proven
    snapshot; what the store keeps locked; and those dated later than `now` by more than the clocks of two machines
    may differ (SKEW), which count for no rule.
    """
    if not rules.given:
        raise ValueError("no rule")
    databases: dict[str, list[Candidate]] = defaultdict(list)
    reasons: dict[str, list[str]] = {}
    for one in sorted(candidates, key=lambda c: c.id, reverse=True):
        reasons[one.id] = [f"locked until {one.locked}"] if one.locked else []
        if one.taken > now + SKEW:
            reasons[one.id].append("dated in the future")
        else:
            databases[one.database].append(one)
    for newest_first in databases.values():
        _judge_one(newest_first, rules, reasons)
    return [Verdict(id=i, reasons=tuple(reasons[i])) for i in sorted(reasons)]


def _judge_one(newest_first: Sequence[Candidate], rules: Rules, reasons: dict[str, list[str]]) -> None:
    """Add reasons to the snapshots of one database."""
    reasons[newest_first[0].id].append("newest")
    for word, those in (
        ("newest complete", (c for c in newest_first if c.complete)),
        ("newest proven", (c for c in newest_first if c.proven)),
    ):
        if (first := next(those, None)) is not None:
            reasons[first.id].append(word)
    for one in newest_first[: rules.last]:
        reasons[one.id].append("last")
    newest = max(c.taken for c in newest_first)
    for one in newest_first:
        if rules.within and newest - one.taken <= rules.within:
            reasons[one.id].append("within")
    for word, period in _PERIODS.items():
        seen: set[str] = set()
        for one in newest_first:
            name = period(one.taken)
            if name in seen:
                continue
            if len(seen) == getattr(rules, word):
                break
            seen.add(name)
            reasons[one.id].append(f"{word} {name}")
