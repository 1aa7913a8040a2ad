"""What is loaded and built together, and what has to wait for what. Pure.

Small tables share transactions, and so do their indexes and constraints: a commit and a round trip cost more than two
thousand rows. A table's indexes, primary and foreign keys follow as soon as the rows of the tables they name are
there, as in pg_restore; everything else follows all rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pgkura.catalog.toc import Entry
from pgkura.core.names import QualifiedName
from pgkura.restore.key_steps import KeySteps, key_steps
from pgkura.restore.loads import Load
from pgkura.restore.parallel import Job, Work

# Below this a table is small: it travels with others.
SMALL_BYTES = 8 * 1024 * 1024
# Tables, and entries, that share a transaction: each holds locks until it ends, of which servers have a few thousand.
TABLES_AT_ONCE = 32
ENTRIES_AT_ONCE = 64
# Rows come first, the largest table's at once; then the small tables with their keys, whose foreign keys wait for one
# another and so must not be left to the end; then what can be divided: indexes of large tables.
FIRST, SECOND = 1 << 62, 1 << 61
_EARLY = frozenset({"INDEX", "CONSTRAINT"})
_KEYS = frozenset({*_EARLY, "INDEX ATTACH"})
# These lock their tables against everything that works on them; pg_restore keeps them apart too (has_lock_conflicts).
_EXCLUSIVE = frozenset(
    {"CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "RULE", "TRIGGER", "ROW SECURITY", "POLICY", "DEFAULT"}
)
Make = Callable[[Sequence[Entry]], Work]
MakeKey = Callable[[Entry, KeySteps], tuple[Work, Work]]
# Below all other numbers of jobs: an index that is to become a key.
_BARE = -(1 << 62)


def keys_of(entries: Sequence[Entry]) -> list[Entry]:
    """Indexes and keys that wait for nothing else of `entries`: what changes of rows need, and nothing that fires."""
    known = {e.dump_id for e in entries}
    chosen: set[int] = set()
    while True:
        more = {
            e.dump_id
            for e in entries
            if e.desc in _KEYS and e.dump_id not in chosen and not any(d in known - chosen for d in e.deps)
        }
        if not more:
            return [e for e in entries if e.dump_id in chosen]
        chosen |= more


def together(loads: Sequence[Load], alone: Callable[[Load], bool]) -> list[tuple[Load, ...]]:
    """Loads in their order; small ones that need not be `alone` are put together."""
    out: list[tuple[Load, ...]] = []
    small: list[Load] = []
    for load in loads:
        if load.data.bytes >= SMALL_BYTES or alone(load):
            out.append((load,))
            continue
        if small and (len(small) == TABLES_AT_ONCE or sum(x.data.bytes for x in small) >= SMALL_BYTES):
            out.append(tuple(small))
            small = []
        small.append(load)
    return [*out, *([tuple(small)] if small else [])]


def load_weight(size: int) -> int:
    """Of a unit's rows."""
    return size + (FIRST if size >= SMALL_BYTES else SECOND)


@dataclass(slots=True, kw_only=True)
class Builder:
    """Makes jobs of entries.

    tables    of the archive, by dump id; loads: what must be done before the rows of each are there (no key: nothing)
    late      tables whose rows may still change while others load
    all_rows  what gives all rows; sizes: bytes of each table
    alone     entries that are executed by themselves
    make_key  a large table's key in two steps
    """

    tables: Mapping[int, QualifiedName]
    loads: Mapping[int, int]
    late: frozenset[int]
    all_rows: frozenset[int]
    sizes: Mapping[int, int]
    alone: frozenset[int]
    make: Make
    make_key: MakeKey
    _known: frozenset[int] = field(default=frozenset())

    def jobs(self, entries: Sequence[Entry]) -> list[Job]:
        """In archive order. Dependencies on entries that are not in `entries` are met already."""
        self._known = frozenset(e.dump_id for e in entries)
        keys = frozenset(e.dump_id for e in entries if e.desc in _EARLY and self._early(e))
        foreign = [e for e in entries if e.desc == "FK CONSTRAINT" and self._early(e)]
        early = keys | {e.dump_id for e in foreign}
        # An early entry that waits for a late one is late: then nothing put together can wait for itself.
        moved = {e.dump_id for e in entries if e.dump_id in early and any(d in self._known - early for d in e.deps)}
        early -= moved
        out = self._batches([e for e in entries if e.dump_id in keys & early], by_unit=True)
        out += self._batches([e for e in foreign if e.dump_id in early])
        late = self._batches([e for e in entries if e.dump_id not in early], after=self.all_rows)
        return out + late

    def _uses(self, entry: Entry) -> frozenset[int]:
        return frozenset(d for d in entry.deps if d in self.tables)

    def _early(self, entry: Entry) -> bool:
        uses = self._uses(entry)
        if not uses or uses & self.late or entry.dump_id in self.alone:
            return False
        # A foreign key may name a table of the platform's, whose rows come from us and whose definition does not.
        return entry.desc in _EARLY or all(d in self.tables or d in self._known for d in entry.deps)

    def _weight(self, entry: Entry) -> int:
        uses = self._uses(entry)
        if entry.desc == "FK CONSTRAINT":  # what it costs is reading the table that refers to the other
            named = [d for d in uses if entry.tag.startswith(f"{self.tables[d].name} ")]
            uses = frozenset(named) or uses
        return max((self.sizes.get(d, 0) for d in uses), default=0)

    def _batches(
        self, entries: Sequence[Entry], *, by_unit: bool = False, after: frozenset[int] = frozenset()
    ) -> list[Job]:
        """Neighbours in the archive's order together, unless they are heavy or must be alone."""
        out: list[Job] = []
        open_: dict[int, list[Entry]] = {}
        for entry in entries:
            single = entry.dump_id in self.alone or self._weight(entry) >= SMALL_BYTES
            if single or (entry.desc in _EARLY and not by_unit):
                if not by_unit:
                    out += [self._job(batch, after) for batch in open_.values()]
                    open_ = {}
                out += (self._key(entry) if by_unit else ()) or [self._job([entry], after)]
                continue
            key = min((self.loads.get(d, 0) for d in self._uses(entry)), default=0) if by_unit else 0
            batch = open_.setdefault(key, [])
            batch.append(entry)
            if len(batch) == ENTRIES_AT_ONCE:
                out.append(self._job(open_.pop(key), after))
        return out + [self._job(batch, after) for batch in open_.values()]

    def _key(self, entry: Entry) -> Sequence[Job]:
        """A heavy key: its index, which shares the table with others, and then the key."""
        steps = key_steps(entry) if entry.dump_id not in self.alone else None
        if steps is None:
            return ()
        whole = self._job([entry], frozenset())
        bare = frozenset({_BARE - entry.dump_id})
        index, key = self.make_key(entry, steps)
        return (
            replace(whole, gives=bare, locks=frozenset(), size=0, work=index),
            replace(whole, deps=whole.deps | bare, weight=SECOND, light=True, work=key),
        )

    def _job(self, entries: Sequence[Entry], after: frozenset[int]) -> Job:
        gives = frozenset(e.dump_id for e in entries)
        uses = frozenset[int]().union(*(self._uses(e) for e in entries))
        locks = frozenset[int]().union(*(self._uses(e) for e in entries if e.desc in _EXCLUSIVE))
        deps = {d for e in entries for d in e.deps if d in self._known} - gives
        weight = max(self._weight(e) for e in entries)
        return Job(
            gives=gives,
            deps=frozenset(deps | {self.loads[t] for t in uses if t in self.loads} | after),
            uses=uses,
            locks=locks,
            weight=weight // 3 if weight >= SMALL_BYTES else SECOND,
            size=len(entries),
            light=weight < SMALL_BYTES,
            work=self.make(entries),
        )
