"""How many locks and connections a snapshot may take, decided before the first one is taken. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pgkura.core.errors import SourceBusy
from pgkura.core.names import QualifiedName

# System catalogs and their indexes that pg_dump keeps locked until it ends, beside the tables themselves; so does the
# reader of catalogs, with the views whose text it reads.
DUMP_CATALOG_LOCKS = 150
# A worker's own table, its TOAST table, their indexes and the catalogs it looks up, per table of a unit.
WORKER_CATALOG_LOCKS = 20
MAX_HOLDERS = 4
# The exporter and the watcher.
FIXED_CONNECTIONS = 2
# pg_dump and the reader of catalogs.
BESIDE_CONNECTIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the server says about itself, and how much of it is in use.

    free_connections  the least of what server, database and role leave free
    lock_slots        max_locks_per_transaction × (max_connections + max_prepared_transactions)
    """

    free_connections: int
    lock_slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPlan:
    """`holders` transactions that hold locks, `workers` that read. A worker may open a second connection.

    beside  pg_dump and the reader of catalogs may have theirs while they read; else these are done before
    """

    holders: int
    workers: int
    beside: bool = False

    @property
    def total(self) -> int:
        """The most that are ever open at once."""
        return FIXED_CONNECTIONS + self.holders + 2 * self.workers + BESIDE_CONNECTIONS * self.beside


def plan_connections(capacity: Capacity, *, share: float, workers: int) -> ConnectionPlan:
    """As many workers as wanted and affordable, then as many holders as affordable.

    Raises SourceBusy when not even one of each fits.
    """
    budget = int(capacity.free_connections * share)
    for wanted in range(workers, 0, -1):
        spare = budget - FIXED_CONNECTIONS - 2 * wanted
        if spare >= 1:
            beside = spare > BESIDE_CONNECTIONS
            holders = min(MAX_HOLDERS, spare - BESIDE_CONNECTIONS * beside)
            return ConnectionPlan(holders=holders, workers=wanted, beside=beside)
    least = FIXED_CONNECTIONS + 3
    raise SourceBusy(
        f"{capacity.free_connections} connections are free; a backup needs {least} and may take {budget}",
        detail=f"at most {share:.0%} of the free connections are taken, so that the application always finds one",
        hint="run it when fewer are in use, raise max_connections or the role's connection limit"
        + (
            f", or allow a larger share (--connection-share {_share(least, capacity.free_connections)})"
            if least <= capacity.free_connections
            else ""
        ),
    )


def _share(part: int, whole: int) -> str:
    """The least share, in hundredths, of which the whole number of `whole` is at least `part`."""
    return f"{min(1.0, math.ceil(100 * part / whole + 1e-9) / 100):g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockable:
    """A table or partition root that the role can read: LOCK TABLE takes no other kind."""

    oid: int
    qname: QualifiedName
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockPlan:
    """Which tables are locked before the snapshot, by which holder; the rest is locked late, one at a time.

    holders  one tuple of tables per holder transaction, largest tables first
    late     object ids of the tables left to the workers
    budget   entries of the lock table that all our sessions together may use
    reserved of them for pg_dump and the workers
    together whether these, and the reader of catalogs, may hold theirs at the same time
    """

    holders: tuple[tuple[Lockable, ...], ...]
    late: frozenset[int]
    budget: int
    reserved: int
    together: bool


def plan_locks(
    tables: Sequence[Lockable],
    capacity: Capacity,
    *,
    share: float,
    connections: ConnectionPlan,
    views: int = 0,
    tables_per_unit: int,
) -> LockPlan:
    """Share the lock budget out: pg_dump and the workers need theirs, the holders get what is left.

    pg_dump locks every table it writes, whatever we do: where that alone passes the budget, no backup is
    possible within it, and that is said before the first lock. Raises SourceBusy.
    """
    budget = int(capacity.lock_slots * share)
    dump = len(tables) + views + DUMP_CATALOG_LOCKS
    working = connections.workers * (tables_per_unit + WORKER_CATALOG_LOCKS)
    reserved = max(dump, working)
    if reserved > budget:
        factor = reserved / max(1, budget)
        raise SourceBusy(
            f"{len(tables):,} tables need about {reserved:,} locks; {budget:,} may be taken",
            detail=f"the server has room for {capacity.lock_slots:,} locks and at most {share:.0%} of them are taken: "
            "a full lock table fails the application's statements",
            hint=f"raise max_locks_per_transaction on the server to {factor:.1f} times what it is"
            + (
                f", or allow a larger share of the locks (--lock-share {_share(reserved, capacity.lock_slots)})"
                if reserved <= capacity.lock_slots
                else ""
            ),
        )
    # To read rows while definitions are still read is quicker, but not worth a table that is locked late for it.
    all_at_once = dump + working + views + DUMP_CATALOG_LOCKS
    together = connections.beside and all_at_once + (len(tables) if len(tables) <= budget - reserved else 0) <= budget
    if together:
        reserved = all_at_once
    order = sorted(tables, key=lambda t: (t.kind == "p", -t.bytes, t.oid))
    early, late = order[: budget - reserved], order[budget - reserved :]
    groups = tuple(tuple(early[i :: connections.holders]) for i in range(connections.holders))
    return LockPlan(
        holders=tuple(g for g in groups if g),
        late=frozenset(t.oid for t in late),
        budget=budget,
        reserved=reserved,
        together=together,
    )
