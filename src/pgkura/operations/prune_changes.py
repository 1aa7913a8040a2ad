"""The change log's part of `prune`: what no kept snapshot leads to goes, what stays comes to lie in few files."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pgkura.changes.bundling import bundle_groups
from pgkura.changes.log import Log, read_chain
from pgkura.changes.retiring import NOTHING, Facts, Retired, cut_before, delete_files, find_retired, gone
from pgkura.changes.spans import Group, cover, plan_bundles
from pgkura.core.errors import PgkuraError, Unreachable
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.core.wal import lsn_text
from pgkura.replay.coverage import first_look
from pgkura.replay.reaching import check_base
from pgkura.replay.resolving import Base, bases_in, first_place
from pgkura.repository.bundles import GONE, run_name
from pgkura.repository.changes import CHAINS, CHANGES, END, HEAD, START
from pgkura.repository.locks import locked_on
from pgkura.repository.manifest import Manifest, dated
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Verdict
from pgkura.storage.base import KeyExists, Stored

NO_BASE = "no kept snapshot is a base of it"
NEVER_BEGAN = "it never began"
TOO_OLD = "all of it is older than --keep-changes"
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How much of the log stays, and in how many files.

    within  moments of so long stay, with the bases that lead to them; None = all that the kept snapshots lead to
    bundle  make bundles of segments
    """

    within: timedelta | None = None
    bundle: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlan:
    """What becomes of one chain.

    cut      (position, highest transaction before it): what ends there or before goes; None = nothing more
    gone     why the whole goes, '' = it stays
    groups   what is bundled
    retired  files whose time is over, and those that still wait
    """

    id: str
    database: str
    cut: tuple[int, int] | None
    gone: str
    groups: tuple[Group, ...]
    retired: Retired

    @property
    def takes(self) -> bool:
        """Whether anything goes, now or later."""
        return bool(self.cut or self.gone or self.retired.due or self.retired.withdrawn)

    def as_json(self) -> dict[str, Any]:
        """One of `changes` of `prune --dry-run --json`."""
        return {
            "chain": self.id,
            "database": self.database,
            "removed": self.gone,
            "cut_before": lsn_text(self.cut[0]) if self.cut else "",
            "files_to_delete": len(self.retired.due),
            "bytes_freed": bytes_of(self.retired.due),
            "files_waiting": len(self.retired.waiting),
            "bytes_waiting": bytes_of(self.retired.waiting),
            "bundles_to_make": len(self.groups),
            "segments_to_bundle": sum(g.segments for g in self.groups),
        }


@dataclass(slots=True, kw_only=True)
class PrunedChanges:
    """What was done."""

    cut: int = 0
    gone: int = 0
    deleted: int = 0
    bytes_deleted: int = 0
    bundles: int = 0
    segments: int = 0
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, int]:
        """`changes` of `prune --json`."""
        return {
            "chains_removed": self.gone,
            "chains_cut": self.cut,
            "files_deleted": self.deleted,
            "bytes_freed": self.bytes_deleted,
            "bundles_made": self.bundles,
            "segments_bundled": self.segments,
        }


def bytes_of(files: Iterable[Stored]) -> int:
    """Their size in the store."""
    return sum(s.size for s in files)


def with_bases(
    verdicts: Iterable[Verdict], manifests: Iterable[Manifest], within: timedelta | None, now: datetime
) -> tuple[Verdict, ...]:
    """Snapshots stay too that lead to the moments which `--keep-changes` keeps. Pure."""
    needed = moment_bases(manifests, within, now) if within is not None else frozenset[str]()
    return tuple(Verdict(id=v.id, reasons=(*v.reasons, "changes")) if v.id in needed else v for v in verdicts)


def fit_bases(repo: Repository, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Those that a log can be gone on from. Of a chain that does not open, all."""
    chains: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        if manifest.log is not None:
            chains.setdefault(manifest.log["chain"], []).append(manifest)
    found: list[Manifest] = []
    for chain, own in chains.items():
        try:
            facts = read_chain(repo, chain, whole=True)
            log = Log(repo, facts) if facts is not None else None
            found += own if log is None else (b.manifest for b in bases_in(log, own) if _fits(repo, log, b))
        except PgkuraError:
            found += own
    return found


def _fits(repo: Repository, log: Log, base: Base) -> bool:
    try:
        check_base(repo, log, base)
    except Unreachable:
        return False
    return True


def moment_bases(manifests: Iterable[Manifest], within: timedelta, now: datetime) -> frozenset[str]:
    """Of each chain the newest base that is older than the time kept, and every later one that has other tables.

    Of two with the same tables the older one leads to all moments behind both. Pure.
    """
    chains: dict[str, list[tuple[Manifest, str]]] = {}
    for manifest in sorted(manifests, key=lambda m: m.id):
        if manifest.log is not None:
            chains.setdefault(manifest.log["chain"], []).append((manifest, manifest.log["rows"]))
    found: set[str] = set()
    for bases in chains.values():
        before = [b for b in bases if dated(b[0].id) <= now - within]
        shape = ""
        for base, rows in (*before[-1:], *bases[len(before) :]):
            if rows != shape:
                found.add(base.id)
            shape = rows
    return frozenset(found)


class ChangePruner:
    """Decides for each chain; plans, then does the same, looking at everything anew before anything is deleted.

    `grace` in seconds; `blocked`: a snapshot or claim does not open, and may need any part of any chain.
    """

    def __init__(self, repo: Repository, keep: Keep, *, grace: float) -> None:
        self._repo = repo
        self._keep = keep
        self._grace = grace
        self.done = PrunedChanges()

    def plan(
        self, kept: Sequence[Manifest], *, now: float, blocked: bool, progress: Progress
    ) -> tuple[tuple[ChainPlan, ...], list[str]]:
        """(plans, problems)."""
        plans: list[ChainPlan] = []
        problems: list[str] = []
        chains = self._chains()
        progress.stage("reading the change log", total=len(chains), unit="chains")
        ends = self._ends(chains)
        for chain in chains:
            try:
                plan = self._plan(chain, kept, ends.get(chain), now=now, blocked=blocked)
                problems += [f"{file}: {why}" for file, why in plan.retired.problems.items()]
                plans.append(plan)
            except PgkuraError as error:
                problems.append(f"change log {chain}: it is left as it is: {error.reason}")
            progress.advance(1)
        return tuple(plans), problems

    def _plan(
        self, chain: str, kept: Sequence[Manifest], ended: float | None, *, now: float, blocked: bool
    ) -> ChainPlan:
        repo = self._repo
        head = repo.chain_record(chain, HEAD) or {}
        facts, cut, why = self._decide(chain, kept, ended, now=now, blocked=blocked)
        groups: list[Group] = []
        start = repo.chain_record(chain, START)
        if self._keep.bundle and not why and start is not None and not repo.chain_gone(chain):
            begin = max(repo.chain_start(chain, start), cut[0] if cut else 0)
            groups = plan_bundles(cover(begin, repo.runs(chain)), ended=facts.ended)
        retired = find_retired(repo, chain, facts, now=now, grace=self._grace)
        self._add_new(chain, cut, why, groups, facts, retired)
        return ChainPlan(
            id=chain,
            database=str(head.get("database", "")),
            cut=cut,
            gone=why,
            groups=tuple(groups),
            retired=retired,
        )

    def _add_new(
        self,
        chain: str,
        cut: tuple[int, int] | None,
        why: str,
        groups: Iterable[Group],
        facts: Facts,
        retired: Retired,
    ) -> None:
        """What this run itself makes unneeded: it waits, or goes at once without a grace time."""
        told = {s.key for s in (*retired.due, *retired.waiting)}
        bundled = {run for group in groups for run in group.runs if run.end <= facts.locked_from}
        place = retired.waiting if self._grace else retired.due
        if why:
            every = [*self._repo.storage.list(f"{CHANGES}{chain}/"), *self._repo.chain_files(chain)]
            place += [s for s in every if s.key not in told]
            return
        for stored in self._repo.run_files(chain):
            run = run_name(stored.key)
            if run is not None and stored.key not in told and (run in bundled or (cut and run.end <= cut[0])):
                place.append(stored)

    def _decide(
        self, chain: str, kept: Sequence[Manifest], ended: float | None, *, now: float, blocked: bool
    ) -> tuple[Facts, tuple[int, int] | None, str]:
        """(facts, new cut, why the whole goes)."""
        repo = self._repo
        known = read_chain(repo, chain, whole=True)
        log = Log(repo, known) if known is not None else None
        needed, locked = self._needed(log, kept, ended, now) if log is not None else (NOTHING, NOTHING)
        over = ended is not None and ended <= now - self._grace
        if blocked or (needed == NOTHING and not over):
            # A base of a chain that lives, or lived until now, may be in the making.
            return Facts(ended=ended is not None, needed_from=0, locked_from=locked), None, ""
        facts = Facts(ended=ended is not None, needed_from=needed, locked_from=locked)
        if repo.chain_gone(chain):
            return facts, None, ""
        if log is None or needed == NOTHING:
            bases = any(m.log is not None and m.log["chain"] == chain for m in kept)
            return facts, None, NEVER_BEGAN if log is None else TOO_OLD if bases else NO_BASE
        return facts, self._new_cut(log, needed), ""

    def _chains(self) -> list[str]:
        """Those with a head, and what is left of those that go."""
        named = (s.key.split("/") for s in self._repo.believed(CHAINS))
        return sorted({chain for _, chain, name in named if name in (HEAD, GONE)})

    def _ends(self, chains: Sequence[str]) -> dict[str, float]:
        """Since when, by the store's clock, nothing is added to a chain: it ended, or its database has a newer one."""
        ends: dict[str, float] = {}
        newer: dict[tuple[Any, Any], float] = {}
        for chain in reversed(chains):
            head = self._repo.chain_record(chain, HEAD) or {}
            whose = (head.get("system"), head.get("database"))
            files = {s.key.rpartition("/")[2]: s.modified for s in self._repo.chain_files(chain)}
            # Alone, it was said once more by a prune that ran beside the one that took all the rest away.
            alone = files.get(GONE) if set(files) == {GONE} else None
            found = [t for t in (files.get(END), newer.get(whose), alone) if t is not None]
            if found:
                ends[chain] = min(found)
            if START in files:
                newer[whose] = files[START]
        return ends

    def _needed(self, log: Log, kept: Sequence[Manifest], ended: float | None, now: float) -> tuple[int, int]:
        """From which position on kept snapshots need the log, and from which on locked ones do."""
        when = datetime.fromtimestamp(now, UTC)
        bases = bases_in(log, list(kept))
        locked = min((needed_from(log, b) for b in bases if locked_on(b.manifest, when)), default=NOTHING)
        within = self._keep.within
        if within is not None:
            if ended is not None and ended < now - within.total_seconds():
                bases = []
            wanted = moment_bases((b.manifest for b in bases if _fits(self._repo, log, b)), within, when)
            bases = [b for b in bases if b.manifest.id in wanted]
        return min((locked, *(needed_from(log, b) for b in bases))), locked

    def _new_cut(self, log: Log, needed: int) -> tuple[int, int] | None:
        """Where something lies wholly before what is needed, and is not cut away yet."""
        known = self._repo.chain_cut(log.facts.id)
        done = known.position if known is not None else 0
        place = bisect_right(log.names, needed, key=lambda n: n.end) - 1
        if place < 0 or not any(done < run.end <= needed for run in self._repo.runs(log.facts.id)):
            return None
        return needed, max(log.at(place).top_xid, log.facts.cut_xid)

    def say(self, plans: Sequence[ChainPlan]) -> None:
        """What goes: from here on no reader sees it."""
        for plan in plans:
            try:
                if plan.gone:
                    gone(self._repo, plan.id, plan.gone)
                    self.done.gone += 1
                elif plan.cut is not None:
                    cut_before(self._repo, plan.id, *plan.cut, "no kept snapshot leads there")
                    self.done.cut += 1
            except KeyExists:
                continue  # another prune at the same time

    def bundle(self, plans: Sequence[ChainPlan], progress: Progress, stop: Stop) -> None:
        """Segments and small bundles become larger ones."""
        for plan in (p for p in plans if p.groups):
            count = sum(g.segments for g in plan.groups)
            progress.stage("bundling the change log", total=count, unit="segments")
            made = bundle_groups(self._repo, plan.id, plan.groups, progress, stop, at_once=_AT_ONCE)
            self.done.bundles += made.bundles
            self.done.segments += made.segments
            self.done.problems += [f"{file}: not bundled: {why}" for file, why in made.left.items()]

    def sweep(self, kept: Sequence[Manifest], *, now: float, blocked: bool, progress: Progress, stop: Stop) -> None:
        """Delete what waited long enough. `kept`: all snapshots of now."""
        chains = self._chains()
        ends = self._ends(chains)
        for chain in chains:
            stop.check()
            try:
                facts, _, _ = self._decide(chain, kept, ends.get(chain), now=now, blocked=blocked)
                retired = find_retired(self._repo, chain, facts, now=now, grace=self._grace, compare=True)
            except PgkuraError as error:
                self.done.problems.append(f"change log {chain}: nothing of it is deleted: {error.reason}")
                continue
            self._delete(retired, progress, stop)

    def _delete(self, retired: Retired, progress: Progress, stop: Stop) -> None:
        self.done.problems += [f"{file}: {why}" for file, why in retired.problems.items()]
        self.done.problems += [f"{s.key}: withdrawn: a snapshot needs what it takes away" for s in retired.withdrawn]
        progress.stage("deleting from the change log", total=len(retired.due), unit="files")

        def deleted(stored: Stored) -> None:
            stop.check()
            self.done.deleted += 1
            self.done.bytes_deleted += stored.size
            progress.advance(1)

        refused = delete_files(self._repo, [*retired.withdrawn, *retired.due], deleted)
        if refused:
            self.done.problems.append(f"{refused} (the store would not delete it)")


def needed_from(log: Log, base: Base) -> int:
    """What ends here or before is nothing to a base: neither transactions that it does not see, nor the look that the
    counts of its tables are compared with."""
    if not len(log.names):
        return log.facts.start
    place = first_place(log, base, len(log.names) - 1)
    look = first_look(log, base)
    place = place if look is None else min(place, look)
    return log.names[place - 1].end if place else log.facts.start
