"""Compares a database with a snapshot under one snapshot of the target, and says what differs."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pgkura.catalog.inventory import Versions, compare, merge, read_items
from pgkura.catalog.platform import detect
from pgkura.core.facts import SourceFacts, TableFacts
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding, FindingClass, Result, decide
from pgkura.core.platform import Platform
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.facts import FactsRead, blobs_sql, read_facts, read_platform_names
from pgkura.postgres.inventory import read_inventory
from pgkura.postgres.session import Session, connect
from pgkura.repository.lists import BLOBS, TableData
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository
from pgkura.verify.foreign_keys import ForeignKey, check_foreign_key, read_foreign_keys
from pgkura.verify.rows import new_key
from pgkura.verify.states import compare_states
from pgkura.verify.tables import TableCheck, TableResult, compare_table

TICK_SECONDS = 0.2
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The answer. `equal`: nothing is lost and nothing denied differs, whatever was waived."""

    snapshot: str
    target: str
    equal: bool
    result: Result
    tables: int
    rows: int
    sequences: int
    foreign_keys: int
    objects: int
    differences: tuple[Finding, ...]
    accepted: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The `proof` of `restore --json` and `verify --json`."""
        return {
            "equal": self.equal,
            "snapshot": self.snapshot,
            "target": self.target,
            "tables": self.tables,
            "rows": self.rows,
            "sequences": self.sequences,
            "foreign_keys": self.foreign_keys,
            "objects": self.objects,
            "differences": [f.as_json() for f in self.differences],
            "accepted": list(self.accepted),
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
) -> Proof:
    """Compare everything. `told` are the findings of the restore (or of the backup) that explain differences."""
    begun = time.monotonic()
    facts = SourceFacts.from_json(json.loads(repo.component(manifest, "facts")))
    data = list(repo.chunk_list(manifest))
    with connect(endpoint, application_name="pgkura verify") as session:
        session.begin()
        snapshot = str(session.one("SELECT pg_catalog.pg_export_snapshot()")[0])
        platform = detect(*read_platform_names(session))
        progress.stage("comparing the catalog")
        there = read_facts(session, platform)
        items = {(i.cls, i.identity): i.attributes for i in read_inventory(session)}
        versions = Versions(source=facts.server_version_num // 10000, target=session.server_version // 10000)
        found = compare(read_items(repo.component(manifest, "inventory")), items, platform, versions)
        found += compare_states(facts, there, platform, versions)
        checks, unreadable = plan_checks(facts, data, there, platform)
        keys, unchecked = read_foreign_keys(session)
        runner = _Runner(endpoint, snapshot, parallel, stop)
        results = _compare_rows(runner, repo, checks, progress, stop)
        progress.stage("checking foreign keys", total=len(keys), unit="constraints")
        found += unreadable + unchecked + _differences(results) + _orphans(runner, keys, progress)
        session.commit()
    differences = merge(told, found)
    return Proof(
        snapshot=manifest.id,
        target=endpoint.display,
        equal=decide(differences) is Result.OK,
        result=decide(differences, accepted),
        tables=len(results),
        rows=sum(r.rows for r in results),
        sequences=len(facts.sequences),
        foreign_keys=len(keys),
        objects=len(items),
        differences=tuple(differences),
        accepted=tuple(accepted),
        seconds=time.monotonic() - begun,
    )


def plan_checks(
    facts: SourceFacts, data: Iterable[TableData], there: FactsRead, platform: Platform
) -> tuple[list[TableCheck], list[Finding]]:
    """What to compare, largest first, and what cannot be. Pure."""
    tables = {t.qname: t for t in there.facts.tables}
    checks: list[TableCheck] = []
    findings: list[Finding] = []
    roots: dict[str, list[TableData]] = {}
    for table in data:
        if table.number == BLOBS:
            checks.append(_blob_check(table, facts))
            continue
        source = facts.tables[table.number]
        if source.load_root:
            roots.setdefault(source.load_root, []).append(table)
            continue
        if _platforms_own(source, platform):
            continue
        target = tables.get(source.qname)
        if target is None:
            findings.append(_lost(f"rows of {source.qname}", "the table is missing"))
        elif not target.readable:
            findings.append(
                Finding(cls=FindingClass.DENIED, object=f"rows of {source.qname}", reason="no right to read it")
            )
        else:
            checks.append(_check(table, source, target))
    checks += [_root_check(root, parts, facts, there) for root, parts in roots.items()]
    return sorted(checks, key=lambda c: -c.bytes), findings


def _platforms_own(source: TableFacts, platform: Platform) -> bool:
    name = (source.schema, source.name)
    return name in platform.service_tables or (
        platform.name != "plain" and name in (("vault", "secrets"), ("cron", "job"), ("cron", "job_run_details"))
    )


def _check(data: TableData, source: TableFacts, target: TableFacts) -> TableCheck:
    have = {c.name for c in target.data_columns}
    missing = any(c.name not in have for c in source.data_columns)
    kept = [(n, c.name) for n, c in enumerate(source.data_columns) if c.name in have]
    return TableCheck(
        name=str(source.qname),
        relations=(source.qname,),
        columns=tuple(name for _, name in kept),
        chunks=data.chunks,
        rows=data.rows,
        bytes=data.bytes,
        keep=tuple(n for n, _ in kept) if missing else (),
        where=source.config_where if source.config_of else "",
    )


def _root_check(root: str, parts: Sequence[TableData], facts: SourceFacts, there: FactsRead) -> TableCheck:
    schema, _, name = root.partition("\0")
    leaves = [t for t in there.facts.tables if t.load_root == root]
    first = facts.tables[parts[0].number]
    return TableCheck(
        name=str(QualifiedName(schema, name)),
        relations=tuple(t.qname for t in leaves),
        columns=tuple(c.name for c in first.data_columns),
        chunks=tuple(c for p in parts for c in p.chunks),
        rows=sum(p.rows for p in parts),
        bytes=sum(p.bytes for p in parts),
    )


def _blob_check(data: TableData, facts: SourceFacts) -> TableCheck:
    return TableCheck(
        name="large objects",
        relations=(),
        columns=(),
        chunks=data.chunks,
        rows=data.rows,
        bytes=data.bytes,
        select=blobs_sql([o.oid for o in facts.large_objects]),
    )


def _lost(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.LOST, object=name, reason=reason)


def _differences(results: Iterable[TableResult]) -> list[Finding]:
    return [_lost(f"rows of {r.check.name}", r.reason) for r in results if r.reason]


class _Runner:
    """Runs small jobs on several sessions that share one snapshot."""

    def __init__(self, endpoint: Endpoint, snapshot: str, parallel: int, stop: Stop) -> None:
        self._endpoint = endpoint
        self._snapshot = snapshot
        self._parallel = parallel
        self._stop = stop

    def run(self, jobs: Sequence[Callable[[Session], T]]) -> Iterator[T]:
        """Results as they come; an error cancels the rest."""
        waiting = list(reversed(jobs))
        running: dict[Future[T], Session] = {}
        with self._sessions(min(self._parallel, max(len(jobs), 1))) as idle, ThreadPoolExecutor(self._parallel) as pool:
            try:
                while waiting or running:
                    while waiting and idle:
                        session = idle.pop()
                        running[pool.submit(waiting.pop(), session)] = session
                    done, _ = wait(running, timeout=TICK_SECONDS, return_when=FIRST_COMPLETED)
                    self._stop.check()
                    for future in done:
                        idle.append(running.pop(future))
                        yield future.result()
            except BaseException:
                self._stop.request()
                for session in running.values():
                    session.cancel()
                raise

    @contextmanager
    def _sessions(self, count: int) -> Iterator[list[Session]]:
        opened: list[Session] = []
        try:
            for _ in range(count):
                opened.append(connect(self._endpoint, application_name="pgkura verify"))
                opened[-1].adopt(self._snapshot)
            yield list(opened)
        finally:
            for session in opened:
                session.close()


def _compare_rows(
    runner: _Runner, repo: Repository, checks: Sequence[TableCheck], progress: Progress, stop: Stop
) -> list[TableResult]:
    key = new_key()
    progress.stage("comparing rows", total=sum(c.bytes for c in checks), unit="bytes")

    def job(check: TableCheck) -> Callable[[Session], TableResult]:
        return lambda session: compare_table(session, repo, check, key, stop)

    results = []
    for result in runner.run([job(c) for c in checks]):
        progress.advance(result.check.bytes)
        results.append(result)
    return results


def _orphans(runner: _Runner, keys: Sequence[ForeignKey], progress: Progress) -> list[Finding]:
    def job(key: ForeignKey) -> Callable[[Session], Finding | None]:
        return lambda session: check_foreign_key(session, key)

    findings = []
    for finding in runner.run([job(k) for k in keys]):
        progress.advance(1)
        if finding is not None:
            findings.append(finding)
    return findings
