"""From a moment to a place in a chain, and to the base that leads there. Reads records; messages only of the one
segment that a time or a transaction lies in."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pgkura.changes import pgoutput
from pgkura.changes.log import Log
from pgkura.core.errors import Unreachable
from pgkura.core.wal import Visible, lsn_text, parse_lsn
from pgkura.replay.moments import Kind, Moment, time_text
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """What is applied: commits up to position `last`, and of those only what `visible` sees, if given.

    place   of the last segment that is read
    judge   place of the segment whose look at the source came after all of it: it says which shape was valid
    """

    moment: Moment
    last: int
    place: int
    judge: int
    visible: Visible | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A snapshot from which a chain can be gone on with.

    after  a position behind everything it sees; time: the server's clock when that was read, 0 where nobody noted it
    """

    manifest: Manifest
    visible: Visible
    after: int
    time: int
    rows: str
    definitions: str
    timeline: int = 0


def bases_of(manifests: list[Manifest], chain: str) -> list[Base]:
    """Oldest first."""
    return [
        Base(
            manifest=m,
            visible=Visible.parse(m.snapshot),
            after=parse_lsn(m.log["after"]),
            time=int(m.log.get("time", 0)),
            rows=m.log["rows"],
            definitions=m.log["definitions"],
            timeline=int(m.log.get("timeline") or 0),
        )
        for m in manifests
        if m.log is not None and m.log["chain"] == chain
    ]


def bases_in(log: Log, manifests: list[Manifest]) -> list[Base]:
    """Those of a chain that it still holds everything for: a prune may have taken its older part away."""
    return [
        base
        for base in bases_of(manifests, log.facts.id)
        if base.after >= log.facts.start and base.visible.xmin > log.facts.cut_xid
    ]


def resolve(repo: Repository, log: Log, moment: Moment) -> Until:
    """Raises Unreachable when the chain does not hold the moment."""
    if not log.names:
        raise Unreachable("this chain has no segment yet", hint="let `pgkura watch` run")
    if log.facts.missing and moment.kind is Kind.LATEST:
        raise Unreachable(
            f"the segment that begins at {log.facts.missing} is missing in the store",
            detail="later ones are there: the newest moment is behind the gap",
        )
    by_kind: dict[Kind, Callable[[], Until]] = {
        Kind.LATEST: lambda: _prefix(log, moment, log.facts.end - 1),
        Kind.LSN: lambda: _position(log, moment),
        Kind.TIME: lambda: _time(log, moment),
        Kind.XID: lambda: _transaction(log, moment),
        Kind.BEFORE: lambda: _transaction(log, moment),
        Kind.MARK: lambda: _mark(repo, log, moment),
        Kind.SNAPSHOT: lambda: _snapshot(log, moment, moment.visible or Visible(xmin=0, xmax=0)),
    }
    return by_kind[moment.kind]()


def _prefix(log: Log, moment: Moment, last: int) -> Until:
    place = place_of(log, last)
    return Until(moment=moment, last=last, place=place, judge=place)


def place_of(log: Log, position: int) -> int:
    """Of the first segment that ends behind it, or of the last one."""
    return min(bisect_left(log.names, position + 1, key=lambda n: n.end), len(log.names) - 1)


def _position(log: Log, moment: Moment) -> Until:
    if not log.facts.start <= moment.number < log.facts.end:
        raise Unreachable(
            f"position {lsn_text(moment.number)} is not in this chain",
            detail=f"it holds {lsn_text(log.facts.start)} to {lsn_text(log.facts.end)}",
        )
    return _prefix(log, moment, moment.number)


def _time(log: Log, moment: Moment) -> Until:
    """The prefix before the first commit that is later. `top_time` ascends, whatever clocks did."""
    count = len(log.names)
    place = bisect_left(range(count), True, key=lambda p: log.at(p).top_time > moment.number)
    if place < count:
        for begin in _begins(log, place):
            if begin.time > moment.number:
                return _prefix(log, moment, begin.lsn - 1)
    known = log.at(count - 1).known
    if moment.number > known:
        raise Unreachable(
            f"the log is known up to {time_text(known)} only",
            detail=f"asked for was {time_text(moment.number)}",
            hint="let `pgkura watch` run, or use --at latest",
        )
    return _prefix(log, moment, log.facts.end - 1)


def _transaction(log: Log, moment: Moment) -> Until:
    count = len(log.names)
    xid = moment.number
    if xid < 1 << 32:  # as `xmin` of a row shows it
        xid = Visible.parse(log.at(count - 1).poll.visible).widen(xid)
    first = bisect_left(range(count), True, key=lambda p: log.at(p).top_xid >= xid)
    behind = 0
    for place in range(first, count):
        segment = log.at(place)
        visible = Visible.parse(segment.poll.visible)
        if segment.min_xid <= xid <= segment.max_xid:
            for begin in _begins(log, place):
                if visible.widen(begin.xid) == xid:
                    return _prefix(log, moment, begin.lsn - (moment.kind is Kind.BEFORE))
        # Whatever ended before a look at the source was committed before a position that was read after it.
        if not behind and visible.xmin > xid:
            behind = segment.poll.after
        if 0 < behind <= segment.name.end:
            break
    raise Unreachable(
        f"transaction {moment.number} is not in this chain",
        detail="it was rolled back, changed nothing that is logged, or was committed outside of it",
    )


def _mark(repo: Repository, log: Log, moment: Moment) -> Until:
    found = [m for m in marks(repo, log.facts.id) if m[0] == moment.text and log.facts.start <= m[1] < log.facts.end]
    if not found:
        raise Unreachable(f"no mark named {moment.text!r} in this chain", hint="`pgkura timeline` lists marks")
    if len(found) > 1:
        places = ", ".join(lsn_text(lsn) for _, lsn, _ in found)
        raise Unreachable(f"{len(found)} marks are named {moment.text!r}", hint=f"give a position: {places}")
    return _prefix(log, moment, found[0][1])


def marks(repo: Repository, chain: str) -> list[tuple[str, int, int]]:
    """(name, position of its commit, time) of all marks of a chain, oldest first."""
    records = (repo.chain_record(chain, name) for name in repo.chain_names(chain, "mark-"))
    return [(r["name"], parse_lsn(r["lsn"]), int(r["time"])) for r in records if r is not None]


def _snapshot(log: Log, moment: Moment, visible: Visible) -> Until:
    """All that it sees was committed before a position that was read after a look at the source that sees it all too.

    A position that was read before that look would not do: what was committed in between would be left out.
    """

    def seen(place: int) -> bool:
        return Visible.parse(log.at(place).poll.visible).sees_all_of(visible)

    count = len(log.names)
    first = bisect_left(range(count), True, key=seen)
    # A look that a crash of the server may have taken back tells no position.
    judge = next((p for p in range(first, count) if log.at(p).poll.after and seen(p)), count)
    if judge == count or log.at(judge).poll.after > log.facts.end:
        raise Unreachable(
            "the log is not yet known to hold everything that this snapshot sees",
            hint="let `pgkura watch` run a little longer",
        )
    place = place_of(log, log.at(judge).poll.after - 1)
    return Until(moment=moment, last=log.names[place].end - 1, place=place, judge=judge, visible=visible)


def _begins(log: Log, place: int) -> Iterator[pgoutput.Begin]:
    for payload in log.messages(place, place):
        if payload[0] == pgoutput.BEGIN:
            yield pgoutput.begin(payload)


def leads_to(base: Base, until: Until) -> bool:
    """Whether everything that the base sees belongs to the moment."""
    if until.visible is not None:
        return until.visible.sees_all_of(base.visible)
    return base.after <= until.last + 1


def choose_base(log: Log, bases: list[Base], until: Until) -> Base:
    """The newest that leads there with the shape that was valid there; of those, one with the definitions of there.

    Raises Unreachable.
    """
    bases = [b for b in bases if not log.facts.left(b.timeline, b.after)]
    before = [b for b in bases if leads_to(b, until)]
    judge = log.at(until.judge).poll
    fit = [b for b in before if b.rows == judge.shape.rows]
    if fit:
        return next((b for b in reversed(fit) if b.definitions == judge.shape.definitions), fit[-1])
    if not before:
        raise Unreachable("no base of this chain is as old as this moment")
    raise Unreachable(
        "tables were changed between the last base and this moment",
        detail=f"the look at {time_text(judge.time)} shows other tables or columns than snapshot "
        f"{before[-1].manifest.id} has",
    )


def first_place(log: Log, base: Base, last: int) -> int:
    """The first segment that may hold what the base does not see: behind everything of which it sees all."""
    place = min(place_of(log, base.after), last)
    while place > 0 and log.at(place - 1).top_xid >= base.visible.xmin:
        place -= 1
    return place
