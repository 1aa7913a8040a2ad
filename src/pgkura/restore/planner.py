"""A snapshot and a target become a frozen plan. Pure: what can be known before the first write is known here.

`--dry-run` renders the plan, a real run executes the same object.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pgkura.catalog.components import stage_of, text_of
from pgkura.catalog.inventory import Items, as_owned_by
from pgkura.catalog.kinds import Stage
from pgkura.catalog.reconcile import wanted_acls
from pgkura.catalog.roles import (
    Statement,
    database_statements,
    managed_settings,
    membership_statements,
    role_statements,
)
from pgkura.catalog.toc import Entry, Toc
from pgkura.core.errors import TargetNotEmpty
from pgkura.core.facts import LargeObjectFacts, MembershipFacts, SequenceState, SourceFacts
from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.platform import Platform
from pgkura.repository.lists import BLOBS, TableData
from pgkura.restore.choosing import Chosen, choose, is_last, title_of
from pgkura.restore.exposure import evaluating, foreign_code, watched
from pgkura.restore.going_on import NOTHING, Kept, kept_by, work_of
from pgkura.restore.key_steps import bare_indexes
from pgkura.restore.loads import Load, plan_loads
from pgkura.restore.marker import Mark, keys
from pgkura.restore.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user allowed."""

    allow_non_empty: bool = False
    trust_code: bool = False
    accepted: tuple[str, ...] = ()
    parallel: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """Exactly what will be done. `fingerprint` is of the target's definitions it was computed from.

    reading        settings under which the archive's text is read
    closed         others can reach the target: each relation is made shut, and opened at the end
    before, after  entries around the rows, in archive order; then `privileges`, and `last` of all event triggers
    empty          tables of the platform that hold rows: emptied before they are loaded, unless these rows are kept
    as_owner       entries that run other roles' code when executed; `lent`: what their owner's login needs for it
    watched        tables whose rows run other roles' code when loaded
    kept           what a restore that was cut short has done and this one goes on from
    mark           left on the target until the restore is whole; `cut_short` is the one found there
    titles         names of entries as the inventory has them
    """

    snapshot: str
    target: str
    kind: str
    platform: Platform
    reading: tuple[str, ...]
    closed: bool
    roles: tuple[Statement, ...]
    before: tuple[Entry, ...]
    empty: tuple[QualifiedName, ...]
    loads: tuple[Load, ...]
    blobs: TableData | None
    large_objects: tuple[LargeObjectFacts, ...]
    sequences: tuple[SequenceState, ...]
    after: tuple[Entry, ...]
    privileges: tuple[Entry, ...]
    last: tuple[Entry, ...]
    database: tuple[Statement, ...]
    as_owner: frozenset[int]
    lent: Mapping[int, tuple[str, ...]]
    watched: tuple[QualifiedName, ...]
    titles: Mapping[int, str]
    facts: SourceFacts
    wanted_acls: Items
    findings: tuple[Finding, ...]
    options: Options
    fingerprint: str
    mark: Mark
    cut_short: Mark | None
    needs_confirmation: bool
    kept: Kept = NOTHING

    @property
    def hosted(self) -> bool:
        """Whether the target's platform makes its own part."""
        return self.platform.name != "plain"

    @property
    def rows(self) -> int:
        """Rows to load."""
        return sum(load.data.rows for load in self.loads)

    @property
    def bytes(self) -> int:
        """Plain bytes to load."""
        return sum(load.data.bytes for load in self.loads) + (self.blobs.bytes if self.blobs else 0)

    @property
    def started_over(self) -> bool:
        """Whether a restore that was cut short is cleared first."""
        return self.cut_short is not None and not self.goes_on

    @property
    def goes_on(self) -> bool:
        """Whether a restore that was cut short is gone on with."""
        return bool(self.kept.layers)

    @property
    def bytes_left(self) -> int:
        """Plain bytes of tables that are not there yet."""
        return sum(x.data.bytes for x in self.loads if x.data.layers) - self.kept.bytes(self.loads)

    @property
    def truncate(self) -> tuple[QualifiedName, ...]:
        """The platform's tables that are emptied first, if all goes as planned."""
        return () if self.goes_on else self.empty


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
    foreign = target.foreign
    if foreign and not options.allow_non_empty:
        names = ", ".join(e.title for e in foreign[:5])
        raise TargetNotEmpty(
            f"the target {target.display} is not empty",
            detail=f"it holds {len(foreign)} objects: {names}{' …' if len(foreign) > 5 else ''}",
            hint="restore into a new database, or add --allow-non-empty to restore beside what is there; if a restore "
            "made these, `pgkura verify ID --against URL` says whether it is whole",
        )
    chosen = choose(toc, target)
    loads = plan_loads(facts, tables, target, chosen.kept_relations)
    findings = [*chosen.findings, *loads.findings]
    taken = target.standing_large_objects
    findings.extend(
        _lost(f"large object {o.oid}", "the target has another one under this number")
        for o in facts.large_objects
        if o.oid in taken
    )
    objects = tuple(o for o in facts.large_objects if o.oid not in taken)
    roles = _allowed(
        [
            *role_statements(facts.roles, target.roles, target.platform, target.may),
            *membership_statements(_grants(facts), target.memberships, target.platform, target.may, target.role),
        ],
        findings,
    )
    database = _allowed(_database(facts, target), findings)
    main = [e for e in chosen.entries if e.desc not in ("ACL", "DEFAULT ACL") and not is_last(e)]
    after_ids = {e.dump_id for e in toc.after_rows()}
    by_id = {e.dump_id: e for e in toc.entries}
    tainted = frozenset[int]() if options.trust_code else foreign_code(toc, _trusted(facts, target))
    as_owner = evaluating(toc, facts, tainted)
    before = tuple(e for e in main if e.dump_id not in after_ids)
    after = tuple(e for e in main if e.dump_id in after_ids)
    closed = target.platform.name != "plain" or any(e.desc == "DEFAULT ACL" for e in target.present.entries)
    mark = Mark(
        snapshot=snapshot,
        before=keys(target.standing),
        ours=keys(chosen.entries) | bare_indexes(chosen.entries),
        large_objects_before=taken,
        large_objects=frozenset(o.oid for o in objects),
        work=work_of(before, after, loads.loads, closed, options.trust_code, sorted(as_owner), target.role),
    )
    kept = kept_by(target.mark, mark, target.present, before, after)
    return RestorePlan(
        snapshot=snapshot,
        target=target.display,
        kind=target.kind,
        platform=target.platform,
        # How the archive's literals are to be read (standard_conforming_strings); its search_path is empty as ours.
        reading=tuple(e.defn for e in toc.entries if e.desc == "STDSTRINGS"),
        closed=closed,
        roles=roles,
        before=before,
        empty=loads.empty,
        loads=loads.loads,
        blobs=next((t for t in tables if t.number == BLOBS), None),
        large_objects=objects,
        sequences=tuple(s for s in facts.sequences if s.qname not in chosen.kept_relations),
        after=after,
        privileges=tuple(e for e in chosen.entries if e.desc in ("ACL", "DEFAULT ACL")),
        last=tuple(e for e in chosen.entries if is_last(e)),
        database=database,
        as_owner=as_owner,
        lent={e.dump_id: _lent(e, by_id) for e in chosen.entries if e.dump_id in as_owner},
        watched=watched(toc, facts, items, tainted),
        titles={e.dump_id: title_of(e, by_id) for e in chosen.entries},
        facts=facts,
        wanted_acls=_wanted(items, target, facts, chosen, by_id),
        findings=tuple(findings),
        options=options,
        fingerprint=fingerprint(target.present),
        mark=mark,
        kept=kept,
        cut_short=target.mark,
        needs_confirmation=bool(foreign) or (bool(loads.empty) and target.mark is None),
    )


def _trusted(facts: SourceFacts, target: Target) -> set[str]:
    """Whose functions may run with our rights: our own, and those of whoever is a superuser on the target."""
    superusers = {r.name for r in target.roles if r.superuser}
    coming = {r.name for r in facts.roles if r.superuser} if target.may.superuser else set[str]()
    return {target.role} | superusers | coming


def _lent(entry: Entry, by_id: Mapping[int, Entry]) -> tuple[str, ...]:
    """What a table's owner may not do yet, or not any more, and needs for this one statement."""
    if entry.desc == "TABLE":
        return (f"CREATE ON SCHEMA {quote_ident(entry.schema)}",)
    if entry.desc != "FK CONSTRAINT":
        return ()
    tables = [by_id[d] for d in entry.deps if d in by_id and by_id[d].desc == "TABLE"]
    return tuple(f"REFERENCES ON {QualifiedName(t.schema, t.tag)}" for t in tables if t.owner != entry.owner)


def _grants(facts: SourceFacts) -> list[MembershipFacts]:
    """Memberships; what a superuser granted is granted by whoever restores, as the server itself would note it."""
    superusers = {r.name for r in facts.roles if r.superuser and r.managed}
    return [replace(m, grantor="") if m.grantor in superusers else m for m in facts.memberships]


def _database(facts: SourceFacts, target: Target) -> Sequence[Statement]:
    may = target.may
    return [
        *database_statements(facts.database, target.database, target.platform, superuser=may.superuser, me=target.role),
        *managed_settings(facts.roles, target.roles, target.platform, may, target.role),
    ]


def _wanted(items: Items, target: Target, facts: SourceFacts, chosen: Chosen, by_id: Mapping[int, Entry]) -> Items:
    kept = {_plain(title_of(e, by_id)) for e in chosen.kept}
    first = next((r.name for r in target.roles if r.managed), "") if target.platform.name == "plain" else ""
    wanted = wanted_acls(as_owned_by(items, first), target.platform, facts.server_version_num // 10000)
    return {key: value for key, value in wanted.items() if _plain(" ".join(key)) not in kept}


def _plain(name: str) -> str:
    """Names of the inventory and ours differ in quotes and spaces only."""
    return name.replace('"', "").replace(" ", "")


def _lost(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.LOST, object=name, reason=reason)


def _allowed(statements: Iterable[Statement], findings: list[Finding]) -> tuple[Statement, ...]:
    allowed = []
    for statement in statements:
        if statement.forbidden:
            findings.append(Finding(cls=FindingClass.DENIED, object=statement.object, reason=statement.forbidden))
        else:
            allowed.append(statement)
    return tuple(allowed)


def stage_counts(plan: RestorePlan) -> dict[Stage, int]:
    """How many objects each of the plan's eleven stages brings back."""
    counts = dict.fromkeys(Stage, 0)
    for entry in (*plan.before, *plan.after, *plan.privileges, *plan.last):
        counts[stage_of(entry)] += 1
    counts[Stage.ROLES] = len(plan.roles)
    counts[Stage.DATA] = len(plan.loads) + len(plan.large_objects)
    counts[Stage.SEQUENCES] = len(plan.sequences)
    return counts
