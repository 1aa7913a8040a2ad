"""Positions, snapshots and numbers of transactions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.core.wal import Visible, lsn_text, parse_lsn

XIDS = st.integers(3, 1 << 40)


@given(st.integers(0, (1 << 64) - 1))
def test_positions_read_back(lsn: int) -> None:
    """As the server writes them."""
    assert parse_lsn(lsn_text(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "1", "1/", "/1", "1/G", "123456789/0", "0/1 "])
def test_what_is_no_position(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="position"):
        parse_lsn(text)


@pytest.mark.parametrize("text", ["", "1:2", "5:3:", "1:9:9", "5:9:4", "a:b:c", "1:2:,"])
def test_what_is_no_snapshot(text: str) -> None:
    """Running transactions lie between its ends."""
    with pytest.raises(ValueError, match="snapshot"):
        Visible.parse(text)


@given(XIDS, st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_widening_across_epochs(xmax: int, distance: int) -> None:
    """A transaction near a snapshot has one number of 64 bits."""
    xid = xmax + distance
    if xid >= 3:
        assert Visible(xmin=xmax, xmax=xmax).widen(xid & 0xFFFFFFFF) == xid


@given(st.integers(3, 40), st.integers(0, 12), st.sets(st.integers(3, 60)), st.integers(3, 40), st.integers(0, 12))
def test_one_snapshot_sees_all_of_another(a: int, wide: int, running: set[int], b: int, other: int) -> None:
    """By its definition."""
    one = Visible(xmin=a, xmax=a + wide, running=frozenset(x for x in running if a <= x < a + wide))
    two = Visible(xmin=b, xmax=b + other, running=frozenset(x for x in running if b <= x < b + other))
    all_of_two = all(one.sees(x) for x in range(70) if two.sees(x))
    if one.sees_all_of(two):
        assert all_of_two
    elif all_of_two:
        assert all(not one.sees(x) or two.xmax > one.xmax for x in range(one.xmax, 70))
