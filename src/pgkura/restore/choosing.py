"""Which of an archive's entries a restore executes, and what is said about the others. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from pgkura.catalog.components import text_of
from pgkura.catalog.kinds import KINDS, Section
from pgkura.catalog.toc import Entry, Toc
from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.restore.target import Target

_SETTINGS = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"})
_RELATIONS = frozenset({"TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"})
# What says something about any object, and what is a part of a relation.
_ABOUT = frozenset({"ACL", "COMMENT", "SECURITY LABEL", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA"})
_PARTS = frozenset({
    "DEFAULT", "INDEX", "INDEX ATTACH", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "RULE", "POLICY",
    "ROW SECURITY", "STATISTICS", "SEQUENCE", "SEQUENCE OWNED BY", "TABLE ATTACH",
})  # fmt: skip
_CREATED_IN_SCHEMA = frozenset({
    "TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "FUNCTION", "PROCEDURE", "AGGREGATE", "TYPE", "DOMAIN",
    "FOREIGN TABLE", "COLLATION", "TEXT SEARCH DICTIONARY", "TEXT SEARCH CONFIGURATION",
})  # fmt: skip
_SUPERUSERS_OWN = frozenset(
    {"OPERATOR CLASS", "OPERATOR FAMILY", "ACCESS METHOD", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE"}
)
_OWNERS_OWN = frozenset({"INDEX", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "RULE", "STATISTICS"})
_ON_A_TABLE = frozenset({"TRIGGER", "POLICY", "RULE", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT"})
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

# Their tags are bare names; those of routines, operators and casts are SQL already.
_NAMED = _RELATIONS | {
    "SCHEMA", "EXTENSION", "TYPE", "DOMAIN", "COLLATION", "CONVERSION", "INDEX", "STATISTICS", "EVENT TRIGGER",
    "PUBLICATION", "SUBSCRIPTION", "SERVER", "FOREIGN DATA WRAPPER", "ACCESS METHOD", "PROCEDURAL LANGUAGE",
    "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "TEXT SEARCH DICTIONARY", "TEXT SEARCH CONFIGURATION",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """entries to execute in archive order; `kept`: entries of which the target has its own, which nobody touches."""

    entries: tuple[Entry, ...]
    kept: tuple[Entry, ...]
    findings: tuple[Finding, ...]

    @property
    def kept_relations(self) -> frozenset[QualifiedName]:
        """Relations whose rows, values and privileges are not ours to change."""
        return frozenset(QualifiedName(e.schema, e.tag) for e in self.kept if e.desc in _RELATIONS)


def is_last(entry: Entry) -> bool:
    """Whether it waits until all else is done: an event trigger would fire for our own work."""
    return entry.desc == "EVENT TRIGGER" or entry.subject == "EVENT TRIGGER"


def choose(toc: Toc, target: Target) -> Chosen:
    """What is not there yet, not the platform's, and not forbidden."""
    there: dict[tuple[str, str, str], set[str]] = {}
    for entry in target.standing:
        there.setdefault(entry.key, set()).add(text_of(entry))
    foreign = {e.key for e in target.foreign}
    by_id = {e.dump_id: e for e in toc.entries}
    kept: dict[int, Entry] = {}
    chosen: list[Entry] = []
    findings: list[Finding] = []
    for entry in toc.entries:
        if entry.desc in _SETTINGS or entry.subject == "DATABASE" or KINDS[entry.desc].section is Section.NEVER:
            continue
        if entry.key in foreign and entry.desc != "EXTENSION":
            kept[entry.dump_id] = entry
            findings.append(_lost(title_of(entry, by_id), "the target has its own, which was left as it is"))
        elif _belongs_to(entry, kept):
            kept[entry.dump_id] = entry
        elif (same := there.get(entry.key)) is not None and (
            text_of(entry) in same or _is_platform_object(entry, target) or entry.desc == "EXTENSION"
        ):
            if text_of(entry) not in same and entry.desc != "EXTENSION":
                findings.append(_managed(entry, by_id, "the target's platform has its own version of it"))
        elif same is None and _is_platform_object(entry, target):
            findings.append(_missing_platform(entry, by_id))
        elif why := forbidden(entry, target, by_id):
            findings.append(Finding(cls=FindingClass.DENIED, object=title_of(entry, by_id), reason=why))
        else:
            chosen.append(entry)
    return Chosen(entries=tuple(chosen), kept=tuple(kept.values()), findings=tuple(findings))


def _belongs_to(entry: Entry, kept: Mapping[int, Entry]) -> bool:
    """Whether it would change an object that the target had before."""
    if entry.desc in _ABOUT:
        return any(d in kept for d in entry.deps)
    return entry.desc in _PARTS and any(d in kept and kept[d].desc in _RELATIONS for d in entry.deps)


def _is_platform_object(entry: Entry, target: Target) -> bool:
    platform = target.platform
    if platform.name == "plain" or entry.desc in ("ACL", "COMMENT"):
        return False
    if entry.desc == "SCHEMA":
        return entry.tag in platform.managed_schemas
    if entry.desc in ("TRIGGER", "POLICY", "PUBLICATION TABLE", "PUBLICATION"):
        return False
    return entry.owner in platform.owners


def forbidden(entry: Entry, target: Target, by_id: Mapping[int, Entry]) -> str:
    """Why this role may not run this entry on this target; '' if it may, as far as can be known before."""
    if entry.desc == "EXTENSION" and entry.tag not in target.extensions:
        return "the target does not offer this extension"
    if target.may.superuser:
        return ""
    if entry.desc == "EVENT TRIGGER" and not target.supautils:
        return "only a superuser may create event triggers"
    if entry.desc in _SUPERUSERS_OWN:
        return "only a superuser may create one"
    if entry.desc == "SCHEMA" and not target.can_create and entry.tag not in target.schemas:
        return "no right to create schemas in the database"
    if entry.desc == "DEFAULT ACL" and entry.owner and entry.owner not in target.member_of:
        return f"default privileges of {entry.owner} may be changed by its members only"
    table = table_of(entry, by_id)
    rights = target.rights.get(table) if table is not None else None
    if rights is not None and not rights.owner:
        return _forbidden_on_table(entry, trigger=rights.trigger, policies=target.supautils)
    if entry.schema and entry.desc in _CREATED_IN_SCHEMA and target.schemas.get(entry.schema) is False:
        return f"no right to create in schema {quote_ident(entry.schema)}"
    return ""


def _forbidden_on_table(entry: Entry, *, trigger: bool, policies: bool) -> str:
    if entry.desc == "TRIGGER" and not trigger:
        return "no TRIGGER right on its table"
    if entry.desc in ("POLICY", "ROW SECURITY") and not policies:
        return "only the owner of its table may create it"
    if entry.desc in _OWNERS_OWN:
        return "only the owner of its table may create it"
    if entry.desc == "COMMENT":
        return "only the owner of its table may comment on it"
    return ""


def table_of(entry: Entry, by_id: Mapping[int, Entry]) -> QualifiedName | None:
    """The relation that a trigger, policy, index, comment … belongs to."""
    if entry.desc not in _PARTS and entry.desc != "COMMENT":
        return None
    owners = [by_id[d] for d in entry.deps if d in by_id and by_id[d].desc in _RELATIONS]
    # A constraint with its table first in its tag may depend on other tables too (a foreign key does).
    first = next((o for o in owners if entry.tag.startswith(f"{o.tag} ")), owners[0] if owners else None)
    return QualifiedName(first.schema, first.tag) if first is not None else None


def title_of(entry: Entry, by_id: Mapping[int, Entry]) -> str:
    """As the inventory names it, so that a finding of the plan and one of the proof meet."""
    table = table_of(entry, by_id) if entry.desc in _ON_A_TABLE else None
    if table is not None:
        name = entry.tag.removeprefix(f"{table.name} ")
        kind = "constraint" if entry.desc.endswith("CONSTRAINT") else entry.desc.lower()
        return f"{kind} {quote_ident(name)} on {table}"
    kind = _INVENTORY_KINDS.get(entry.desc, entry.desc.lower().replace(" ", "_"))
    schema = f"{quote_ident(entry.schema)}." if entry.schema else ""
    return f"{kind} {schema}{quote_ident(entry.tag) if entry.desc in _NAMED else entry.tag}"


def _lost(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.LOST, object=name, reason=reason)


def _managed(entry: Entry, by_id: Mapping[int, Entry], reason: str) -> Finding:
    return Finding(cls=FindingClass.MANAGED, object=title_of(entry, by_id), reason=reason, rule="platform-object")


def _missing_platform(entry: Entry, by_id: Mapping[int, Entry]) -> Finding:
    if entry.desc == "DEFAULT ACL":
        reason = "default privileges of a platform's role; the target's platform has its own"
        return _managed(entry, by_id, reason)
    reason = "an object of the platform that the target's platform does not have"
    return _lost(title_of(entry, by_id), reason)
