"""Is this still the table that the snapshot knew? And if not, which of its rows still make sense? Pure."""

from dataclasses import dataclass

from pgkura.core.facts import Column, TableFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTable:
    """A table as it is now, read by a new statement of another connection while we hold its lock."""

    oid: int
    schema: str
    name: str
    kind: str
    filenode: int
    columns: tuple[Column, ...]


def difference(known: TableFacts, live: LiveTable) -> str:
    """Why its rows at the snapshot cannot be read any more; '' when they can.

    A new file means TRUNCATE or a rewrite: a reader at the old snapshot would find no rows, without an error. A
    renamed or re-typed column may make `SELECT "a"` return what used to be "b". A new table name alone harms
    nothing: the worker reads under the name of now.
    """
    if live.oid != known.oid:
        return "replaced by another table of the same name"
    if live.filenode != known.filenode:
        return "truncated or rewritten"
    if live.kind != known.kind:
        return "turned into another kind of relation"
    if _row_type(live.columns) != _row_type(known.columns):
        return "its columns were changed"
    return ""


def _row_type(columns: tuple[Column, ...]) -> list[tuple[int, str, str, str]]:
    return [(c.attnum, c.name, c.type, c.generated) for c in columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reread:
    """Which columns of a changed table can be stored under the snapshot's definition; None = no rows can."""

    columns: tuple[Column, ...] | None
    reason: str = ""


def plan_reread(known: TableFacts, live: LiveTable) -> Reread:
    """The data columns that are the same in both. A missing one must be nullable, else no row would load."""
    now = {c.name: c for c in live.columns}
    kept, missing = [], []
    for column in known.data_columns:
        other = now.get(column.name)
        if other is not None and other.type == column.type and not other.generated:
            kept.append(column)
        else:
            missing.append(column)
    hard = [c.name for c in missing if c.not_null]
    if hard:
        return Reread(
            columns=None,
            reason=f"no row of now fits its definition of then (NOT NULL columns are gone: {_names(hard)})",
        )
    if missing and not kept:
        return Reread(columns=None, reason=f"none of its columns is as it was ({_names([c.name for c in missing])})")
    if missing:
        return Reread(columns=tuple(kept), reason=f"without the columns {_names([c.name for c in missing])}")
    return Reread(columns=tuple(kept))


def _names(names: list[str]) -> str:
    return ", ".join(f'"{n}"' for n in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The snapshot's tables sorted by what protects them.

    held   numbers of tables locked before the snapshot
    late   numbers of tables that nobody locked: made, renamed or dropped in between, or never granted
    """

    held: frozenset[int]
    late: frozenset[int]


def compare_with_locks(tables: tuple[TableFacts, ...], locked: frozenset[int]) -> Comparison:
    """Sort by the object ids that the holders really hold, read from the server's lock table."""
    held = frozenset(i for i, t in enumerate(tables) if t.oid in locked)
    needed = frozenset(i for i, t in enumerate(tables) if t.kind in ("r", "p") and t.readable)
    return Comparison(held=held & needed, late=needed - held)


def moved(tables: tuple[TableFacts, ...], now: dict[int, LiveTable], held: frozenset[int]) -> frozenset[int]:
    """Locked tables that nevertheless differ from the snapshot's facts: none, unless a lock was lost."""
    return frozenset(i for i in held if (live := now.get(tables[i].oid)) is None or difference(tables[i], live))
