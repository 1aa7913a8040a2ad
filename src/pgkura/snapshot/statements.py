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


def copy_statement(piece: Piece, *, name: QualifiedName | None = None, columns: Sequence[str] | None = None) -> str:
    """COPY of a piece. `name` overrides the snapshot's (renamed meanwhile), `columns` its columns (reread)."""
    table = piece.table
    target = (name or table.qname).sql
    listed = [quote_ident(c) for c in (columns if columns is not None else [c.name for c in table.data_columns])]
    if piece.whole and not table.config_where:
        if listed:
            return f"COPY {target} ({', '.join(listed)}) TO STDOUT"
        return f"COPY {target} TO STDOUT"  # no columns, or only generated ones: one empty line per row
    where = table.config_where if piece.whole else f"WHERE {_range(piece)}"
    return _query_copy(f"{', '.join(listed)} FROM ONLY {target} {where}")


def _query_copy(query: str) -> str:
    return f"COPY ({_SELECT}{query}) TO STDOUT"


def _range(piece: Piece) -> str:
    bounds = [f"ctid >= '({piece.start},0)'::pg_catalog.tid"]
    if piece.end is not None:
        bounds.append(f"ctid < '({piece.end},0)'::pg_catalog.tid")
    return " AND ".join(bounds)


def blob_statement(blobs: BlobRange) -> str:
    """Rows `oid, offset, bytes` of these large objects, in order; empty ones have no row."""
    return f"COPY ({blobs_sql([o.oid for o in blobs.objects])}) TO STDOUT"
