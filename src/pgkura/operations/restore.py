"""`restore`: plan, execute the same plan, prove, journal."""

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from pgkura.catalog.inventory import read_items
from pgkura.catalog.kinds import Stage
from pgkura.catalog.toc import read_archive
from pgkura.core.access import Access
from pgkura.core.facts import SourceFacts
from pgkura.core.memory import MemoryMeter
from pgkura.core.outcome import Finding, Result, decide, unused
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.operations.listing import server_name
from pgkura.operations.proofs import keep_proof
from pgkura.operations.replay import beyond_of, findings_of, in_form, replay_json, replay_notes, replayed_json
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.replay.carrying import carried_data
from pgkura.replay.moments import Moment
from pgkura.replay.planning import plan_replay
from pgkura.replay.running import Replay, ReplayPlan
from pgkura.repository.lists import TableData
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository
from pgkura.restore.executor import Executor
from pgkura.restore.planner import Options, RestorePlan, stage_counts
from pgkura.restore.planner import plan_restore as make_plan
from pgkura.restore.steps import Step, steps
from pgkura.restore.target import inspect_target
from pgkura.verify.merging import merge
from pgkura.verify.proof import prove
from pgkura.work.pools import Crew


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """One of the plan's eleven stages."""

    name: str
    objects: int
    rows: int
    bytes: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRestore:
    """A plan and what it takes to execute exactly it.

    manifest  whose definitions are restored, and whose rows but where a replay carries an older one's over
    data      then: which rows are loaded into which table
    """

    repo: Repository
    manifest: Manifest
    endpoint: Endpoint
    plan: RestorePlan
    replay: ReplayPlan | None = None
    data: tuple[TableData, ...] | None = None

    @property
    def snapshot(self) -> str:
        """Snapshot id."""
        return self.manifest.id

    @property
    def target_display(self) -> str:
        """user@host:port/database."""
        return self.plan.target

    @property
    def target_kind(self) -> str:
        """In words."""
        return self.plan.kind

    @property
    def needs_confirmation(self) -> bool:
        """Whether something of the target's may be overwritten."""
        return self.plan.needs_confirmation

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What cannot be done, known before the first write."""
        return self.plan.findings

    @property
    def accepted(self) -> tuple[str, ...]:
        """Waivers."""
        return self.plan.options.accepted

    @property
    def stages(self) -> tuple[StageLine, ...]:
        """The eleven stages."""
        counts = stage_counts(self.plan)
        return tuple(
            StageLine(
                name=stage.value,
                objects=counts[stage],
                rows=self.plan.rows if stage is Stage.DATA else 0,
                bytes=self.plan.bytes if stage is Stage.DATA else 0,
                note=_NOTES.get(stage, ""),
            )
            for stage in Stage
        )

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every single thing that would be done, in order."""
        return steps(self.plan)

    @property
    def notes(self) -> list[str]:
        """Sentences under the table."""
        m = self.manifest
        lines = [
            f"snapshot of {m.database} (PostgreSQL {server_name(m.server_version_num)}) taken {m.created}, {m.result}"
        ]
        if self.replay is not None:
            lines += replay_notes(self.replay)
        if self.plan.started_over:
            lines.append("the target holds a restore that was cut short: what it created is dropped first")
        if self.plan.goes_on:
            rows, size = self.plan.kept.rows(self.plan.loads), self.plan.kept.bytes(self.plan.loads)
            lines.append(
                f"the target holds a restore that was cut short: it is gone on with; {rows:,} of {self.plan.rows:,} "
                f"rows ({size:,} bytes) are there, {self.plan.bytes_left:,} bytes are left to load"
            )
        if self.plan.truncate:
            lines.append("tables of the platform that are emptied first: " + ", ".join(map(str, self.plan.truncate)))
        if self.plan.closed:
            lines.append("while rows load, every restored object is closed to all roles but its owner")
        lines.append("the order inside follows dependencies: definitions, rows, then indexes, constraints, permissions")
        return lines

    def as_json(self) -> dict[str, Any]:
        """The `--dry-run --json` object."""
        return {
            "result": "planned",
            "snapshot": self.snapshot,
            "target": self.target_display,
            "kind": self.target_kind,
            **({"at": replay_json(self.replay)} if self.replay is not None else {}),
            "needs_confirmation": self.needs_confirmation,
            "stages": [{"stage": s.name, "objects": s.objects, "rows": s.rows, "bytes": s.bytes} for s in self.stages],
            "steps": [s.as_json() for s in self.steps],
            "notes": self.notes,
            "skipped": [f.as_json() for f in self.findings],
            "accepted": list(self.accepted),
        }


_NOTES = {
    Stage.DATA: "after the definitions, before indexes",
    Stage.PERMISSIONS: "opened last",
    Stage.RLS: "on before any row is visible",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """What `restore` prints; as_json is the documented object."""

    result: Result
    snapshot: str
    target: str
    rows: int
    rows_kept: int
    bytes_kept: int
    seconds: float
    restore_seconds: float
    proof_seconds: float
    peak_memory_bytes: int
    proof: dict[str, Any]
    skipped: tuple[Finding, ...]
    accepted: tuple[str, ...]
    accepted_unused: tuple[str, ...]
    replayed: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result.value,
            "snapshot": self.snapshot,
            "target": self.target,
            **({"at": self.replayed} if self.replayed is not None else {}),
            "rows": self.rows,
            "rows_kept": self.rows_kept,
            "bytes_kept": self.bytes_kept,
            "seconds": round(self.seconds, 3),
            "restore_seconds": round(self.restore_seconds, 3),
            "proof_seconds": round(self.proof_seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
            "proof": self.proof,
            "skipped": [f.as_json() for f in self.skipped],
            "accepted": list(self.accepted),
            "accepted_unused": list(self.accepted_unused),
        }


def plan_restore(
    repo: Repository,
    snapshot: str,
    endpoint: Endpoint,
    *,
    allow_non_empty: bool = False,
    trust_code: bool = False,
    accepted: tuple[str, ...] = (),
    parallel: int = 2,
    at: Moment | None = None,
    progress: Progress,
) -> PlannedRestore:
    """Reads the snapshot and the target, writes nothing. Raises TargetNotEmpty, Tampered, DatabaseError …

    `at`: a moment of the change log, reached from the best base, or from `snapshot` if it is not `latest`.
    """
    progress.stage("reading the snapshot")
    replay = plan_replay(repo, snapshot, at) if at is not None else None
    over = replay.over if replay is not None else None
    base = replay.base.manifest if replay is not None else repo.manifest(snapshot)
    manifest = base if over is None else over.definitions
    facts = SourceFacts.from_json(json.loads(repo.component(manifest, "facts")))
    toc = read_archive(repo.component(manifest, "archive"))
    tables = list(repo.chunk_list(manifest))
    name = manifest.id
    if over is not None:
        tables = carried_data(over.carrying, facts, list(repo.chunk_list(base)), tables)
        name = f"{manifest.id} with rows of {base.id}"  # nothing that one of them alone left is gone on with
    progress.stage("looking at the target")
    with connect(endpoint, application_name="pgkura restore") as session:
        target = inspect_target(endpoint, session)
    options = Options(allow_non_empty=allow_non_empty, trust_code=trust_code, accepted=accepted, parallel=parallel)
    items = read_items(repo.component(manifest, "inventory"))
    plan = make_plan(name, facts, toc, tables, items, target, options)
    if over is not None:
        plan = replace(plan, loads=tuple(in_form(over.carrying, load) for load in plan.loads))
    if replay is not None:
        plan = replace(plan, findings=(*plan.findings, *findings_of(replay, plan)))
    data = tuple(tables) if over is not None else None
    return PlannedRestore(repo=repo, manifest=manifest, endpoint=endpoint, plan=plan, replay=replay, data=data)


def execute_restore(
    planned: PlannedRestore,
    *,
    progress: Progress,
    stop: Stop | None = None,
    access: Access | None = None,
    crew: Crew | None = None,
) -> RestoreResult:
    """Execute exactly the plan, then prove. The proof goes to the journal where this machine may write it."""
    with MemoryMeter() as meter:
        result = _restore_and_prove(planned, progress, stop or Stop(), access, crew)
    return replace(result, peak_memory_bytes=meter.peak)


def _restore_and_prove(
    planned: PlannedRestore, progress: Progress, token: Stop, access: Access | None, crew: Crew | None
) -> RestoreResult:
    begun = time.monotonic()
    replay = Replay(planned.replay) if planned.replay is not None else None
    restored = Executor(
        planned.plan,
        planned.endpoint,
        planned.repo,
        progress,
        token,
        access=access,
        crew=crew,
        between=replay,
        epoch=planned.manifest.epoch,
    ).run()
    accepted = planned.plan.options.accepted
    # What the backup itself could not read is missing here for the same reason.
    told = merge(planned.manifest.skipped, restored.findings)
    if planned.replay is not None and planned.replay.over is not None:
        told = merge(planned.replay.base.manifest.skipped, told)
    proof = prove(
        planned.endpoint,
        planned.repo,
        planned.manifest,
        told=told,
        accepted=(*accepted, *planned.manifest.accepted),
        parallel=planned.plan.options.parallel,
        progress=progress,
        stop=token,
        access=access,
        crew=crew,
        beyond=beyond_of(replay, planned.plan, planned.data) if replay is not None else None,
        seen=restored.seen,
    )
    for note in planned.repo.notes:
        progress.note(note)
    told_at = replayed_json(replay) if replay is not None else None
    # A moment of the log is not the snapshot: its proof is of another kind.
    if told_at is None:
        keep_proof(planned.repo, "proof", proof.as_json(), progress)
    else:
        keep_proof(planned.repo, "replay", {**proof.as_json(), "at": told_at}, progress)
    return RestoreResult(
        result=decide(proof.differences, (*accepted, *planned.manifest.accepted)),
        snapshot=planned.manifest.id,
        target=planned.plan.target,
        rows=restored.rows,
        rows_kept=restored.rows_kept,
        bytes_kept=restored.bytes_kept,
        seconds=time.monotonic() - begun,
        restore_seconds=restored.seconds,
        proof_seconds=proof.seconds,
        peak_memory_bytes=0,
        proof=proof.as_json(),
        skipped=proof.differences,
        accepted=proof.accepted,
        accepted_unused=unused(proof.differences, accepted),
        replayed=told_at,
    )
