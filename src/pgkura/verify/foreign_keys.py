"""Foreign keys checked by anti-joins: VALIDATE CONSTRAINT on a valid constraint looks at nothing.

Rows loaded with triggers off were never checked by the server. Semantics: PostgreSQL documentation, "CREATE TABLE":
MATCH SIMPLE (any NULL: not checked), MATCH FULL (all NULL or none), PERIOD (the referenced periods together cover the
referring one); a key on a plain table says nothing about its inheritance children, hence ONLY.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.verify.planning import tables_not_to_plan

_PARTITIONED = "p"
_FULL = "f"
_NO_RIGHT = "42501"
# Whoever cancels a statement means the work; '': the connection broke, or the mistake is ours.
_ENDS_THE_PROOF = frozenset({"57014", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """One constraint with its own equality operators.

    collations  by which a column is compared, where both sides have different ones: the referenced column's
    scans_children, referenced_scans_children  partitioned tables, whose rows lie in their partitions
    period  the last column is a period: it is covered, not equal
    """

    table: QualifiedName
    name: str
    referenced: QualifiedName
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    operators: tuple[tuple[str, str], ...]  # schema, name
    collations: tuple[QualifiedName | None, ...]
    full: bool = False
    period: bool = False
    scans_children: bool = False
    referenced_scans_children: bool = False

    @property
    def title(self) -> str:
        """For people."""
        return f"foreign key {quote_ident(self.name)} on {self.table}"


def read_foreign_keys(session: Session) -> tuple[list[ForeignKey], list[Finding]]:
    """Those that can be checked, and a `denied` finding for each that cannot."""
    found: list[ForeignKey] = []
    findings: list[Finding] = []
    not_to_plan = tables_not_to_plan(session)
    for row in session.rows(query("foreign_keys", "list")):
        schema, table, kind, name, fschema, ftable, fkind, match, columns, keys, schemas, operators = row[:12]
        collation_schemas, collations, readable, period, foreign_code, tables = row[12:]
        key = ForeignKey(
            table=QualifiedName(schema, table),
            name=name,
            referenced=QualifiedName(fschema, ftable),
            columns=tuple(columns),
            keys=tuple(keys),
            operators=tuple(zip(schemas, operators, strict=True)),
            collations=tuple(
                QualifiedName(*found) if found[1] else None for found in zip(collation_schemas, collations, strict=True)
            ),
            full=match == _FULL,
            period=period,
            scans_children=kind == _PARTITIONED,
            referenced_scans_children=fkind == _PARTITIONED,
        )
        if not readable:
            findings.append(_denied(key, "no right to read both tables"))
        elif foreign_code:
            findings.append(_denied(key, "comparing would run another role's operator or cast with our rights"))
        elif not not_to_plan.isdisjoint(tables):
            findings.append(_denied(key, "planning the comparison would run another role's function with our rights"))
        else:
            found.append(key)
    return found, findings


def _denied(key: ForeignKey, reason: str) -> Finding:
    return Finding(cls=FindingClass.DENIED, object=key.title, reason=reason)


def anti_joins(key: ForeignKey) -> list[str]:
    """Queries whose counts together are the rows that break the key. Pure.

    One query per rule instead of an OR: each then is a plain anti-join or a plain scan.
    """
    rows = f"{'' if key.scans_children else 'ONLY '}{key.table.sql} r"
    columns = [f"r.{quote_ident(c)}" for c in key.columns]
    all_set = " AND ".join(f"{c} IS NOT NULL" for c in columns)
    queries = [f"SELECT pg_catalog.count(*) FROM {rows} WHERE {all_set} AND {_unmatched(key, columns)}"]
    if key.full and len(columns) > 1:
        some_set = " OR ".join(f"{c} IS NOT NULL" for c in columns)
        queries.append(f"SELECT pg_catalog.count(*) FROM {rows} WHERE ({some_set}) AND NOT ({all_set})")
    return queries


def _unmatched(key: ForeignKey, columns: list[str]) -> str:
    # An operator of the constraint is `referenced OPERATOR(schema.name) referring`; a period's is "overlaps". Of two
    # collations the referenced column's counts (PostgreSQL source: RI_Initial_Check), said on its own side: there an
    # index fits, and the column is of a type that can be collated.
    matches = " AND ".join(
        f"p.{quote_ident(k)}{_collate(collation)} OPERATOR({quote_ident(schema)}.{operator}) {c}"
        for k, c, (schema, operator), collation in zip(key.keys, columns, key.operators, key.collations, strict=True)
    )
    source = f"{'' if key.referenced_scans_children else 'ONLY '}{key.referenced.sql} p WHERE {matches}"
    if key.period:
        whole = f"(SELECT pg_catalog.range_agg(p.{quote_ident(key.keys[-1])}) FROM {source})"
        return f"({whole} OPERATOR(pg_catalog.@>) {columns[-1]}) IS NOT TRUE"
    return f"NOT EXISTS (SELECT FROM {source})"


def _collate(collation: QualifiedName | None) -> str:
    return f" COLLATE {collation.sql}" if collation is not None else ""


def check_foreign_keys(session: Session, keys: Sequence[ForeignKey]) -> list[Finding]:
    """Findings of several keys, counted by one statement; where that is refused, by one for each."""
    if len(keys) > 1:
        try:
            with session.given_back():
                counts = session.one(f"SELECT {', '.join(map(_orphans, keys))}")
        except SqlError as error:
            if _ends_the_proof(session, error):
                raise
        else:
            found = [_found(key, int(count)) for key, count in zip(keys, counts, strict=True)]
            return [finding for finding in found if finding is not None]
    found = [check_foreign_key(session, key) for key in keys]
    return [finding for finding in found if finding is not None]


def check_foreign_key(session: Session, key: ForeignKey) -> Finding | None:
    """A `lost` finding with the number of orphans or why they could not be counted, or None."""
    try:
        with session.given_back():
            (orphans,) = session.one(f"SELECT {_orphans(key)}")
    except SqlError as error:
        if _ends_the_proof(session, error):
            raise
        if error.sqlstate == _NO_RIGHT:
            return _denied(key, "no right to compare its columns")
        return _lost(key, f"could not be checked: {error.msg}")
    return _found(key, int(orphans))


def _ends_the_proof(session: Session, error: SqlError) -> bool:
    return session.broken or error.sqlstate in _ENDS_THE_PROOF


def _orphans(key: ForeignKey) -> str:
    return " + ".join(f"({sql})" for sql in anti_joins(key))


def _found(key: ForeignKey, orphans: int) -> Finding | None:
    if not orphans:
        return None
    return _lost(key, f"{orphans:,} rows refer to rows of {key.referenced} that do not exist")


def _lost(key: ForeignKey, reason: str) -> Finding:
    return Finding(cls=FindingClass.LOST, object=key.title, reason=reason)
