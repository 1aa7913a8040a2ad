"""A chain read back: what its segments tell, and their messages in commit order, each transaction once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain as joined
from typing import Any

from pgkura.changes import pgoutput
from pgkura.changes.messages import batches
from pgkura.changes.pgoutput import Parts
from pgkura.changes.places import Kept, Places
from pgkura.changes.segment import frames
from pgkura.changes.spans import cover, covered
from pgkura.core.errors import Tampered
from pgkura.core.wal import Visible, lsn_text, parse_lsn
from pgkura.postgres.shape import Shape
from pgkura.repository.bundles import BundleHead, BundleName, Cut, Entry, Run
from pgkura.repository.changes import END, HEAD, MOVED, START, PartRef, SegmentName
from pgkura.repository.repository import Repository

# Records of segments and of bundles that are held at once: a week has hundreds of thousands of segments.
_SEGMENTS, _BUNDLES, _NAMES = 8192, 3, 16
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
    start    where it begins; behind its beginning where a prune took away what was before, `cut_xid` being the highest
             transaction there
    timeline of its beginning; moves: later ones, and where the one before was left
    end      how far it goes without a gap; missing: where a segment is not in the store although later ones are
    runs     the files to read, of the same look at the store: a prune may delete others meanwhile
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
    cut_xid: int = 0
    timeline: int = 0
    moves: tuple[tuple[int, int], ...] = ()
    runs: tuple[Run, ...] = field(default=(), repr=False)

    def left(self, timeline: int, position: int) -> bool:
        """Whether something at this place of an earlier history is no part of the one that was gone on with."""
        return any((timeline or self.timeline) < later and position > at for later, at in self.moves)


def read_chain(repo: Repository, chain: str, *, whole: bool = False) -> ChainFacts | None:
    """None for one that never began, or that a prune takes away as a whole.

    `whole`: what was said to go is looked at too, as far as it is still there.
    """
    head, start, end = (repo.chain_record(chain, name) for name in (HEAD, START, END))
    if head is None or start is None or (not whole and repo.chain_gone(chain)):
        return None
    runs = repo.runs(chain)
    cut = _first_cut(repo, chain, parse_lsn(start["position"]), runs) if whole else repo.chain_cut(chain)
    position = parse_lsn(start["position"]) if cut is None else max(parse_lsn(start["position"]), cut.position)
    read = cover(position, runs)
    until = read[-1].end if read else position
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
        missing=lsn_text(until) if any(r.end > until for r in runs) else "",
        cut_xid=cut.top_xid if cut is not None else 0,
        timeline=int(start["timeline"]),
        moves=_moves(repo, chain),
        runs=tuple(read),
    )


def _first_cut(repo: Repository, chain: str, start: int, runs: Sequence[Run]) -> Cut | None:
    """The earliest beginning from which the log goes as far without a gap as from the latest; None = its own."""
    cuts = repo.chain_cuts(chain)
    until = covered(max((start, *(c.position for c in cuts))), runs)
    if covered(start, runs) == until:
        return None
    return next((cut for cut in cuts if covered(cut.position, runs) == until), None)


def _moves(repo: Repository, chain: str) -> tuple[tuple[int, int], ...]:
    records = (repo.chain_record(chain, name) for name in repo.chain_names(chain, MOVED))
    return tuple((int(r["timeline"]), parse_lsn(r["left"])) for r in records if r is not None)


class Log:
    """One chain's segments, whether each has a file of its own or lies in a bundle."""

    def __init__(self, repo: Repository, facts: ChainFacts) -> None:
        self._repo = repo
        self.facts = facts
        self.names = Places(facts.runs, self._names)
        self._segments: Kept[int, Segment] = Kept(_SEGMENTS)
        self._bundles: Kept[BundleName, tuple[Entry, ...]] = Kept(_BUNDLES)
        self._inside: Kept[BundleName, tuple[SegmentName, ...]] = Kept(_NAMES)
        self._body: tuple[PartRef | None, bytes] = (None, b"")

    def at(self, place: int) -> Segment:
        """The record of a segment, by its place in `names`. Raises Tampered."""
        return self._segments.get(place) or self._segments.put(place, self._record(place))

    def _entries(self, bundle: BundleName) -> tuple[Entry, ...]:
        return self._bundles.get(bundle) or self._bundles.put(bundle, self._repo.bundle(self.facts.id, bundle).entries)

    def _names(self, bundle: BundleName) -> tuple[SegmentName, ...]:
        return self._inside.get(bundle) or self._inside.put(bundle, tuple(e.name for e in self._entries(bundle)))

    def _record(self, place: int) -> Segment:
        run, inside = self.names.locate(place)
        if isinstance(run, SegmentName):
            return self._read(run)[0]
        entry = self._entries(run)[inside]
        return decode(entry.record, entry.name, self.facts.id, run.key(self.facts.id))

    def _read(self, name: SegmentName) -> tuple[Segment, bytes]:
        record, rest = self._repo.segment(self.facts.id, name)
        what = name.key(self.facts.id)
        made = decode(record, name, self.facts.id, what)
        if len(rest) != made.rest_bytes:
            raise Tampered(f"{what} contradicts itself", detail="it is cut short")
        return made, rest

    def _sealed(self, place: int) -> tuple[Segment, bytes, str]:
        run, inside = self.names.locate(place)
        if isinstance(run, SegmentName):
            return *self._read(run), run.key(self.facts.id)
        entry = self._entries(run)[inside]
        return self.at(place), self._out_of_body(entry), run.key(self.facts.id)

    def _out_of_body(self, entry: Entry) -> bytes:
        """A first look reads a part of the body; whoever reads on in it gets the whole."""
        if entry.body is None:
            return b""
        known, data = self._body
        if known != entry.body:
            self._body = (entry.body, b"")
            return self._repo.sealed_of(self.facts.id, entry)
        if not data:
            data = self._repo.body(self.facts.id, entry.body)
            self._body = (entry.body, data)
        return data[entry.offset : entry.offset + entry.size]

    def pieces(self, first: int, last: int) -> Iterator[tuple[int, int, BundleHead | None]]:
        """(first place, last place, what a bundle says of all of them together): None for a segment by itself."""
        place = first
        while place <= last:
            run, inside = self.names.locate(place)
            count = 1
            head: BundleHead | None = None
            if isinstance(run, BundleName) and not inside and place + run.count - 1 <= last:
                head, count = self._repo.bundle_head(self.facts.id, run), run.count
            yield place, place + count - 1, head
            place += count

    def size(self, first: int, last: int) -> int:
        """Sealed messages of the segments at these places."""
        return sum(self.at(p).bytes if head is None else head.bytes for p, _, head in self.pieces(first, last))

    def messages(self, first: int, last: int) -> Iterator[bytes]:
        """Messages of the segments at these places, both included: whole transactions, each once, in commit order."""
        position = 0
        for place in range(first, last + 1):
            skip = False
            for payload in self._plain(place):
                kind = payload[0]
                if kind not in pgoutput.ROWS:
                    if kind == pgoutput.BEGIN:
                        skip = pgoutput.begin(payload).lsn < position
                    elif kind == pgoutput.COMMIT and not skip:
                        position = pgoutput.commit(payload).end
                if not skip or kind == pgoutput.RELATION:
                    yield payload

    def changes(self, place: int) -> Iterator[bytes | Parts]:
        """All messages of one segment in order, changes of rows taken apart: cheaper than one by one. Raises Tampered.

        Where a segment goes on behind the end of one before, it begins with transactions that were told already.
        """
        segment, rest, what = self._sealed(place)
        return joined.from_iterable(batches(_pieces(self._repo, self.facts.id, segment, rest, what)))

    def _plain(self, place: int) -> Iterator[bytes]:
        segment, rest, what = self._sealed(place)
        return plain_messages(self._repo, self.facts.id, segment, rest, what)


def plain_messages(repo: Repository, chain: str, segment: Segment, rest: bytes, what: str) -> Iterator[bytes]:
    """All messages of a segment as they came. Raises Tampered, WrongKey without the identity."""
    for _, payload in frames(_pieces(repo, chain, segment, rest, what)):
        yield payload


def _pieces(repo: Repository, chain: str, segment: Segment, rest: bytes, what: str) -> Iterator[bytes]:
    for ref, plain in segment.parts:
        yield from repo.open_messages(repo.part(chain, ref), what, limit=plain)
    if rest:
        yield from repo.open_messages(rest, what, limit=segment.rest_plain)


def decode(record: Mapping[str, Any], name: SegmentName, chain: str, what: str) -> Segment:
    """A segment's record. Raises Tampered."""
    try:
        made = _decode(record, name)
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered(f"{what} is damaged", detail=f"not a segment's record: {type(error).__name__}") from error
    if record["chain"] != chain:
        raise Tampered(f"{what} contradicts itself", detail="it is of another chain")
    return made


def _decode(record: Mapping[str, Any], name: SegmentName) -> Segment:
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
