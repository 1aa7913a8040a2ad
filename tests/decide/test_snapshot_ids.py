"""Snapshot ids sort by time: `latest` is the newest, in one second and between clocks that differ a little."""

from datetime import UTC, datetime, timedelta

import pytest

from pgkura.repository.manifest import SKEW, dated, new_id, valid_id

NOON = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("microseconds", [0, 1, 2, 999_998, 999_999])
def test_a_microsecond_later_sorts_later(microseconds: int) -> None:
    first = NOON + timedelta(microseconds=microseconds)
    made = [new_id(first, None), new_id(first + timedelta(microseconds=1), None)]
    assert made == sorted(made) and all(valid_id(one) for one in made)
    assert dated(made[0]) == first


def test_many_in_one_instant_sort_as_they_were_made() -> None:
    made = [new_id(NOON, None)]
    for _ in range(1000):
        made.append(new_id(NOON, made[-1]))
    assert made == sorted(set(made))


@pytest.mark.parametrize(
    ("ahead", "sorts_after"),
    [(timedelta(seconds=1), True), (SKEW - timedelta(seconds=1), True), (SKEW + timedelta(seconds=1), False)],
)
def test_a_clock_behind_sorts_after_within_bounds(ahead: timedelta, sorts_after: bool) -> None:
    """A snapshot dated far in the future (a broken clock, a forged name) does not drag all later dates along."""
    newest = new_id(NOON + ahead, None)
    assert (new_id(NOON, newest) > newest) is sorts_after


def test_ids_of_random_digits_still_order() -> None:
    """Older repositories: digits beyond a second's microseconds are that second's end."""
    old = "20261124T120000Z-ffffff"
    assert dated(old) == NOON + timedelta(microseconds=999_999)
    assert new_id(NOON, old) > old
    assert new_id(NOON, "not an id") < old
