"""Folded changes into a target's tables. A change that does not meet its row ends the run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pgkura.changes.pgoutput import INSERT, UNCHANGED, Parts, Row, Unchanged, Value
from pgkura.core.errors import Tampered
from pgkura.core.names import QualifiedName, quote_ident
from pgkura.postgres.session import Session, SqlError
from pgkura.replay import lines
from pgkura.replay.folding import Fold, Key, in_order, missing

_GONE, _CAME = 'pg_temp."pgkura_gone"', 'pg_temp."pgkura_came"'
_MISSING = '"pgkura_missing"'
# A row of which everything is told.
_NOTHING: Row = (b"-1",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a table's rows go. `root`: through the root of its partitions, where the server chooses the leaf."""

    target: QualifiedName
    columns: tuple[str, ...]
    root: bool = False

    @property
    def source(self) -> str:
        """To select, update or delete from."""
        return self.target.sql if self.root else f"ONLY {self.target.sql}"


def apply_fold(session: Session, place: Place, fold: Fold) -> int:
    """In the caller's transaction; returns how many rows were written or removed. Raises Tampered, SqlError."""
    if fold.emptied:
        if place.root:
            raise Tampered(f"{fold.name} was emptied", detail="one leaf of a tree that is loaded through its root")
        session.execute(f"TRUNCATE ONLY {place.target.sql}")
    keys = [place.columns[n] for n in fold.keys]
    same = " AND ".join(f"t.{quote_ident(k)} = o.{quote_ident(o)}" for k, o in _origins(keys))
    moved = {origin for _, origin in fold.came.values() if origin is not None}
    if moved:
        _bring(session, place, keys, same, fold)
        count = session.execute(f"DELETE FROM {place.source} t USING {_CAME} o WHERE {same}")
        _must(count, len(moved), fold.name, "rows were to change")
        fold.gone -= moved
    if fold.gone:
        _temporary(session, _GONE, f"SELECT {_renamed(keys)} FROM {place.source}")
        _copy(session, _GONE, zip(in_order(fold.gone)))
        _analyze(session, _GONE, keys)
        count = session.execute(f"DELETE FROM {place.source} t USING {_GONE} o WHERE {same}")
        _must(count, len(fold.gone), fold.name, "rows were to go")
        session.execute(f"DROP TABLE {_GONE}")
    if moved:
        names = _names(place.columns)
        count = session.execute(
            f"INSERT INTO {place.target.sql} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {_CAME}"
        )
        _must(count, len(fold.came), fold.name, "rows were to come")
        session.execute(f"DROP TABLE {_CAME}")
    elif fold.came:
        _append(session, place, ((fold.came[key][0],) for key in in_order(fold.came)))
    return len(fold.gone) + len(fold.came)


def _origins(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Each column of the key, and the column that says where the row was before."""
    return [(key, f"pgkura_origin_{n}") for n, key in enumerate(keys)]


def _renamed(keys: Sequence[str]) -> str:
    return ", ".join(f"{quote_ident(k)} AS {quote_ident(o)}" for k, o in _origins(keys))


def _bring(session: Session, place: Place, keys: Sequence[str], same: str, fold: Fold) -> None:
    """The new rows into a table beside, with where they were before, and what they keep of it."""
    _temporary(
        session,
        _CAME,
        f"SELECT {_names(place.columns)}, {_renamed(keys)}, NULL::int AS {_MISSING} FROM {place.source}",
    )
    kinds: dict[tuple[int, ...], list[int]] = {}

    def rows() -> Iterator[tuple[Row, ...]]:
        nowhere: Key = (None,) * len(keys)
        for row, origin in map(fold.came.__getitem__, in_order(fold.came)):
            if UNCHANGED not in row:
                yield row, origin or nowhere, _NOTHING
                continue
            kind = kinds.setdefault(missing(row), [len(kinds), 0])
            kind[1] += 1
            told = tuple([None if v is UNCHANGED else v for v in row])
            yield told, origin or nowhere, (b"%d" % kind[0],)

    _copy(session, _CAME, rows())
    _analyze(session, _CAME, keys)
    for places, (number, count) in kinds.items():
        sets = ", ".join(f"{c} = t.{c}" for c in (quote_ident(place.columns[n]) for n in places))
        done = session.execute(
            f"UPDATE {_CAME} o SET {sets} FROM {place.source} t WHERE o.{_MISSING} = {number} AND {same}"
        )
        _must(done, count, fold.name, "rows were to give their large values")


@dataclass(slots=True)
class Appends:
    """Rows of a table that is only added to, since it was last written."""

    emptied: bool = False
    rows: list[Row] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.emptied or self.rows)

    def take(self, change: Parts, name: str) -> None:
        """One more row. Raises Tampered for anything else."""
        kind, _, _, row, _, _ = change
        if kind != INSERT or row is None:
            raise Tampered(f"the change log of {name} does not say which row changed")
        self.rows.append(row)

    def empty_table(self) -> None:
        """TRUNCATE."""
        self.emptied = True
        self.rows.clear()


def apply_appends(session: Session, place: Place, appends: Appends, name: str) -> int:
    """In the caller's transaction; returns how many rows came."""
    if appends.emptied:
        if place.root:
            raise Tampered(f"{name} was emptied", detail="one leaf of a tree that is loaded through its root")
        session.execute(f"TRUNCATE ONLY {place.target.sql}")
    if appends.rows:
        _append(session, place, zip(appends.rows))
    return len(appends.rows)


def _append(session: Session, place: Place, rows: Iterable[tuple[Row, ...]]) -> None:
    """COPY takes values for identity columns as they are."""
    _copy(session, f"{place.target.sql} ({_names(place.columns)})", rows)


def apply_one(session: Session, place: Place, change: Parts, name: str) -> int:
    """A change of a table without key, by its whole old row. Returns 1."""
    kind, _, old, new, whole, _ = change
    if kind != INSERT:
        if old is None or not whole:
            raise Tampered(f"the change log of {name} does not say which row changed")
        where, values = _whole(place, old)
        count = session.execute(
            f"DELETE FROM {place.source} WHERE (tableoid, ctid) = "
            f"(SELECT t.tableoid, t.ctid FROM {place.source} t WHERE {where} LIMIT 1)",
            values,
        )
        _must(count, 1, name, "row was to go")
    if new is not None:
        row = [o if isinstance(v, Unchanged) else v for v, o in zip(new, new if old is None else old, strict=True)]
        marks = ", ".join(["%s"] * len(row))
        session.execute(
            f"INSERT INTO {place.target.sql} ({_names(place.columns)}) OVERRIDING SYSTEM VALUE VALUES ({marks})",
            [_text(v) for v in row],
        )
    return 1


def _whole(place: Place, row: Row) -> tuple[str, list[str]]:
    """`format` prints by a type's output function, as the log does; a cast to text does not."""
    parts, values = [], []
    for column, value in zip(map(quote_ident, place.columns), row, strict=True):
        if value is None:
            parts.append(f"pg_catalog.num_nulls(t.{column}) = 1")
        else:
            parts.append(f"pg_catalog.num_nulls(t.{column}) = 0 AND pg_catalog.format('%%s', t.{column}) = %s")
            values.append(_text(value) or "")
    return " AND ".join(parts) or "true", values


def _text(value: Value) -> str | None:
    if isinstance(value, Unchanged):
        raise Tampered("a value of the change log is not told")
    return None if value is None else value.decode()


def _temporary(session: Session, name: str, select: str) -> None:
    session.execute(f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS {select} WITH NO DATA")


def _analyze(session: Session, name: str, keys: Sequence[str]) -> None:
    """How many rows there are, and what is known of where they were. Types whose comparison fails have no statistics,
    which are no state."""
    try:
        with session.savepoint("pgkura_analyze"):
            session.execute(f"ANALYZE {name} ({_names([o for _, o in _origins(keys)])})")
    except SqlError:
        if session.broken:
            raise


def _copy(session: Session, name: str, rows: Iterable[tuple[Row, ...]]) -> None:
    with session.copy_in(f"COPY {name} FROM STDIN") as writer:
        for piece in lines.pieces(rows):
            writer.write(piece)


def _names(columns: Sequence[str]) -> str:
    return ", ".join(map(quote_ident, columns))


def _must(count: int, wanted: int, name: str, what: str) -> None:
    if count != wanted:
        raise Tampered(
            f"the change log of {name} does not fit what its base has",
            detail=f"{wanted:,} {what}, {count:,} did",
            hint="nothing of the target can be trusted; restore another base, and keep this log for a report",
        )
