"""The shape of each table by itself: finer than one fingerprint of everything, and asked for only when that changed."""

from collections.abc import Mapping
from dataclasses import dataclass

from pgkura.postgres.queries import query
from pgkura.postgres.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Fingerprints of one table: `whole` of all that decides what its rows mean, `key` of how they are told apart.

    natts  columns that there ever were; filenode: another one after TRUNCATE and whatever writes all rows anew
    """

    whole: str
    key: str
    natts: int
    filenode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Of all tables, by object id. `missing`: (table, column number) → what older rows have there, as text."""

    tables: Mapping[int, Part]
    types: str
    missing: Mapping[tuple[int, int], str]


def read_parts(session: Session, *publications: str) -> Parts:
    """In the caller's transaction."""
    return Parts(
        tables={
            oid: Part(whole=whole, key=key, natts=natts, filenode=filenode)
            for oid, whole, key, natts, filenode in session.rows(query("parts", "parts"), (list(publications),))
        },
        types=str(session.one(query("parts", "types"))[0]),
        missing={
            (oid, number): value for oid, number, value in session.rows(query("parts", "missing")) if value is not None
        },
    )
