"""What may happen between two snapshots: weighted steps over the tables of sql/history.sql."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.history_sessions import Sessions

Step = Callable[["Scenery"], None]
_ROWS = {
    "wide": 1000, "heap": 500, "counter": 300, "nopk": 7, "kinds": 150, "names": 40, "small": 20, "child": 60,
    "parts": 600, "mother": 60, "swap_a": 100, "swap_b": 100, "fleeting": 80,
}  # fmt: skip
_LARGE = ("wide", "heap")
_LABELS = ("sad", "ok", "glad")


@dataclass(slots=True, kw_only=True)
class Scenery:
    """The sessions, the dice, and what the steps changed about the tables."""

    sessions: Sessions
    rng: random.Random
    next_id: int = 10_000
    number: int = 0
    detached: bool = False
    home: str = "public"
    added: dict[str, list[str]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=lambda: list(_LABELS))
    members: int = 0
    made: list[str] = field(default_factory=list)
    plain: bool = False  # for now columns, types and files stay as they are

    def fresh(self, prefix: str) -> str:
        """A name or value never used before in this history."""
        self.number += 1
        return f"{prefix}{self.number}"

    def table(self) -> str:
        """A table for rows; the large ones and those whose leaves move come up more often."""
        return self.rng.choice([*_ROWS, "wide", "wide", "heap", "counter", "counter", "parts", *self.made[-1:]])

    def named(self, table: str) -> str:
        """`small` moves between schemas."""
        return f"{self.home}.small" if table == "small" else table

    def ids(self, count: int) -> str:
        """A source of new ids, alias g."""
        first, self.next_id = self.next_id, self.next_id + count
        return f"generate_series({first}, {self.next_id - 1}) g"


# --- rows ------------------------------------------------------------------------------------------------------------


def insert(world: Scenery) -> str:
    """New rows: a few, or enough to fill holes that VACUUM has made, or wide values out of line."""
    rng, table = world.rng, world.table()
    count, salt = rng.choice((1, 3, 20)), world.fresh("i")
    columns, values = "id, note", f"g, '{salt}'"
    if table in _LARGE:
        columns, values = "id, note, body", f"g, '{salt}', repeat(md5(g || '{salt}'), {rng.choice((1, 30, 60))})"
    if table == "wide" and rng.random() < 0.2:
        values = f"g, '{salt}', (SELECT string_agg(md5(g || '{salt}' || i), '') FROM generate_series(1, 200) i)"
    if table == "parts":
        columns, values = "id, note, region", f"g, '{salt}', (g * 7) % 30"
    if table == "kinds":
        columns, values = (
            "id, note, m, ms",
            f"g, '{salt}', '{rng.choice(world.labels)}', '{{{rng.choice(world.labels)}}}'",
        )
    if table == "child":
        columns, values = "id, note, small_id", f"g, '{salt}', (SELECT min(id) FROM {world.named('small')})"
    if table == "nopk":
        values = "g % 7, 'same'"
    where = "part_2" if table == "parts" and world.detached and rng.random() < 0.3 else world.named(table)
    return f"INSERT INTO {where} ({columns}) SELECT {values} FROM {world.ids(count)}"


def upsert(world: Scenery) -> str:
    """Rows that exist and rows that do not."""
    table = world.rng.choice(("counter", "wide", "kinds", "small"))
    low = world.rng.randrange(_ROWS[table])
    return (
        f"INSERT INTO {world.named(table)} (id, note) SELECT g, 'u' FROM generate_series({low}, {low + 4}) g "
        f"ON CONFLICT (id) DO UPDATE SET note = '{world.fresh('x')}'"
    )


def _some(world: Scenery, table: str, lock: str = "UPDATE") -> str:
    modulus = world.rng.choice((2, 5, 17, 97)) if table not in ("nopk", "small") else 3
    limit = world.rng.choice((1, 4, 25, 120))
    return (
        f"SELECT tableoid, ctid FROM {world.named(table)} WHERE id % {modulus} = {world.rng.randrange(modulus)} "
        f"ORDER BY id, ctid LIMIT {limit} FOR {lock} SKIP LOCKED"
    )


def update(world: Scenery) -> str:
    """HOT or not, in line or not, within a leaf or across leaves."""
    rng, table = world.rng, world.table()
    salt = world.fresh("u")
    change = f"note = '{salt}'"
    if table == "counter" and rng.random() < 0.8:
        change = "hits = hits + 1"
    if table == "wide":
        change = rng.choice((change, f"body = repeat(md5('{salt}' || id), 40)", f"more = repeat('{salt}', 900)"))
    if table == "parts" and rng.random() < 0.5:
        change = "region = (region + 10) % 30"
    if table == "kinds":
        change = rng.choice((change, f"m = '{rng.choice(world.labels)}'", "d = d + 1", "t = t + interval '1 day'"))
    if table == "names":
        change = rng.choice((change, "r = 'wide'", "t = 'pair'"))
    return f"UPDATE {world.named(table)} SET {change} WHERE (tableoid, ctid) IN ({_some(world, table)})"


def delete(world: Scenery) -> str:
    """Rows leave, and their places with them."""
    table = world.table()
    table = "child" if table == "small" else table
    return f"DELETE FROM {world.named(table)} WHERE (tableoid, ctid) IN ({_some(world, table)})"


def lock_rows(world: Scenery) -> str:
    """Locks that are written into the tuples: xmax, multixacts."""
    return _some(world, world.table(), world.rng.choice(("SHARE", "KEY SHARE", "NO KEY UPDATE", "UPDATE")))


def many_subtransactions(world: Scenery) -> str:
    """More than the 64 that a backend lists, each its own xid; every third is undone."""
    salt, first = world.fresh("s"), world.next_id
    world.next_id += 80
    return (
        f"DO $$BEGIN FOR i IN {first}..{first + 79} LOOP BEGIN INSERT INTO heap VALUES (i, '{salt}'); "
        "IF i % 3 = 0 THEN RAISE division_by_zero; END IF; "
        "EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END$$"
    )


ROWS: tuple[tuple[Callable[[Scenery], str], int], ...] = (
    (insert, 30), (update, 40), (delete, 22), (upsert, 8), (lock_rows, 6), (many_subtransactions, 3),
)  # fmt: skip


def statement(world: Scenery) -> str:
    """One statement on rows."""
    makers, weights = zip(*ROWS, strict=True)
    maker: Callable[[Scenery], str] = world.rng.choices(makers, weights)[0]
    return maker(world)


def work(world: Scenery) -> None:
    """One move of one session: a statement, or a step up or down its transaction."""
    sessions, rng = world.sessions, world.rng
    name = rng.choice(sorted(sessions.connections))
    if name not in sessions.open:
        if rng.random() < 0.6:
            sessions.begin(name)
        sessions.run(name, statement(world))
        return
    move = rng.random()
    if move < 0.55:
        sessions.run(name, statement(world))
    elif move < 0.72:
        sessions.savepoint(name)
        sessions.run(name, statement(world))
    elif move < 0.80:
        sessions.release(name)
    elif move < 0.86:
        sessions.rollback_to(name)
    elif move < 0.90:
        sessions.prepare(name)
    elif move < 0.97:
        sessions.commit(name)
    else:
        sessions.rollback(name)


def large_objects(world: Scenery) -> None:
    """Made, written into, removed."""
    oid, salt = world.rng.randrange(4001, 4009), world.fresh("l")
    world.sessions.alone(
        world.rng.choice(
            (
                f"SELECT lo_from_bytea(0, '{salt}')",
                f"SELECT lo_put(oid, 3000, '{salt}') FROM pg_largeobject_metadata WHERE oid = {oid}",
                f"SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid = {oid}",
            )
        )
    )


def burn_xids(world: Scenery) -> None:
    """Xids that write nothing."""
    many = world.rng.choice((3, 50, 300))
    world.sessions.alone(f"DO $$BEGIN FOR i IN 1..{many} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END$$")
