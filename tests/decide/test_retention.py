"""Which snapshots stay: properties of the decider over random histories and rules, and a few days told by hand."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.repository.manifest import SKEW, new_id
from pgkura.repository.retention import Candidate, Rules, Verdict, judge

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    """Up to 40 snapshots of up to 3 databases in three years, some of them dated later than now."""
    minutes = draw(st.lists(st.integers(-2 * 24 * 60, 3 * 365 * 24 * 60), max_size=40, unique=True))
    return [
        Candidate(
            id=new_id(NOW - timedelta(minutes=m), None),
            database=draw(st.sampled_from("abc")),
            taken=NOW - timedelta(minutes=m),
            complete=draw(st.booleans()),
            proven=draw(st.booleans()),
            locked=draw(st.sampled_from(("", "", "2026-12-24T00:00:00Z"))),
        )
        for m in minutes
    ]


counts = st.integers(0, 5)
some_rules = st.builds(
    Rules,
    last=counts,
    hourly=counts,
    daily=counts,
    weekly=counts,
    monthly=counts,
    yearly=counts,
    within=st.integers(0, 400).map(lambda d: timedelta(days=d)),
).filter(lambda r: r.given)


def kept(verdicts: list[Verdict]) -> set[str]:
    """Ids."""
    return {v.id for v in verdicts if v.keep}


@given(histories(), some_rules)
def test_what_never_goes(history: list[Candidate], rules: Rules) -> None:
    """Of each database the newest, the newest complete, the newest proven; what is locked or dated in the future."""
    verdicts = judge(history, rules, NOW)
    stays = kept(verdicts)
    locked = {c.id for c in history if c.locked}
    assert {v.id for v in verdicts if "locked until 2026-12-24T00:00:00Z" in v.reasons} == locked <= stays
    past = defaultdict(list)
    for one in sorted(history, key=lambda c: c.taken):
        if one.taken > NOW + SKEW:
            assert one.id in stays
        else:
            past[one.database].append(one)
    for those in past.values():
        assert those[-1].id in stays
        for part in ([c for c in those if c.complete], [c for c in those if c.proven]):
            assert not part or part[-1].id in stays


@given(histories(), some_rules)
def test_everyone_gets_one_verdict(history: list[Candidate], rules: Rules) -> None:
    """Oldest first, each once, in whatever order they come."""
    verdicts = judge(history, rules, NOW)
    assert [v.id for v in verdicts] == sorted(c.id for c in history)
    assert verdicts == judge(list(reversed(history)), rules, NOW)


@given(histories(), some_rules, some_rules)
def test_more_rules_keep_more(history: list[Candidate], one: Rules, other: Rules) -> None:
    """What a rule keeps, larger numbers keep too."""
    both = Rules(
        last=max(one.last, other.last),
        hourly=max(one.hourly, other.hourly),
        daily=max(one.daily, other.daily),
        weekly=max(one.weekly, other.weekly),
        monthly=max(one.monthly, other.monthly),
        yearly=max(one.yearly, other.yearly),
        within=max(one.within, other.within),
    )
    assert kept(judge(history, one, NOW)) | kept(judge(history, other, NOW)) <= kept(judge(history, both, NOW))


@given(histories(), some_rules)
def test_databases_do_not_meet(history: list[Candidate], rules: Rules) -> None:
    """Each is judged as if it were alone."""
    apart = [judge([c for c in history if c.database == d], rules, NOW) for d in "abc"]
    assert {v.id: v.reasons for some in apart for v in some} == {v.id: v.reasons for v in judge(history, rules, NOW)}


@given(histories(), some_rules)
def test_pruning_twice_is_pruning_once(history: list[Candidate], rules: Rules) -> None:
    """What stayed, stays: the verdict does not depend on those that are gone."""
    once = kept(judge(history, rules, NOW))
    assert kept(judge([c for c in history if c.id in once], rules, NOW)) == once


@given(histories(), st.integers(1, 5))
def test_last_counts(history: list[Candidate], number: int) -> None:
    """`last N` alone: the newest N, and nothing else without another word for it."""
    verdicts = judge([c for c in history if c.database == "a"], Rules(last=number), NOW)
    past = [v for v in verdicts if "dated in the future" not in v.reasons]
    assert all("last" in v.reasons for v in past[-number:])
    assert all("last" not in v.reasons for v in past[:-number])


def test_no_rule_is_an_error() -> None:
    """It would otherwise read as "remove everything"."""
    with pytest.raises(ValueError, match="no rule"):
        judge([], Rules(), NOW)


def test_thirty_days_by_hand() -> None:
    """Two a day for sixty days: 7 dailies are the evening ones, 3 weeklies the Sundays' (or newest), 2 monthlies."""
    days = [NOW.replace(hour=h) - timedelta(days=d) for d in range(60) for h in (1, 11)]
    history = [Candidate(id=new_id(t, None), database="a", taken=t, complete=True, proven=False) for t in days]
    verdicts = judge(history, Rules(daily=7, weekly=3, monthly=2), NOW)
    stays = sorted(c.taken for c in history if c.id in kept(verdicts))
    assert [f"{t:%m-%d %H}" for t in stays] == [
        "10-31 11", "11-15 11", "11-19 11", "11-20 11", "11-21 11", "11-22 11", "11-23 11", "11-24 11", "11-25 11",
    ]  # fmt: skip
