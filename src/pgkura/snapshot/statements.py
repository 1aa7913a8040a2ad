"""The COPY statements of workers. Pure text; every name quoted, every operator and type PostgreSQL's own.

COPY of a whole table plans nothing and calls output functions only. COPY of a query is planned, and planning may run
the functions of indexes: it is used for page ranges where queries/divisible.sql allows it, and for the configuration
tables of extensions, as pg_dump does.
"""

from collections.abc import Sequence

from pgkura.core.names import QualifiedName, quote_ident
from pgkura.postgres.facts import blobs_sql
from pgkura.snapshot.units import BlobRange, Piece

_SELECT = "SELECT "
_BINARY = " WITH (FORMAT binary)"
_TIDS = "pg_catalog.string_agg(pg_catalog.tidsend(ctid), ''::pg_catalog.bytea)"


def copy_statement(piece: Piece, *, name: QualifiedName | None = None, columns: Sequence[str] | None = None) -> str:
    """COPY of a piece. `name` overrides the snapshot's (renamed meanwhile), `columns` its columns (reread)."""
    table = piece.table
    target = (name or table.qname).sql
    options = _BINARY if piece.binary and columns is None else ""
    listed = _columns(piece) if columns is None else [quote_ident(c) for c in columns]
    if piece.whole and not table.config_where:
        if listed:
            return f"COPY {target} ({', '.join(listed)}) TO STDOUT{options}"
        return f"COPY {target} TO STDOUT"  # no columns, or only generated ones: one empty line per row
    where = table.config_where if piece.whole else f"WHERE {' AND '.join(_range(piece))}"
    return _query_copy(f"{', '.join(listed)} FROM ONLY {target} {where}") + options


def new_statement(piece: Piece, age: int, *, name: QualifiedName | None = None) -> str:
    """COPY of the rows at most `age` transactions old, the place of each in front."""
    conditions = [*_range(piece), _new(age)]
    listed = ", ".join(["ctid", *_columns(piece)])
    query = f"{listed} FROM ONLY {(name or piece.table.qname).sql} WHERE {' AND '.join(conditions)}"
    return _query_copy(query) + (_BINARY if piece.binary else "")


def rows_statement(piece: Piece, tids: Sequence[tuple[int, int]], *, name: QualifiedName | None = None) -> str:
    """COPY of the rows at these places (block, offset), in the order in which they lie, the place of each in front."""
    array = ",".join(f'"({block},{offset})"' for block, offset in tids)
    listed = ", ".join(["ctid", *_columns(piece)])
    query = f"{listed} FROM ONLY {(name or piece.table.qname).sql} WHERE ctid = ANY ('{{{array}}}'::pg_catalog.tid[])"
    return _query_copy(query) + (_BINARY if piece.binary else "")


def counts_statement(pieces: Sequence[Piece], ages: Sequence[int], *, name: QualifiedName | None = None) -> str:
    """Of each piece: its place in `pieces`, the tuples visible, those of them at most so many transactions old."""
    counts = [f"pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE {_new(age)})" for age in ages]
    return _for_each(pieces, counts, name)


def places_statement(pieces: Sequence[Piece], ages: Sequence[int | None], *, name: QualifiedName | None = None) -> str:
    """Of each piece: its place in `pieces`, the TIDs of its visible tuples, six bytes each, as they lie; and of those
    at most so many transactions old (None: nobody asks)."""
    whats = [f"{_TIDS}, " + ("NULL" if age is None else f"{_TIDS} FILTER (WHERE {_new(age)})") for age in ages]
    return _for_each(pieces, whats, name)


def _for_each(pieces: Sequence[Piece], whats: Sequence[str], name: QualifiedName | None) -> str:
    parts = []
    for place, (piece, what) in enumerate(zip(pieces, whats, strict=True)):
        where = f" WHERE {' AND '.join(conditions)}" if (conditions := _range(piece)) else ""
        parts.append(f"{_SELECT}{place}, {what} FROM ONLY {(name or piece.table.qname).sql}{where}")
    return " UNION ALL ".join(parts)


def _columns(piece: Piece) -> list[str]:
    return [quote_ident(c.name) for c in piece.table.data_columns]


def _new(age: int) -> str:
    return f"pg_catalog.age(xmin) <= {age}"


def _query_copy(query: str) -> str:
    return f"COPY ({_SELECT}{query}) TO STDOUT"


def _range(piece: Piece) -> list[str]:
    bounds = [] if piece.start == 0 else [f"ctid >= '({piece.start},0)'::pg_catalog.tid"]
    if piece.end is not None:
        bounds.append(f"ctid < '({piece.end},0)'::pg_catalog.tid")
    return bounds


def blob_statement(blobs: BlobRange) -> str:
    """Rows `oid, offset, bytes` of these large objects, in order; empty ones have no row."""
    return f"COPY ({blobs_sql([o.oid for o in blobs.objects])}) TO STDOUT"
