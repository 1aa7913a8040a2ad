"""`prune`: which snapshots stay, planned first; then the same plan executed in steps that a kill may end anywhere."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pgkura.core.errors import PgkuraError, PlanOutdated, StoreError, UsageError, WrongKey
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.operations.prune_changes import ChainPlan, ChangePruner, Keep, PrunedChanges, fit_bases, with_bases
from pgkura.repository.compaction import LEAST_BYTES, NOTHING, SHARE, Compaction, plan_compaction
from pgkura.repository.doomed import Doomed, find_doomed
from pgkura.repository.journal import JOURNAL
from pgkura.repository.locks import locked_on
from pgkura.repository.manifest import dated
from pgkura.repository.pruning import Pruned, Pruner
from pgkura.repository.references import REFERENCES
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Candidate, Rules, Verdict, judge
from pgkura.repository.survey import Survey, Surveyor, computed_references, need_identity_once, store_now
from pgkura.storage.retention import Keeping, keeping_of

GRACE_SECONDS = 24 * 3600 + 300


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPrune:
    """The frozen plan.

    now         by the store's clock, where it could be asked
    compaction  which packs are packed anew
    problems    what cannot be done, and why
    notes       what is left as it is, and why
    keep        how much of the change log stays; changes: what becomes of each chain
    """

    repo: Repository
    surveyor: Surveyor
    survey: Survey
    rules: Rules
    grace: int
    now: float
    verdicts: tuple[Verdict, ...]
    databases: dict[str, str]
    doomed: Doomed
    problems: tuple[str, ...]
    compaction: Compaction = NOTHING
    storage_class: str = ""
    notes: tuple[str, ...] = ()
    keep: Keep = field(default_factory=Keep)
    changes: tuple[ChainPlan, ...] = ()

    @property
    def removed(self) -> tuple[str, ...]:
        """Ids of the snapshots that go."""
        return tuple(v.id for v in self.verdicts if not v.keep)

    @property
    def deletable(self) -> frozenset[str]:
        """Objects that this run deletes."""
        return self.doomed.due | (frozenset() if self.grace else self.doomed.marked)

    @property
    def needs_confirmation(self) -> bool:
        """Whether anything goes."""
        doomed = self.doomed
        snapshots = self.removed or doomed.marked or doomed.due or doomed.abandoned or self.compaction.snapshots
        return bool(snapshots) or any(p.takes for p in self.changes)

    def bytes_of(self, objects: frozenset[str]) -> int:
        """Their size in the store."""
        return sum(self.doomed.sizes[i] for i in objects)

    def as_json(self) -> dict[str, Any]:
        """The `--dry-run --json` object."""
        return {
            "result": "planned",
            "repository": self.repo.url,
            "now": _stamp(self.now),
            "grace_seconds": self.grace,
            "kept": [
                {"snapshot": v.id, "database": self.databases[v.id], "why": list(v.reasons)}
                for v in self.verdicts
                if v.keep
            ],
            "removed": [{"snapshot": i, "database": self.databases[i]} for i in self.removed],
            "objects_to_delete": len(self.deletable),
            "bytes_freed": self.bytes_of(self.deletable),
            "objects_to_mark": len(self.doomed.marked),
            "bytes_to_mark": self.bytes_of(self.doomed.marked),
            "objects_waiting": len(self.doomed.waiting),
            "bytes_waiting": self.bytes_of(self.doomed.waiting),
            "bytes_too_young": self.doomed.young,
            "abandoned": list(self.doomed.abandoned),
            "repack": {
                "packs": len(self.compaction.packs),
                "bytes_copied": self.compaction.live,
                "bytes_of_lists": self.compaction.lists,
                "bytes_freed": self.compaction.freed,
                "snapshots": list(self.compaction.snapshots),
                "requests": self.compaction.requests,
            },
            "changes": [p.as_json() for p in self.changes],
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What `prune` prints; as_json is the documented object."""

    result: Result
    kept: int
    done: Pruned
    problems: tuple[str, ...]
    seconds: float
    changes: PrunedChanges = field(default_factory=PrunedChanges)

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result.value,
            "kept": self.kept,
            "removed": self.done.snapshots,
            "objects_deleted": self.done.deleted,
            "bytes_freed": self.done.bytes_deleted,
            "objects_marked": self.done.marked,
            "bytes_marked": self.done.bytes_marked,
            "objects_spared": self.done.spared,
            "index_files_removed": self.done.index_files,
            "packs_repacked": self.done.repacked.packs,
            "packs_written": self.done.repacked.packs_written,
            "bytes_copied": self.done.repacked.bytes_copied,
            "snapshots_repointed": len(self.done.repacked.snapshots),
            "changes": self.changes.as_json(),
            "refused": len(self.done.refused),
            "problems": list(self.problems),
            "seconds": round(self.seconds, 3),
        }


def plan_prune(
    repo: Repository,
    rules: Rules,
    *,
    grace: int = GRACE_SECONDS,
    single_writer: bool = False,
    repack_below: float | None = None,
    repack_least: int = LEAST_BYTES,
    storage_class: str = "",
    keep: Keep | None = None,
    progress: Progress,
) -> PlannedPrune:
    """Reads the store. Raises UsageError (no rule; one writer only), WrongKey (old snapshots), StoreError.

    `repack_below`: the share below which packs are packed anew, if that frees `repack_least` bytes; 0 = never, None =
    by default where the keys for it are at hand.
    """
    if not rules.given:
        raise UsageError(
            "no rule says what to keep",
            hint="give --keep-last, --keep-within, --keep-hourly, -daily, -weekly, -monthly or -yearly",
        )
    if not single_writer and not repo.storage.properties().conditional_create:
        raise UsageError(
            f"{repo.url} cannot keep two writers apart",
            detail="the store has no conditional create, so a backup running now could lose its data",
            hint="make sure that nothing else uses this repository, then add --single-writer",
        )
    share, notes = _share(repo, repack_below)
    progress.stage("reading snapshots")
    surveyor = Surveyor(repo)
    survey = surveyor.look()
    if survey.lacking and not repo.can_read_data:
        raise need_identity_once(survey.lacking[0])
    now = _now(repo)
    problems = [f"{key}: {why}" for key, why in survey.unreadable.items()]
    proven = _proven(repo, problems)
    keep = keep or Keep()
    when = datetime.fromtimestamp(now, UTC)
    keeping = keeping_of(repo.storage)
    # A copy in a store without locks tells of those of the store that it was copied from.
    locks = when if keeping in (Keeping.LOCKS, Keeping.UNKNOWN) else None
    judged = judge(_candidates(survey, proven, locks), rules, when)
    verdicts = with_bases(judged, fit_bases(repo, survey.manifests.values()), keep.within, when)
    doomed = find_doomed(survey, frozenset(v.id for v in verdicts if not v.keep), now=now, grace=grace)
    if doomed.blocked:
        problems.append("nothing can be called unreferenced, so no object is deleted, until these files are readable")
    compaction = NOTHING
    if share and not doomed.blocked:
        compaction = plan_compaction(
            repo,
            survey,
            (v.id for v in verdicts if v.keep),
            share=share,
            least=repack_least,
            now=when,
            progress=progress,
        )
        notes += [f"packs of snapshot {s} are left as they are: {why}" for s, why in compaction.untouched.items()]
    if keeping in (Keeping.LOCKS, Keeping.VERSIONS):
        notes.append("the bucket keeps older versions of what is deleted: its lifecycle rules free their bytes, later")
    kept = [survey.manifests[v.id] for v in verdicts if v.keep]
    changes, wrong = ChangePruner(repo, keep, grace=grace).plan(
        kept, now=now, blocked=bool(doomed.blocked), progress=progress
    )
    return PlannedPrune(
        repo=repo,
        surveyor=surveyor,
        survey=survey,
        rules=rules,
        grace=grace,
        now=now,
        verdicts=verdicts,
        databases={m.id: m.database for m in survey.manifests.values()},
        doomed=doomed,
        problems=(*problems, *wrong),
        compaction=compaction,
        storage_class=storage_class,
        notes=tuple(notes),
        keep=keep,
        changes=changes,
    )


def _share(repo: Repository, wanted: float | None) -> tuple[float, list[str]]:
    """The share below which packs are packed anew, and what is to be told of it. Raises WrongKey."""
    if wanted == 0 or (repo.can_write and repo.can_read_data):
        return SHARE if wanted is None else wanted, []
    why = "what a snapshot needs of a pack opens for the identity alone, and a host signs what is written"
    if wanted is None:
        return 0.0, [f"packs of which little is needed stay whole: {why}"]
    raise WrongKey("packing anew needs the identity and a host key", detail=why, hint="set both, or leave it out")


def _now(repo: Repository) -> float:
    """By the store's clock; of a store that may only be read, by ours: a plan is all that can come of it."""
    try:
        return store_now(repo.storage)
    except StoreError:
        return time.time()


def _proven(repo: Repository, problems: list[str]) -> frozenset[str]:
    """Snapshots that a restore was compared equal with; records that do not open are added to the problems."""
    found = set()
    for stored in sorted(repo.storage.list(JOURNAL), key=lambda s: s.key):
        if not stored.key.endswith("-proof"):
            continue
        try:
            record = repo.journal_record(stored.key, repo.storage.get(stored.key))
        except PgkuraError as error:
            problems.append(f"{stored.key}: {error.reason} (what it proved does not count)")
            continue
        if record.body.get("equal") is True:
            found.add(str(record.body.get("snapshot")))
    return frozenset(found)


def _candidates(survey: Survey, proven: frozenset[str], locks: datetime | None) -> list[Candidate]:
    """`locks`: the moment at which locks are looked at; None where the store has none."""
    return [
        Candidate(
            id=m.id,
            # Databases of two servers may bear one name (every Supabase project has a `postgres`).
            database=f"{m.database}\0{m.system_identifier}",
            taken=dated(m.id),
            complete=m.result == Result.OK.value,
            proven=m.id in proven,
            locked=m.expires if locks is not None and locked_on(m, locks) else "",
        )
        for m in survey.manifests.values()
    ]


def execute_prune(planned: PlannedPrune, *, progress: Progress, stop: Stop | None = None) -> PruneResult:
    """Execute exactly the plan; new snapshots do not matter to it, vanished ones do.

    Raises PlanOutdated; Tampered where it is not sure for whom records must be sealed.
    """
    begun = time.monotonic()
    repo = planned.repo
    repo.refuse_writing()
    vanished = planned.survey.manifests.keys() - set(repo.manifest_ids())
    if vanished:
        raise PlanOutdated(
            f"snapshot {min(vanished)} vanished since the plan was made", hint="another prune ran: plan again"
        )
    _write_back(planned)
    stop = stop or Stop()
    pruner = Pruner(repo, planned.surveyor, progress, stop)
    pruner.remove(planned.removed, planned.doomed, grace=planned.grace)
    pruner.repack(planned.compaction, storage_class=planned.storage_class, grace=planned.grace)
    pruner.shorten_index(grace=planned.grace)
    pruner.sweep(grace=planned.grace)
    done = pruner.done
    changes = _prune_changes(planned, progress, stop)
    problems = list(planned.problems)
    problems += (p for p in changes.problems if p not in problems)
    problems += (p for p in (f"{k}: {why}" for k, why in done.blocked.items()) if p not in problems)
    problems += (f"{k}: not packed anew: {why}" for k, why in done.repacked.left.items())
    problems += (f"{k}: the store would not delete it: {why}" for k, why in done.refused.items())
    result = PruneResult(
        result=Result.INCOMPLETE if problems else Result.OK,
        kept=sum(v.keep for v in planned.verdicts),
        done=done,
        problems=tuple(problems),
        seconds=time.monotonic() - begun,
        changes=changes,
    )
    repo.append_journal("prune", _record(planned, result))
    return result


def _prune_changes(planned: PlannedPrune, progress: Progress, stop: Stop) -> PrunedChanges:
    """The change log comes after the snapshots: what these still need is read anew."""
    pruner = ChangePruner(planned.repo, planned.keep, grace=planned.grace)
    if planned.changes:
        pruner.say(planned.changes)
        pruner.bundle(planned.changes, progress, stop)
        survey = planned.surveyor.look()
        now = store_now(planned.repo.storage)
        blocked = bool(find_doomed(survey, frozenset(), now=now, grace=planned.grace).blocked)
        pruner.sweep(list(survey.manifests.values()), now=now, blocked=blocked, progress=progress, stop=stop)
    return pruner.done


def _write_back(planned: PlannedPrune) -> None:
    """References files that older snapshots lack or that are damaged, where the keys at hand can make them."""
    repo, survey = planned.repo, planned.survey
    if not (repo.can_write and repo.can_read_data):
        return
    for snapshot_id in survey.computed:
        if snapshot_id not in planned.removed:
            objects = computed_references(repo, survey.manifests[snapshot_id])
            repo.storage.put(REFERENCES + snapshot_id, repo.seal_references(snapshot_id, objects))


def _record(planned: PlannedPrune, result: PruneResult) -> dict[str, Any]:
    rules = planned.rules
    given = {name: getattr(rules, name) for name in rules.__slots__ if name != "within"}
    return {
        **{k: v for k, v in result.as_json().items() if k != "seconds"},
        "rules": {**{k: v for k, v in given.items() if v}, "within_seconds": round(rules.within.total_seconds())},
        "grace_seconds": planned.grace,
    }


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
