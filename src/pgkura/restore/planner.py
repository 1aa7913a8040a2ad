"""A snapshot and a target become a frozen plan. Pure: what can be known before the first write is known here.

`--dry-run` renders the plan, a real run executes the same object.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgkura.catalog.components import stage_of, text_of
from pgkura.catalog.inventory import Items
from pgkura.catalog.kinds import KINDS, Section, Stage
from pgkura.catalog.reconcile import wanted_acls
from pgkura.catalog.roles import Statement, database_statements, membership_statements, role_statements
from pgkura.catalog.toc import Entry, Toc
from pgkura.core.errors import TargetNotEmpty
from pgkura.core.facts import SourceFacts, TableFacts
from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.repository.lists import BLOBS, TableData
from pgkura.restore.target import Target

_SKIPPED_KINDS = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user allowed."""

    allow_non_empty: bool = False
    trust_code: bool = False
    accepted: tuple[str, ...] = ()
    parallel: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One table's rows.

    columns  those both sides have; keep: their places in the stored rows, () = all of them
    managed  a platform's table: loaded with triggers and foreign keys off
    """

    data: TableData
    facts: TableFacts | None
    target: QualifiedName
    columns: tuple[str, ...]
    managed: bool
    keep: tuple[int, ...] = ()
    delete_where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """Exactly what will be done. `fingerprint` is of the target's definitions it was computed from."""

    snapshot: str
    target: str
    kind: str
    reading: tuple[str, ...]
    closed: bool
    roles: tuple[Statement, ...]
    before: tuple[Entry, ...]
    loads: tuple[Load, ...]
    truncate: tuple[QualifiedName, ...]
    blobs: TableData | None
    after: tuple[Entry, ...]
    privileges: tuple[Entry, ...]
    last: tuple[Entry, ...]
    database: tuple[Statement, ...]
    facts: SourceFacts
    wanted_acls: Items
    findings: tuple[Finding, ...]
    options: Options
    fingerprint: str
    started_over: bool
    needs_confirmation: bool

    @property
    def rows(self) -> int:
        """Rows to load."""
        return sum(load.data.rows for load in self.loads)

    @property
    def bytes(self) -> int:
        """Plain bytes to load."""
        return sum(load.data.bytes for load in self.loads) + (self.blobs.bytes if self.blobs else 0)


def fingerprint(present: Toc) -> str:
    """Of a target's definitions: a plan is executed only on what it was computed from."""
    digest = hashlib.sha256()
    for entry in sorted(present.entries, key=lambda e: (e.key, text_of(e))):
        digest.update(repr((entry.key, text_of(entry))).encode())
    return digest.hexdigest()


def plan_restore(
    snapshot: str,
    facts: SourceFacts,
    toc: Toc,
    tables: Sequence[TableData],
    items: Items,
    target: Target,
    options: Options,
) -> RestorePlan:
    """Raises TargetNotEmpty unless allowed; all else that cannot be done is a finding in the plan."""
    foreign = () if target.half_done else target.foreign
    if foreign and not options.allow_non_empty:
        names = ", ".join(e.title for e in foreign[:5])
        raise TargetNotEmpty(
            f"the target {target.display} is not empty",
            detail=f"it holds {len(foreign)} objects: {names}{' …' if len(foreign) > 5 else ''}",
            hint="restore into a new database; or add --allow-non-empty to restore beside what is there",
        )
    findings: list[Finding] = []
    wanted = _chosen(toc, target, findings)
    main = [e for e in wanted if e.desc not in ("ACL", "DEFAULT ACL") and not _is_last(e)]
    after_ids = {e.dump_id for e in toc.after_rows()}
    loads, truncate = _loads(facts, tables, target, findings)
    blobs = next((t for t in tables if t.number == BLOBS), None)
    taken = sorted(target.large_objects & {o.oid for o in facts.large_objects}) if not target.half_done else []
    findings.extend(_lost(f"large object {oid}", "the target has another one under this number") for oid in taken)
    roles = _allowed(
        [
            *role_statements(facts.roles, target.roles, target.platform, target.may),
            *membership_statements(facts.memberships, target.memberships, target.platform, target.may),
        ],
        findings,
    )
    database = _allowed(
        database_statements(facts.database, target.database, superuser=target.may.superuser, me=target.role)
        if target.platform.name == "plain" or facts.database.settings != target.database.settings
        else [],
        findings,
    )
    if target.platform.name != "plain":
        database = tuple(s for s in database if s.object != "database owner")
    return RestorePlan(
        snapshot=snapshot,
        target=target.display,
        kind=target.kind,
        # How the archive's literals are to be read (standard_conforming_strings); its search_path is empty as ours.
        reading=tuple(e.defn for e in toc.entries if e.desc == "STDSTRINGS"),
        closed=target.platform.name != "plain" or any(e.desc == "DEFAULT ACL" for e in target.present.entries),
        roles=roles,
        before=tuple(e for e in main if e.dump_id not in after_ids),
        loads=loads,
        truncate=truncate,
        blobs=blobs,
        after=tuple(e for e in main if e.dump_id in after_ids),
        privileges=tuple(e for e in wanted if e.desc in ("ACL", "DEFAULT ACL")),
        last=tuple(e for e in wanted if _is_last(e)),
        database=database,
        facts=facts,
        wanted_acls=wanted_acls(items, target.platform, facts.server_version_num // 10000),
        findings=tuple(findings),
        options=options,
        fingerprint=fingerprint(target.present),
        started_over=target.half_done,
        needs_confirmation=bool(foreign) or (bool(truncate) and not target.half_done),
    )


def _is_last(entry: Entry) -> bool:
    return entry.desc == "EVENT TRIGGER" or entry.subject == "EVENT TRIGGER"


def _chosen(toc: Toc, target: Target, findings: list[Finding]) -> list[Entry]:
    """The entries to execute: not there yet, not the platform's, not forbidden."""
    there: dict[tuple[str, str, str], set[str]] = {}
    for entry in target.present.entries:
        there.setdefault(entry.key, set()).add(text_of(entry))
    created_by_us = target.half_done
    chosen: list[Entry] = []
    for entry in toc.entries:
        if entry.desc in _SKIPPED_KINDS or entry.subject == "DATABASE":
            continue
        if KINDS[entry.desc].section is Section.NEVER:
            continue
        same = there.get(entry.key)
        if same is not None and not created_by_us and text_of(entry) in same:
            continue
        if same is not None and not created_by_us:
            if _is_platform_object(entry, target):
                findings.append(_managed(entry, "the target's platform has its own version of it"))
                continue
            if entry.desc == "EXTENSION":
                continue
        elif _is_platform_object(entry, target):
            findings.append(_missing_platform(entry))
            continue
        why = forbidden(entry, target)
        if why:
            findings.append(_denied(title_of(entry), why))
            continue
        chosen.append(entry)
    return chosen


def _is_platform_object(entry: Entry, target: Target) -> bool:
    platform = target.platform
    if platform.name == "plain" or entry.desc in ("ACL", "COMMENT"):
        return False
    if entry.desc == "SCHEMA":
        return entry.tag in platform.managed_schemas
    if entry.desc in ("TRIGGER", "POLICY", "PUBLICATION TABLE", "PUBLICATION"):
        return False
    return entry.owner in platform.owners


def forbidden(entry: Entry, target: Target) -> str:
    """Why this role may not run this entry on this target; '' if it may, as far as can be known before."""
    if target.may.superuser:
        return "" if entry.desc != "EXTENSION" or entry.tag in target.extensions else "the target does not offer it"
    if entry.desc == "EXTENSION" and entry.tag not in target.extensions:
        return "the target does not offer this extension"
    if entry.desc == "EVENT TRIGGER" and not target.supautils:
        return "only a superuser may create event triggers"
    if entry.desc in (
        "OPERATOR CLASS",
        "OPERATOR FAMILY",
        "ACCESS METHOD",
        "TEXT SEARCH PARSER",
        "TEXT SEARCH TEMPLATE",
    ):
        return "only a superuser may create one"
    if entry.desc == "SCHEMA" and not target.can_create and entry.tag not in target.schemas:
        return "no right to create schemas in the database"
    if entry.desc == "DEFAULT ACL" and entry.owner and entry.owner not in target.member_of:
        return f"default privileges of {entry.owner} may be changed by its members only"
    table = _table_of(entry)
    rights = target.rights.get(table) if table is not None else None
    if rights is not None and not rights.owner:
        if entry.desc == "TRIGGER" and not rights.trigger:
            return "no TRIGGER right on its table"
        if entry.desc in ("POLICY", "ROW SECURITY") and not target.supautils:
            return "only the owner of its table may create it"
        if entry.desc in ("INDEX", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "RULE", "STATISTICS"):
            return "only the owner of its table may create it"
        if entry.desc == "COMMENT":
            return "only the owner of its table may comment on it"
    creates = entry.schema and entry.desc in _CREATED_IN_SCHEMA and target.schemas.get(entry.schema) is False
    if creates and table not in target.rights:
        return f"no right to create in schema {quote_ident(entry.schema)}"
    return ""


_CREATED_IN_SCHEMA = frozenset(
    {
        "TABLE",
        "VIEW",
        "MATERIALIZED VIEW",
        "SEQUENCE",
        "FUNCTION",
        "PROCEDURE",
        "AGGREGATE",
        "TYPE",
        "DOMAIN",
        "FOREIGN TABLE",
        "COLLATION",
        "TEXT SEARCH DICTIONARY",
        "TEXT SEARCH CONFIGURATION",
    }
)


def _table_of(entry: Entry) -> QualifiedName | None:
    """The table that a trigger, policy, … belongs to: pg_dump tags them `table name`."""
    if entry.desc not in (
        "TRIGGER",
        "POLICY",
        "ROW SECURITY",
        "RULE",
        "CONSTRAINT",
        "CHECK CONSTRAINT",
        "FK CONSTRAINT",
        "DEFAULT",
        "PUBLICATION TABLE",
    ):
        return None
    return QualifiedName(entry.schema, entry.tag.split(" ", 1)[0])


_ON_A_TABLE = frozenset({"TRIGGER", "POLICY", "RULE", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT"})


def title_of(entry: Entry) -> str:
    """As the inventory names it, so that a finding of the plan and one of the proof meet."""
    if entry.desc in _ON_A_TABLE and " " in entry.tag:
        table, name = entry.tag.split(" ", 1)
        kind = "constraint" if entry.desc.endswith("CONSTRAINT") else entry.desc.lower()
        return f"{kind} {quote_ident(name)} on {quote_ident(entry.schema)}.{quote_ident(table)}"
    kind = _INVENTORY_KINDS.get(entry.desc, entry.desc.lower().replace(" ", "_"))
    schema = f"{quote_ident(entry.schema)}." if entry.schema else ""
    return f"{kind} {schema}{entry.tag}"


_INVENTORY_KINDS = {
    "TABLE": "relation",
    "VIEW": "relation",
    "MATERIALIZED VIEW": "relation",
    "FOREIGN TABLE": "relation",
    "SEQUENCE": "relation",
    "PROCEDURE": "function",
    "AGGREGATE": "function",
    "DOMAIN": "type",
    "ACL": "privileges on",
    "PROCEDURAL LANGUAGE": "language",
}


def _denied(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.DENIED, object=name, reason=reason)


def _lost(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.LOST, object=name, reason=reason)


def _managed(entry: Entry, reason: str) -> Finding:
    return Finding(cls=FindingClass.MANAGED, object=title_of(entry), reason=reason, rule="platform-object")


def _missing_platform(entry: Entry) -> Finding:
    if entry.desc == "DEFAULT ACL":
        return _managed(entry, "default privileges of a platform's role; the target's platform has its own")
    return _lost(title_of(entry), "an object of the platform that the target's platform does not have")


def _allowed(statements: Iterable[Statement], findings: list[Finding]) -> tuple[Statement, ...]:
    allowed = []
    for statement in statements:
        if statement.forbidden:
            findings.append(_denied(statement.object, statement.forbidden))
        else:
            allowed.append(statement)
    return tuple(allowed)


def _loads(
    facts: SourceFacts, tables: Sequence[TableData], target: Target, findings: list[Finding]
) -> tuple[tuple[Load, ...], tuple[QualifiedName, ...]]:
    """What to load where, largest first, and which platform tables must be emptied before."""
    loads: list[Load] = []
    truncate: list[QualifiedName] = []
    for data in tables:
        if data.number == BLOBS:
            continue
        source = facts.tables[data.number]
        there = target.tables.get(source.qname)
        if there is not None and there.managed and not target.may.superuser:
            load = _managed_load(source, there, data, target, findings, truncate)
        else:
            load = _own_load(source, data)
        if load is not None:
            loads.append(load)
    return tuple(sorted(loads, key=lambda load: -load.data.bytes)), tuple(truncate)


def _own_load(source: TableFacts, data: TableData) -> Load:
    root = source.load_root.split("\0") if source.load_root else None
    return Load(
        data=data,
        facts=source,
        target=QualifiedName(root[0], root[1]) if root else source.qname,
        columns=tuple(c.name for c in source.data_columns),
        managed=False,
        delete_where=source.config_where if source.config_of else None,
    )


def _managed_load(
    source: TableFacts,
    there: TableFacts,
    data: TableData,
    target: Target,
    findings: list[Finding],
    truncate: list[QualifiedName],
) -> Load | None:
    """A platform table: rows only, columns that both sides have."""
    name = f"rows of {source.qname}"
    if (source.schema, source.name) in target.platform.service_tables:
        if data.rows:
            findings.append(
                Finding(cls=FindingClass.MANAGED, object=name, reason="the platform's own ledger", rule="platform-rows")
            )
        return None
    if (source.schema, source.name) in (("vault", "secrets"), ("cron", "job"), ("cron", "job_run_details")):
        return None  # brought back through the platform's own functions
    if data.rows == 0:
        return None
    rights = target.rights[source.qname]
    if not rights.insert:
        findings.append(_denied(name, "no right to insert into this table of the platform"))
        return None
    if not target.replica:
        findings.append(_denied(name, "its triggers and foreign keys cannot be switched off by this role"))
        return None
    have = {c.name for c in there.data_columns}
    missing = [c.name for c in source.data_columns if c.name not in have]
    findings.extend(
        _lost(f"column {source.qname}.{quote_ident(c)}", "the target's platform has no such column") for c in missing
    )
    if rights.rows:
        if not rights.truncate:
            findings.append(_denied(name, "the target's table is not empty and this role may not empty it"))
            return None
        truncate.append(source.qname)
    return Load(
        data=data,
        facts=source,
        target=source.qname,
        columns=tuple(c.name for c in source.data_columns if c.name in have),
        managed=True,
        keep=tuple(n for n, c in enumerate(source.data_columns) if c.name in have) if missing else (),
    )


def stage_counts(plan: RestorePlan) -> dict[Stage, int]:
    """How many objects each of the plan's eleven stages brings back."""
    counts = dict.fromkeys(Stage, 0)
    for entry in (*plan.before, *plan.after, *plan.privileges, *plan.last):
        counts[stage_of(entry)] += 1
    counts[Stage.ROLES] = len(plan.roles)
    counts[Stage.DATA] = len(plan.loads) + len(plan.facts.large_objects)
    counts[Stage.SEQUENCES] = len(plan.facts.sequences)
    return counts
