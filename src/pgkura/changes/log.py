"""A chain read back: what its segments tell, and their messages in commit order, each transaction once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgkura.changes import pgoutput
from pgkura.changes.chains import covered
from pgkura.changes.segment import frames
from pgkura.core.errors import Tampered
from pgkura.core.wal import Visible, lsn_text, parse_lsn
from pgkura.postgres.shape import Shape
from pgkura.repository.changes import END, HEAD, MOVED, START, PartRef, SegmentName
from pgkura.repository.repository import Repository

# Microseconds that may pass between a commit's own time and its place in the log.
A_HAIR = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPoll:
    """How the source looked after the last commit of a segment. `after`: a position behind all it saw, 0 = not told."""

    position: int
    visible: str
    time: int
    shape: Shape
    after: int = 0

    def widen(self, xid: int) -> int:
        """The 64-bit number of a transaction of the segment."""
        return Visible.parse(self.visible).widen(xid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What a segment tells of itself. `tables`: schema, name, inserts, updates, deletes, truncates.

    ddl  messages about changes of definitions
    """

    name: SegmentName
    transactions: int
    changes: int
    first_time: int
    last_time: int
    min_xid: int
    max_xid: int
    top_xid: int
    top_time: int
    tables: tuple[tuple[str, str, int, int, int, int], ...]
    poll: SegmentPoll
    sequences: tuple[tuple[str, str, int], ...]
    parts: tuple[tuple[PartRef, int], ...]
    rest_bytes: int
    rest_plain: int
    ddl: int = 0
    counted: dict[str, Any] | None = None

    @property
    def known(self) -> int:
        """Until when the log up to here surely holds every commit: times are taken before commits are written.

        The look may be far ahead of what was received; only where it is not does its time count.
        """
        looked = self.poll.time if self.poll.position <= self.name.end else 0
        return max(self.last_time, looked) - A_HAIR

    @property
    def bytes(self) -> int:
        """Sealed messages."""
        return self.rest_bytes + sum(ref.bytes for ref, _ in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFacts:
    """A chain as its records and the names of its segments tell it.

    ended    why, '' while it may go on
    timeline of its beginning; moves: later ones, and where the one before was left
    end      how far it goes without a gap; missing: where a segment is not in the store although later ones are
    """

    id: str
    system: str
    database: str
    slot: str
    start: int
    end: int
    began: str
    ended: str
    ended_at: str
    missing: str = ""
    timeline: int = 0
    moves: tuple[tuple[int, int], ...] = ()

    def left(self, timeline: int, position: int) -> bool:
        """Whether something at this place of an earlier history is no part of the one that was gone on with."""
        return any((timeline or self.timeline) < later and position > at for later, at in self.moves)


def read_chain(repo: Repository, chain: str) -> ChainFacts | None:
    """None for one that never began."""
    head, start, end = (repo.chain_record(chain, name) for name in (HEAD, START, END))
    if head is None or start is None:
        return None
    position = parse_lsn(start["position"])
    names = repo.segments(chain)
    until = covered(position, names)
    return ChainFacts(
        id=chain,
        system=head["system"],
        database=head["database"],
        slot=head["slot"],
        start=position,
        end=until,
        began=start["began"],
        ended=end["reason"] if end else "",
        ended_at=end["ended"] if end else "",
        missing=lsn_text(until) if any(n.end > until for n in names) else "",
        timeline=int(start["timeline"]),
        moves=_moves(repo, chain),
    )


def _moves(repo: Repository, chain: str) -> tuple[tuple[int, int], ...]:
    records = (repo.chain_record(chain, name) for name in repo.chain_names(chain, MOVED))
    return tuple((int(r["timeline"]), parse_lsn(r["left"])) for r in records if r is not None)


class Log:
    """One chain's segments."""

    def __init__(self, repo: Repository, facts: ChainFacts) -> None:
        self._repo = repo
        self.facts = facts
        end = facts.end
        self.names = [n for n in repo.segments(facts.id) if n.end <= end]
        self._known: dict[SegmentName, Segment] = {}

    def segment(self, name: SegmentName) -> Segment:
        """Its record. Raises Tampered."""
        if name not in self._known:
            self._known[name] = self._read(name)[0]
        return self._known[name]

    def at(self, place: int) -> Segment:
        """By its place in `names`."""
        return self.segment(self.names[place])

    def _read(self, name: SegmentName) -> tuple[Segment, bytes]:
        record, rest = self._repo.segment(self.facts.id, name)
        what = name.key(self.facts.id)
        try:
            made = _decode(record, name)
        except (KeyError, TypeError, ValueError) as error:
            raise Tampered(f"{what} is damaged", detail=f"not a segment's record: {type(error).__name__}") from error
        if record["chain"] != self.facts.id or len(rest) != made.rest_bytes:
            raise Tampered(f"{what} contradicts itself", detail="it is of another chain, or cut short")
        return made, rest

    def messages(self, first: int, last: int) -> Iterator[bytes]:
        """Messages of the segments at these places, both included: whole transactions, each once, in commit order."""
        position = 0
        for name in self.names[first : last + 1]:
            skip = False
            for payload in self._plain(name):
                kind = payload[0]
                if kind == pgoutput.BEGIN:
                    skip = pgoutput.begin(payload).lsn < position
                elif kind == pgoutput.COMMIT and not skip:
                    position = pgoutput.commit(payload).end
                if not skip or kind == pgoutput.RELATION:
                    yield payload

    def _plain(self, name: SegmentName) -> Iterator[bytes]:
        segment, rest = self._read(name)
        what = name.key(self.facts.id)

        def pieces() -> Iterator[bytes]:
            for ref, plain in segment.parts:
                yield from self._repo.open_messages(self._repo.part(self.facts.id, ref), what, limit=plain)
            if rest:
                yield from self._repo.open_messages(rest, what, limit=segment.rest_plain)

        for _, payload in frames(pieces()):
            yield payload


def _decode(record: dict[str, Any], name: SegmentName) -> Segment:
    if (parse_lsn(record["start"]), parse_lsn(record["end"])) != (name.start, name.end):
        raise ValueError("moved")
    poll = record["poll"]
    return Segment(
        name=name,
        transactions=record["transactions"],
        changes=record["changes"],
        first_time=record["first_time"],
        last_time=record["last_time"],
        min_xid=record["min_xid"],
        max_xid=record["max_xid"],
        top_xid=record["top_xid"],
        top_time=record["top_time"],
        tables=tuple((s, n, i, u, d, t) for s, n, i, u, d, t in record["tables"]),
        poll=SegmentPoll(
            position=parse_lsn(poll["position"]),
            visible=poll["visible"],
            time=poll["time"],
            shape=Shape(rows=poll["rows"], definitions=poll["definitions"]),
            after=parse_lsn(poll["after"]) if "after" in poll else 0,
        ),
        sequences=tuple((s, n, v) for s, n, v in record["sequences"]),
        parts=tuple((PartRef(id=p["id"], bytes=p["bytes"], sha256=p["sha256"]), p["plain"]) for p in record["parts"]),
        rest_bytes=record["rest"]["bytes"],
        rest_plain=record["rest"]["plain"],
        ddl=int(record.get("ddl", 0)),
        counted=record.get("counted"),
    )
