"""A restore that was cut short while rows loaded, or after them, is gone on with where nothing speaks against it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pgkura.catalog.components import text_of
from pgkura.catalog.toc import Entry, Toc
from pgkura.core.errors import PlanOutdated
from pgkura.core.refs import Layer
from pgkura.postgres.session import Session, SqlError
from pgkura.repository.spool import outside
from pgkura.restore.key_steps import bare_indexes
from pgkura.restore.ledger import OPENING, READY, read_ledger
from pgkura.restore.loads import Load
from pgkura.restore.marker import Key, Mark, droppable, keys, plain

# Made in one statement and told apart by name: those that are there are whole. Others are made anew, and so is an index
# that was to become a key.
_WHOLE = frozenset({"INDEX", "INDEX ATTACH", "CONSTRAINT", "FK CONSTRAINT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the restore before this one has done.

    layers  chunks whose rows are there: by the number of their table, how many from which one on
    there   entries that need not be executed; redo: entries of the target that are dropped and made anew
    """

    layers: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    there: frozenset[int] = frozenset()
    redo: tuple[Entry, ...] = ()

    def left(self, load: Load) -> Iterator[Layer]:
        """Chunks of a table, or of a part of one, whose rows are not there."""
        return outside(load.data.layers, self.layers.get(load.data.number, {}), load.first or 0)

    def whole(self, load: Load) -> bool:
        """Whether none is left."""
        return next(self.left(load), None) is None

    def rows(self, loads: Iterable[Load]) -> int:
        """Rows that are there."""
        known = (x for x in loads if x.data.number in self.layers)
        return sum(x.data.rows - sum(layer.rows for layer in self.left(x)) for x in known)

    def bytes(self, loads: Iterable[Load]) -> int:
        """Plain bytes that are there."""
        known = (x for x in loads if x.data.number in self.layers)
        return sum(x.data.bytes - sum(layer.chunk.length for layer in self.left(x)) for x in known)


NOTHING = Kept()


def work_of(before: Sequence[Entry], after: Sequence[Entry], loads: Sequence[Load], *words: object) -> str:
    """A digest of all that decides what the ledger's numbers mean."""
    digest = hashlib.sha256(repr(("by chunks", *words)).encode())
    for entry in (*before, *after):
        digest.update(repr((entry.key, entry.owner, text_of(entry))).encode())
    for x in loads:
        # Which chunks they are is said by the snapshot's number: its list is signed.
        count = len(x.data.layers)
        digest.update(repr((x.data.number, x.target, x.columns, x.keep, x.managed, x.delete_where, count)).encode())
    return digest.hexdigest()


def kept_by(old: Mark | None, new: Mark, present: Toc, before: Sequence[Entry], after: Sequence[Entry]) -> Kept:
    """What to keep; NOTHING = start over, as in any doubt. Pure.

    Once privileges were being given the restored objects were open, and secrets or jobs may have been made.
    """
    if old is None or READY not in old.loaded or OPENING in old.loaded:
        return NOTHING
    if (old.snapshot, old.work, old.ours) != (new.snapshot, new.work, new.ours):
        return NOTHING
    # What keeps an object shut while rows load is an ACL that the archive may not have.
    if any(desc != "ACL" for desc, _, _ in old.before ^ new.before):
        return NOTHING
    if (old.large_objects, old.large_objects_before) != (new.large_objects, new.large_objects_before):
        return NOTHING
    have = keys(present.entries)
    if not keys(before) <= have:
        return NOTHING
    bare = bare_indexes(after)
    made: frozenset[Key] = (keys(after) | bare) - old.before
    return Kept(
        layers=old.loaded,
        there=frozenset(e.dump_id for e in after if e.desc in _WHOLE and plain(e.key) in have),
        redo=tuple(
            e
            for e in reversed(present.entries)
            if plain(e.key) in made and (e.desc not in _WHOLE or plain(e.key) in bare) and droppable(e)
        ),
    )


def go_on(session: Session, kept: Kept) -> bool:
    """Drop what is made anew; False where that is refused. Raises PlanOutdated where more is loaded than was planned
    with: another restore is at work."""
    if read_ledger(session) != kept.layers:
        raise PlanOutdated(
            "the target changed since the plan was made",
            detail="another restore loads rows into it",
            hint="nothing was touched; run it again to get a new plan",
        )
    try:
        session.script("".join(entry.drop for entry in kept.redo))
    except SqlError:
        if session.broken:
            raise
        return False
    return True
