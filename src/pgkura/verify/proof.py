"""Compares a database with a snapshot under one snapshot of the target, and says what differs."""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from pgkura.catalog.inventory import Versions, compare, read_items
from pgkura.catalog.platform import detect
from pgkura.core.access import Access, own_access
from pgkura.core.facts import SequenceState, SourceFacts, TableFacts
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding, Result, decide
from pgkura.core.progress import Meter, Progress
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.facts import read_facts, read_platform_names
from pgkura.postgres.inventory import read_inventory
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.repository.lists import BLOBS, TableData
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository
from pgkura.repository.rowsums import Multiset
from pgkura.repository.sums import Seen
from pgkura.snapshot.queries import query
from pgkura.verify.checks import LARGE_OBJECTS, TableCheck, plan_checks
from pgkura.verify.foreign_keys import ForeignKey, read_foreign_keys
from pgkura.verify.grouping import keys_together, tables_together
from pgkura.verify.merging import merge
from pgkura.verify.ranges import Ranges, ranges
from pgkura.verify.states import Sides, compare_states
from pgkura.verify.tables import TableResult, result_of_sums
from pgkura.verify.units import (
    APPLICATION,
    CheckReports,
    CheckUnit,
    KeyUnit,
    SumReport,
    SumUnit,
    application_name,
    key_unit,
    row_unit,
)
from pgkura.work.pools import Crew, workers
from pgkura.work.running import end_connections, end_work, run_units
from pgkura.work.station import seed

_BESIDE = "parameter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """Where a target was carried on from its snapshot: tables whose rows are later, values of all sequences.

    data  rows of another snapshot that the rest must equal; None = the snapshot's own
    """

    sequences: tuple[SequenceState, ...]
    tables: frozenset[QualifiedName] = frozenset()
    data: tuple[TableData, ...] | None = None

    def left(self, facts: SourceFacts, data: Iterable[TableData]) -> Iterator[TableData]:
        """What still equals the snapshot. Leaves that were loaded through one root are compared together or not."""
        roots = {t.load_root for t in facts.tables if t.qname in self.tables and t.load_root}
        for one in data:
            table = facts.tables[one.number] if one.number != BLOBS else None
            if table is None or (table.qname not in self.tables and (table.load_root or None) not in roots):
                yield one


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The answer.

    equal        nothing is lost and nothing denied, whatever was waived
    result       the same with waivers
    normalised   source and target are of different majors: definitions are compared by their words
    """

    snapshot: str
    target: str
    equal: bool
    result: Result
    tables: int
    rows: int
    sequences: int
    foreign_keys: int
    objects: int
    large_objects: int
    tables_in_order: int
    normalised: bool
    differences: tuple[Finding, ...]
    accepted: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The `proof` of `restore --json` and `verify --json`, and the body of its journal record."""
        return {
            "equal": self.equal,
            "result": self.result.value,
            "snapshot": self.snapshot,
            "target": self.target,
            "tables": self.tables,
            "tables_in_order": self.tables_in_order,
            "rows": self.rows,
            "sequences": self.sequences,
            "foreign_keys": self.foreign_keys,
            "objects": self.objects,
            "large_objects": self.large_objects,
            "normalised": self.normalised,
            "differences": [f.as_json() for f in self.differences],
            "accepted": list(self.accepted),
            "milliseconds": round(self.seconds * 1000),
        }


def prove(
    endpoint: Endpoint,
    repo: Repository,
    manifest: Manifest,
    *,
    told: Sequence[Finding] = (),
    accepted: Sequence[str] = (),
    parallel: int = 2,
    progress: Progress,
    stop: Stop,
    access: Access | None = None,
    crew: Crew | None = None,
    beyond: Beyond | None = None,
    seen: Seen | None = None,
) -> Proof:
    """Compare everything: rows, states, foreign keys, the whole catalog. Needs the identity; writes nothing.

    `told` are the findings of the restore, which explain differences; those of the backup itself are always counted,
    and so are its waivers. `access` lets workers outside this process open the same things by reference; without it
    the work stays in threads. `beyond`: what was carried on from the snapshot and cannot be equal to it any more;
    `seen`: what the restore before it saw of the stored rows (0003). Raises DatabaseError, Tampered, WrongKey,
    Interrupted; then nothing is proven.
    """
    begun = time.monotonic()
    repo.need_identity("comparing a database with a snapshot")
    facts = SourceFacts.from_json(json.loads(repo.component(manifest, "facts")))
    beyond = beyond or Beyond(sequences=facts.sequences)
    facts = replace(facts, sequences=beyond.sequences)
    waived = tuple(dict.fromkeys((*accepted, *manifest.accepted)))
    with connect(endpoint, application_name=APPLICATION) as session:
        session.begin()
        snapshot = str(session.one("SELECT pg_catalog.pg_export_snapshot()")[0])
        looked = _look(session, repo, manifest, facts, progress, beyond, seen)
        name = secrets.token_hex(6)
        comparing = _Comparing(
            endpoint=endpoint,
            repo=repo,
            access=replace(access or own_access(f"verify-{name}", endpoint.url(), repo.url), host_key="", run=name),
            crew=crew if crew is not None and access is not None else Crew(kind="threads"),
            snapshot=snapshot,
            epoch=manifest.epoch,
            parallel=parallel,
            progress=progress,
            stop=stop,
            plannable=looked.plannable,
        )
        results, orphans = comparing.run(looked.checks, looked.keys)
        session.rollback()
    found = [*looked.findings, *(r.finding for r in results if r.finding is not None), *orphans]
    differences = tuple(merge(merge(manifest.skipped, told), found))
    return Proof(
        snapshot=manifest.id,
        target=endpoint.display,
        equal=decide(differences) is Result.OK,
        result=decide(differences, waived),
        tables=sum(max(len(r.check.relations), 1) for r in results if r.check.name != LARGE_OBJECTS),
        tables_in_order=sum(r.in_order for r in results if r.check.name != LARGE_OBJECTS),
        rows=sum(r.rows for r in results if r.check.name != LARGE_OBJECTS),
        sequences=len(facts.sequences),
        foreign_keys=len(looked.keys),
        objects=looked.objects,
        large_objects=len(facts.large_objects),
        normalised=looked.versions.cross,
        differences=differences,
        accepted=waived,
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What the catalogs say, and what is left to do. `plannable`: tables on which a query runs no code of users."""

    findings: tuple[Finding, ...]
    checks: tuple[TableCheck, ...]
    keys: tuple[ForeignKey, ...]
    objects: int
    versions: Versions
    plannable: Mapping[str, TableFacts]


def _look(
    session: Session,
    repo: Repository,
    manifest: Manifest,
    facts: SourceFacts,
    progress: Progress,
    beyond: Beyond,
    seen: Seen | None,
) -> _Looked:
    progress.stage("comparing the catalog")
    platform = detect(*read_platform_names(session))
    read = read_facts(session, platform)
    divisible = {oid for (oid,) in session.rows(query("divisible"), (sorted(platform.owners),))}
    stored = read_items(repo.component(manifest, "inventory"))
    items = {(i.cls, i.identity): i.attributes for i in read_inventory(session)}
    # Rights to set parameters lie beside the database: those that the snapshot does not know may be another one's.
    items = {key: found for key, found in items.items() if key[0] != _BESIDE or key in stored}
    versions = Versions(source=facts.server_version_num // 10000, target=session.server_version // 10000)
    sides = Sides(
        facts=facts,
        there=read.facts,
        platform=platform,
        versions=versions,
        unreadable=frozenset(f.object for f in read.denied),
        role=str(session.one("SELECT SESSION_USER::text")[0]),
    )
    lists = beyond.left(facts, repo.chunk_list(manifest) if beyond.data is None else beyond.data)
    checks, unchecked = plan_checks(facts, lists, read.facts, platform, seen)
    keys, unchecked_keys = read_foreign_keys(session)
    different = compare(stored, items, platform, versions)
    return _Looked(
        findings=(*different, *compare_states(sides), *unchecked, *unchecked_keys),
        checks=tuple(checks),
        keys=tuple(keys),
        objects=len(items),
        versions=versions,
        plannable={str(t.qname): t for t in read.facts.tables if t.oid in divisible},
    )


def _of_ranges(one: Ranges, found: Sequence[SumReport]) -> TableResult:
    have = sum((report.rows for report in found), Multiset(0, 0))
    denied = next((report.finding for report in found if report.finding is not None), None)
    return result_of_sums(one.check, one.want, have, denied)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparing:
    """Everything that workers compare, at one snapshot. The session that exported it stays in its transaction."""

    endpoint: Endpoint
    repo: Repository
    access: Access
    crew: Crew
    snapshot: str
    epoch: int
    parallel: int
    progress: Progress
    stop: Stop
    plannable: Mapping[str, TableFacts]

    def run(self, checks: Sequence[TableCheck], keys: Sequence[ForeignKey]) -> tuple[list[TableResult], list[Finding]]:
        """All tables, then all foreign keys."""
        meter = Meter()
        seed(self.access, self.repo, stop=self.stop, moved=meter.add)
        name = application_name(self.access)
        with workers(
            self.crew.else_threads(),
            self.access,
            count=self.parallel,
            data_bytes=sum(c.bytes for c in checks),
            abort=lambda: end_work(self.access, self.endpoint, name, self.stop),
        ) as pool:
            found = self._rows(pool, checks, meter), self._keys(pool, keys_together(keys, checks))
        if self.crew.given is not None:
            end_connections(self.endpoint, name)  # of workers that were given up for lost
        return found

    def _rows(self, pool: Executor, checks: Sequence[TableCheck], meter: Meter) -> list[TableResult]:
        # What differs is read again, so this may pass its total; it never stands still.
        self.progress.stage("comparing rows", total=sum(c.bytes for c in checks), unit="bytes")
        split = [one for check in checks if (one := ranges(check, self.plannable.get(check.name))) is not None]
        whole = {id(one.check) for one in split}
        units: list[CheckUnit | SumUnit] = [
            SumUnit(access=self.access, snapshot=self.snapshot, epoch=self.epoch, check=piece)
            for one in split
            for piece in one.pieces
        ]
        units += [
            CheckUnit(access=self.access, snapshot=self.snapshot, epoch=self.epoch, checks=some)
            for some in tables_together([check for check in checks if id(check) not in whole])
        ]
        results: list[TableResult] = []
        sums: dict[str, list[SumReport]] = {}
        for unit, report in run_units(
            pool,
            row_unit,
            units,
            at_once=self.parallel,
            stop=self.stop,
            tick=lambda: self.progress.advance(meter.take()),
        ):
            meter.add(report.untold)
            if isinstance(unit, SumUnit) and isinstance(report, SumReport):
                sums.setdefault(unit.check.name, []).append(report)
            elif isinstance(unit, CheckUnit) and isinstance(report, CheckReports):
                results += [one.result(check) for check, one in zip(unit.checks, report.reports, strict=True)]
        return results + [_of_ranges(one, sums[one.check.name]) for one in split]

    def _keys(self, pool: Executor, keys: Sequence[tuple[ForeignKey, ...]]) -> list[Finding]:
        self.progress.stage("checking foreign keys", total=sum(map(len, keys)), unit="constraints")
        units = [KeyUnit(access=self.access, snapshot=self.snapshot, keys=some) for some in keys]
        findings = []
        for unit, found in run_units(pool, key_unit, units, at_once=self.parallel, stop=self.stop):
            self.progress.advance(len(unit.keys))
            findings += found
        return findings
