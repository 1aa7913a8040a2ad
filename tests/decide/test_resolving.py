"""Where a moment lies in a chain: what a look at the source knows, and what it does not."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import pytest

from pgkura.changes.log import A_HAIR, ChainFacts, Log, Segment, SegmentPoll
from pgkura.core.errors import Unreachable
from pgkura.core.wal import EPOCH_2000
from pgkura.postgres.shape import Shape
from pgkura.replay.moments import parse_moment, time_text
from pgkura.replay.resolving import resolve
from pgkura.repository.changes import SegmentName
from pgkura.repository.repository import Repository

NOBODY = cast(Repository, None)
S = 1_000_000  # a second
EPOCH = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    """A transaction."""

    lsn: int
    xid: int
    time: int


class Chain:
    """What resolving asks of a Log: segments of one transaction each."""

    def __init__(self, *segments: tuple[One, SegmentPoll]) -> None:
        self._ones = [one for one, _ in segments]
        self._segments: list[Segment] = []
        start = top_xid = top_time = 0
        for one, poll in segments:
            top_xid, top_time = max(top_xid, one.xid), max(top_time, one.time)
            self._segments.append(segment(SegmentName(start, one.lsn + 8), one, poll, top_xid, top_time))
            start = one.lsn + 8
        self.names = [s.name for s in self._segments]
        self.facts = ChainFacts(
            id="c", system="1", database="d", slot="s", start=0, end=start, began="", ended="", ended_at=""
        )

    def at(self, place: int) -> Segment:
        """As Log does."""
        return self._segments[place]

    def messages(self, first: int, last: int) -> Iterator[bytes]:
        """As Log does."""
        for one in self._ones[first : last + 1]:
            yield b"B" + struct.pack("!QqI", one.lsn, one.time - EPOCH_2000, one.xid & 0xFFFFFFFF)

    def find(self, moment: str) -> int:
        """The last position that belongs to a moment."""
        return resolve(NOBODY, cast(Log, self), parse_moment(moment)).last


def segment(name: SegmentName, one: One, poll: SegmentPoll, top_xid: int, top_time: int) -> Segment:
    """Of one transaction."""
    return Segment(
        name=name,
        transactions=1,
        changes=1,
        first_time=one.time,
        last_time=one.time,
        min_xid=one.xid,
        max_xid=one.xid,
        top_xid=top_xid,
        top_time=top_time,
        tables=(),
        poll=poll,
        sequences=(),
        parts=(),
        rest_bytes=1,
        rest_plain=1,
    )


def look(position: int, visible: str, *, after: int = 0, time: int = 0) -> SegmentPoll:
    """At the source."""
    return SegmentPoll(
        position=position, visible=visible, time=time, shape=Shape(rows="r", definitions="d"), after=after
    )


def test_a_watcher_that_is_behind_knows_no_time_of_now() -> None:
    """It looked at the source as it is, and has received what was committed an hour before: no time in between."""
    behind = Chain((One(lsn=100, xid=10, time=50 * S), look(9_000, "500:500:", after=9_000, time=3650 * S)))
    assert behind.at(0).known == 50 * S - A_HAIR
    with pytest.raises(Unreachable, match="known up to"):
        behind.find(time_text(3600 * S))
    even = Chain((One(lsn=100, xid=10, time=50 * S), look(108, "11:11:", after=108, time=3650 * S)))
    assert even.find(time_text(3600 * S)) == even.facts.end - 1


def test_what_is_committed_during_a_look_is_not_left_out() -> None:
    """12 is committed behind the look's position and before its snapshot, when somebody else took his."""
    chain = Chain(
        (One(lsn=100, xid=10, time=1 * S), look(108, "14:14:", after=230)),
        (One(lsn=200, xid=12, time=2 * S), look(220, "14:14:", after=230)),
        (One(lsn=300, xid=14, time=3 * S), look(310, "15:15:", after=320)),
    )
    last = chain.find("snapshot 13:13:")
    assert 200 <= last < chain.facts.end
    early = Chain((One(lsn=100, xid=10, time=1 * S), look(108, "14:14:", after=230)))
    with pytest.raises(Unreachable, match="not yet known"):
        early.find("snapshot 13:13:")


def test_a_look_that_a_crash_may_take_back_judges_nothing() -> None:
    """It has no position of its own; the next look does."""
    chain = Chain(
        (One(lsn=100, xid=10, time=1 * S), look(150, "20:20:")),
        (One(lsn=200, xid=12, time=2 * S), look(208, "13:13:", after=208)),
        (One(lsn=300, xid=15, time=3 * S), look(308, "16:16:", after=308)),
    )
    until = resolve(NOBODY, cast(Log, chain), parse_moment("snapshot 13:13:"))
    assert until.judge == 1


def test_a_long_transaction_is_found_where_it_was_committed() -> None:
    """Every look says how far the server was, not how far the log was: 10 ended long before the look behind 12."""
    chain = Chain(
        (One(lsn=100, xid=11, time=1 * S), look(5_000, "10:40:10", after=5_000)),
        (One(lsn=6_000, xid=12, time=2 * S), look(9_000, "50:50:", after=9_000)),
        (One(lsn=7_000, xid=10, time=3 * S), look(9_100, "50:50:", after=9_100)),
        (One(lsn=9_200, xid=51, time=4 * S), look(9_300, "60:60:", after=9_300)),
    )
    assert chain.find("xid 10") == 7_000
    assert chain.find("before xid 10") == 6_999
    with pytest.raises(Unreachable, match="not in this chain"):
        chain.find("xid 13")


def test_transactions_across_an_epoch() -> None:
    """Numbers of 32 bits begin anew: each is the one near its own segment's look."""
    a, b, c = EPOCH - 2, EPOCH + 3, EPOCH + 4
    chain = Chain(
        (One(lsn=100, xid=a, time=1 * S), look(108, f"{a + 1}:{a + 1}:", after=108)),
        (One(lsn=200, xid=b, time=2 * S), look(208, f"{b + 1}:{b + 1}:", after=208)),
        (One(lsn=300, xid=c, time=3 * S), look(308, f"{c + 1}:{c + 1}:", after=308)),
    )
    for xid, lsn in ((a, 100), (b, 200), (c, 300)):
        assert chain.find(f"xid {xid}") == lsn
        assert chain.find(f"xid {xid & 0xFFFFFFFF}") == lsn
    until = resolve(NOBODY, cast(Log, chain), parse_moment(f"snapshot {b}:{c}:{b}"))
    assert until.visible is not None and until.visible.sees(until.visible.widen(a & 0xFFFFFFFF))
    assert not until.visible.sees(until.visible.widen(b & 0xFFFFFFFF))
