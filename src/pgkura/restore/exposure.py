"""Which definitions run functions of other people the moment they are executed. Pure.

Most definitions only store an expression. These evaluate it, in whole or in its constant parts, with the rights of
whoever executes them (PostgreSQL source: ConstraintImpliedByRelConstraint, contain_mutable_functions_after_planning,
RelationGetIndexExpressions, RI_Initial_Check). Index builds and REFRESH do not belong here: they run as the owner in a
restricted context.
"""

from collections.abc import Collection, Mapping

from pgkura.catalog.inventory import Items
from pgkura.catalog.toc import Entry, Toc
from pgkura.core.facts import SourceFacts
from pgkura.core.names import QualifiedName

_ROUTINES = frozenset({"FUNCTION", "PROCEDURE", "AGGREGATE"})
# What carries code into what uses it. A table carries its checks into its partitions and foreign keys.
_CARRIERS = frozenset({
    "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "CAST", "DOMAIN", "TYPE", "TABLE", "INDEX", "STATISTICS",
    "CHECK CONSTRAINT",
})  # fmt: skip


def foreign_code(toc: Toc, trusted: Collection[str]) -> frozenset[int]:
    """Entries that hold, or are built with, code of a role that is not `trusted` (superusers and the restoring role).

    Wider than the truth, since a plain DEFAULT counts too: running as its owner what stores an expression is no harm.
    """
    tainted: set[int] = set()
    for entry in toc.entries:
        if entry.desc in _ROUTINES:
            if entry.owner not in trusted:
                tainted.add(entry.dump_id)
        elif entry.desc in _CARRIERS and any(d in tainted for d in entry.deps):
            tainted.add(entry.dump_id)
    return frozenset(tainted)


def evaluating(toc: Toc, facts: SourceFacts, tainted: frozenset[int]) -> frozenset[int]:
    """Entries that would run tainted code when executed: they go to a login that is nobody but the owner."""
    if not tainted:
        return frozenset()
    computed = _computed(facts)
    by_id = {e.dump_id: e for e in toc.entries}
    casts = any(by_id[d].desc == "CAST" for d in tainted)
    parts_of: dict[int, bool] = {}
    for entry in toc.entries:
        if entry.dump_id in tainted and entry.desc in ("INDEX", "STATISTICS"):
            parts_of.update((d, True) for d in entry.deps if d in by_id and by_id[d].desc == "TABLE")
    return frozenset(
        e.dump_id for e in toc.entries if _evaluates(e, by_id, tainted, computed, casts=casts, parts_of=parts_of)
    )


def _evaluates(
    entry: Entry,
    by_id: dict[int, Entry],
    tainted: frozenset[int],
    computed: frozenset[QualifiedName],
    *,
    casts: bool,
    parts_of: dict[int, bool],
) -> bool:
    touched = any(d in tainted for d in entry.deps)
    if entry.desc == "TABLE":
        child = any(d in by_id and by_id[d].desc == "TABLE" for d in entry.deps)
        return touched and (child or QualifiedName(entry.schema, entry.tag) in computed)
    if entry.desc in ("TABLE ATTACH", "INDEX ATTACH", "CHECK CONSTRAINT"):
        return touched
    if entry.desc == "FK CONSTRAINT":
        return casts or touched or any(d in parts_of for d in entry.deps)
    return False


def watched(toc: Toc, facts: SourceFacts, items: Items, tainted: frozenset[int]) -> tuple[QualifiedName, ...]:
    """Tables whose rows will run tainted code when loaded, as far as the archive tells; the target is asked again."""
    checked = {str(a.get("of")) for (cls, _), a in items.items() if cls == "constraint" and _is_check(a)}
    computed = _computed(facts)
    plain = {identity.replace('"', "") for identity in checked}
    by_id = {e.dump_id: e for e in toc.entries}
    found = []
    for entry in toc.entries:
        if entry.desc != "TABLE" or entry.dump_id not in tainted:
            continue
        name = QualifiedName(entry.schema, entry.tag)
        inherits = any(d in tainted and by_id[d].desc in ("TYPE", "DOMAIN", "TABLE") for d in entry.deps)
        if inherits or name in computed or f"{entry.schema}.{entry.tag}" in plain:
            found.append(name)
    return tuple(found)


def _computed(facts: SourceFacts) -> frozenset[QualifiedName]:
    """Tables with generated columns or a partition key (archives tell the kind of a relation since 17 only)."""
    return frozenset(t.qname for t in facts.tables if t.kind == "p" or any(c.generated for c in t.columns))


def _is_check(attributes: Mapping[str, object]) -> bool:
    return str(attributes.get("definition", "")).startswith("CHECK")
