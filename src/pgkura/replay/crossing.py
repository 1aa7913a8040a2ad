"""Moments after a change of definitions and before the next base: from the base before into the definitions after.

That the moment has the shape of the later snapshot is known from two looks of the watcher's, one before it and one
after it. Reads the repository; what can be carried is decided in carrying.py.
"""

import json
from dataclasses import dataclass, replace

from pgkura.catalog.inventory import read_items
from pgkura.changes import pgoutput
from pgkura.changes.covers import Cover, read_cover
from pgkura.changes.log import A_HAIR, Log
from pgkura.core.errors import Unreachable
from pgkura.core.facts import SourceFacts
from pgkura.core.wal import Visible
from pgkura.replay.carrying import CannotCarry, Carrying, carry, check_constraints
from pgkura.replay.moments import Kind, Moment, time_text
from pgkura.replay.reaching import CARRIED, Window, check_base, reach
from pgkura.replay.resolving import Base, Until, leads_to, place_of
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """`cover`: what is in the log at the moment; since: the first position from which on the shape is known."""

    base: Base
    definitions: Base
    carrying: Carrying
    cover: Cover
    since: int


def cross(repo: Repository, log: Log, bases: list[Base], until: Until) -> Crossing:
    """Raises CannotCarry."""
    wanted = log.at(until.judge).poll.shape
    after = [b for b in bases if b.rows == wanted.rows]
    if not after:
        raise CannotCarry("no base has been taken since")
    definitions = next((b for b in after if b.definitions == wanted.definitions), after[0])
    since = _known_since(log, until, wanted.rows)
    base = _newest(repo, log, bases, until)
    carrying, cover = carry_between(repo, log, base, definitions)
    _check_forms(log, carrying, base, until, _first_changed(repo, log, base))
    return Crossing(base=base, definitions=definitions, carrying=carrying, cover=cover, since=since)


def narrow(repo: Repository, log: Log, window: Window) -> Window:
    """Its end is the first look that shows what the next base has, if rows can be carried there. Needs the identity."""
    base, definitions = window.before, window.after
    if definitions is None:
        return window
    first = next((p for p in range(len(log.names)) if log.at(p).poll.shape.rows == definitions.rows), None)
    look = log.at(first).poll if first is not None else None
    if look is None or not window.since < look.after < window.until:
        return window
    try:
        carrying, _ = carry_between(repo, log, base, definitions)
        last = window.until - 1
        place = place_of(log, last)
        until = Until(moment=Moment(kind=Kind.LSN, text=""), last=last, place=place, judge=place)
        _check_forms(log, carrying, base, until, _first_changed(repo, log, base))
    except CannotCarry as why:
        return replace(window, reason=f"{window.reason} ({why.why})")
    return replace(window, until=look.after, until_time=time_text(look.time + A_HAIR), reason=CARRIED)


def carry_between(repo: Repository, log: Log, base: Base, definitions: Base) -> tuple[Carrying, Cover]:
    """What of one base can be carried into the definitions of a later one. Raises CannotCarry."""
    if base.manifest.epoch != definitions.manifest.epoch:
        raise CannotCarry("the two bases are of different epochs")
    before = read_cover(repo, log.facts.id, base.rows)
    after = read_cover(repo, log.facts.id, definitions.rows, deep=True)
    if before is None or after is None:
        raise CannotCarry("no look of the watcher's shows the tables of both bases")
    old, new = _facts(repo, base.manifest), _facts(repo, definitions.manifest)
    carrying = carry(old, new, before, after)
    items = [read_items(repo.component(b.manifest, "inventory")) for b in (base, definitions)]
    check_constraints(carrying, old, new, *items)
    return carrying, after


def _check_forms(log: Log, carrying: Carrying, base: Base, until: Until, first: int) -> None:
    """Whether every row that will be replayed can be understood."""
    relations: dict[int, pgoutput.Relation] = {}
    checked: set[pgoutput.Relation] = set()
    wanted = False
    for payload in log.messages(first, until.place):
        kind = payload[0]
        if kind == pgoutput.BEGIN:
            begun = pgoutput.begin(payload)
            if begun.lsn > until.last:
                return
            xid = base.visible.widen(begun.xid)
            wanted = not base.visible.sees(xid) and (until.visible is None or until.visible.sees(xid))
        elif kind == pgoutput.RELATION:
            one = pgoutput.relation(payload)
            relations[one.oid] = one
        elif wanted and kind in pgoutput.CHANGES and kind != pgoutput.TRUNCATE:
            one = relations[pgoutput.relation_of(payload)]
            if one not in checked:
                checked.add(one)
                _check_form(carrying, one)


def _check_form(carrying: Carrying, relation: pgoutput.Relation) -> None:
    altered = carrying.altered.get(relation.oid)
    if altered is not None:
        form = altered.form([c.name for c in relation.columns])
        if any(c.key and form.new_name(place) is None for place, c in enumerate(relation.columns)):
            raise CannotCarry(f"a column of the key of {altered.name} is gone")


def _facts(repo: Repository, manifest: Manifest) -> SourceFacts:
    return SourceFacts.from_json(json.loads(repo.component(manifest, "facts")))


def _newest(repo: Repository, log: Log, bases: list[Base], until: Until) -> Base:
    for base in reversed([b for b in bases if leads_to(b, until)]):
        try:
            check_base(repo, log, base)
        except Unreachable:
            continue
        return base
    raise CannotCarry("no base before it can be gone on from")


def _known_since(log: Log, until: Until, rows: str) -> int:
    """The last look that surely came before the moment must show the shape that the first one after it shows."""
    for place in range(until.judge, -1, -1):
        poll = log.at(place).poll
        if not poll.after:
            break
        if until.visible is not None:
            before = until.visible.sees_all_of(Visible.parse(poll.visible))
        else:
            before = poll.after <= until.last + 1
        if before:
            if poll.shape.rows != rows:
                raise CannotCarry("it lies between two looks that show different tables")
            return poll.after
    raise CannotCarry("no look before it is known")


def _first_changed(repo: Repository, log: Log, base: Base) -> int:
    last = reach(repo, log, base).last
    return place_of(log, base.after) if last is None else place_of(log, last.name.end)
