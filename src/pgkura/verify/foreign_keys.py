"""Foreign keys checked by anti-joins: VALIDATE CONSTRAINT on a valid constraint looks at nothing.

Rows loaded with triggers off were never checked by the server. Semantics: PostgreSQL documentation, "CREATE TABLE",
MATCH SIMPLE (any NULL: not checked) and MATCH FULL (all NULL or none).
"""

from dataclasses import dataclass

from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """One constraint with its own equality operators."""

    table: QualifiedName
    name: str
    referenced: QualifiedName
    full: bool
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    operators: tuple[tuple[str, str], ...]  # schema, name


def read_foreign_keys(session: Session) -> tuple[list[ForeignKey], list[Finding]]:
    """Those that can be checked, and a finding for each that cannot."""
    found: list[ForeignKey] = []
    findings: list[Finding] = []
    for row in session.rows(query("foreign_keys", "list")):
        schema, table, name, fschema, ftable, match, columns, keys, ops, op_schemas, readable, period, trusted = row
        title = f"foreign key {quote_ident(name)} on {QualifiedName(schema, table)}"
        if not readable:
            findings.append(Finding(cls=FindingClass.DENIED, object=title, reason="no right to read both tables"))
        elif not trusted:
            reason = "its operators are a tenant's own code, which is not run with our rights"
            findings.append(Finding(cls=FindingClass.DENIED, object=title, reason=reason))
        elif not period:
            found.append(
                ForeignKey(
                    table=QualifiedName(schema, table),
                    name=name,
                    referenced=QualifiedName(fschema, ftable),
                    full=match == "f",
                    columns=tuple(columns),
                    keys=tuple(keys),
                    operators=tuple(zip(op_schemas, ops, strict=True)),
                )
            )
    return found, findings


def anti_join(key: ForeignKey) -> str:
    """Counts rows that refer to nothing. An operator is `referenced OPERATOR(schema.=) referencing`. Pure."""
    columns = [f"r.{quote_ident(c)}" for c in key.columns]
    matches = " AND ".join(
        f"p.{quote_ident(k)} OPERATOR({quote_ident(s)}.{o}) {c}"
        for k, c, (s, o) in zip(key.keys, columns, key.operators, strict=True)
    )
    all_set = " AND ".join(f"{c} IS NOT NULL" for c in columns)
    missing = f"({all_set} AND NOT EXISTS (SELECT FROM {key.referenced.sql} p WHERE {matches}))"
    if key.full and len(columns) > 1:
        any_set = " OR ".join(f"{c} IS NOT NULL" for c in columns)
        missing = f"({missing} OR (({any_set}) AND NOT ({all_set})))"
    return f"SELECT count(*) FROM {key.table.sql} r WHERE {missing}"


def check_foreign_key(session: Session, key: ForeignKey) -> Finding | None:
    """A `lost` finding with the number of orphans, or None."""
    orphans = session.one(anti_join(key))[0]
    if not orphans:
        return None
    return Finding(
        cls=FindingClass.LOST,
        object=f"foreign key {quote_ident(key.name)} on {key.table}",
        reason=f"{orphans} rows refer to rows of {key.referenced} that do not exist",
    )
