"""`backup`: one snapshot, journaled."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from pgkura.core.access import Access
from pgkura.core.errors import DataGone
from pgkura.core.outcome import Finding, FindingClass, Result, decide, unused
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.claims import SNAPSHOTS
from pgkura.repository.journal import JOURNAL
from pgkura.repository.later import refuse_later_writers
from pgkura.repository.lock_versions import Locked
from pgkura.repository.locks import lock_snapshot
from pgkura.repository.repository import Repository
from pgkura.snapshot.detector import DEFAULT_POLICY, Policy
from pgkura.snapshot.options import DEFAULT_SNAPSHOT_AGE, Options
from pgkura.snapshot.take import take
from pgkura.snapshot.taken import Taken
from pgkura.storage.retention import LockMode, need_retention
from pgkura.work.pools import Crew


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupResult:
    """What `backup` prints; as_json is the documented object."""

    result: Result
    snapshot: str
    tables: int
    rows: int
    bytes_read: int
    bytes_stored: int
    chunks: int
    chunks_unchanged: int
    seconds: float
    peak_memory_bytes: int
    skipped: tuple[Finding, ...]
    accepted: tuple[str, ...]
    accepted_unused: tuple[str, ...] = ()
    lock: Locked | None = None
    copies: tuple[dict[str, Any], ...] = ()
    warning: str = ""

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result.value,
            "snapshot": self.snapshot,
            "tables": self.tables,
            "rows": self.rows,
            "bytes_read": self.bytes_read,
            "bytes_stored": self.bytes_stored,
            "chunks": self.chunks,
            "chunks_unchanged": self.chunks_unchanged,
            "seconds": round(self.seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
            "skipped": [f.as_json() for f in self.skipped],
            "accepted": list(self.accepted),
            "accepted_unused": list(self.accepted_unused),
            "copies": list(self.copies),
            **({"lock": self.lock.as_json()} if self.lock else {}),
            **({"warning": self.warning} if self.warning else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a backup may cost its source; meanings in snapshot.options.Options."""

    max_blocking_seconds: float = 2.0
    lock_share: float = 0.25
    connection_share: float = 0.25
    bytes_per_second: int = 0
    cpu_share: float = 1.0
    statement_timeout_seconds: float = 0.0
    lock_timeout_seconds: float = 0.0
    max_snapshot_age_seconds: float = DEFAULT_SNAPSHOT_AGE
    end_at_snapshot_age: bool = False
    gentle: bool = False
    full: bool = False
    follow: Policy = DEFAULT_POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """For how long, and how firmly, the store shall keep what the snapshot needs."""

    days: int = 0
    mode: LockMode = LockMode.COMPLIANCE


DEFAULT_LIMITS = Limits()
NO_LOCK = Lock()


def back_up(
    source: Endpoint,
    repo: Repository,
    access: Access,
    *,
    accepted: tuple[str, ...] = (),
    storage_class: str = "",
    parallel: int = 2,
    limits: Limits = DEFAULT_LIMITS,
    lock: Lock = NO_LOCK,
    progress: Progress,
    stop: Stop | None = None,
    crew: Crew | None = None,
) -> BackupResult:
    """Take a snapshot. Raises FormatTooNew and what `snapshot.take` raises; then nothing became a snapshot."""
    refuse_later_writers(repo.storage, by_writer=JOURNAL, by_time=SNAPSHOTS)
    crew = crew or Crew()
    options = Options(
        executor=crew.kind,
        workers=parallel,
        **{f.name: getattr(limits, f.name) for f in fields(limits)},
        storage_class=storage_class,
        accepted=accepted,
        lock_days=lock.days,
    )
    if lock.days:
        need_retention(repo.storage)  # said before anything starts
    warning = ""
    try:
        taken = take(source, repo, options, progress, access=access, stop=stop, executor=crew.given)
    except DataGone as gone:
        warning = (
            f"data of earlier backups was gone, and is read again; `pgkura verify` names what it touches ({gone.msg})"
        )
        progress.note(warning)
        repo.look_again()
        options = replace(options, doubt_stored=True)
        taken = take(source, repo, options, progress, access=access, stop=stop, executor=crew.given)
    locked, unlocked = _lock(repo, taken, lock, progress) if lock.days else (None, ())
    findings = (*taken.findings, *unlocked)
    counts = taken.counts
    return BackupResult(
        result=decide(findings, taken.accepted) if unlocked else taken.result,
        snapshot=taken.manifest.id,
        tables=counts["tables"],
        rows=counts["rows"],
        bytes_read=counts["bytes_read"],
        bytes_stored=counts["bytes_stored"],
        chunks=counts["chunks"],
        chunks_unchanged=counts["chunks_unchanged"],
        seconds=taken.seconds,
        peak_memory_bytes=counts["peak_memory_bytes"],
        skipped=findings,
        accepted=taken.accepted,
        accepted_unused=unused(findings, accepted),
        lock=locked,
        warning=warning,
    )


def _lock(repo: Repository, taken: Taken, lock: Lock, progress: Progress) -> tuple[Locked, tuple[Finding, ...]]:
    """The snapshot exists; what the store would not lock is named, and `verify` will name it again."""
    from pgkura.operations.lock_changes import lock_log  # loads the replay of the log, which takes a while

    progress.stage("locking files in the store")
    locked, log = lock_log(repo, taken.manifest, lock_snapshot(repo, taken.manifest, lock.mode))
    told = {"log": log} if log else {}
    repo.append_journal("lock", {"snapshot": taken.manifest.id, **locked.as_json(), **told})
    return locked, tuple(_unlocked(locked))


def _unlocked(locked: Locked) -> Iterator[Finding]:
    """What is not as it should be in the store."""
    if locked.refused:
        key, why = locked.refused[0]
        yield Finding(
            cls=FindingClass.DENIED,
            object="locks in the store",
            reason=f"{len(locked.refused)} of {locked.files} files are not locked until {locked.until}; {key}: {why}",
        )
    if locked.overwritten:
        named = ", ".join(f"{key}: {why}" for key, why in locked.overwritten[:5])
        more = " …" if len(locked.overwritten) > 5 else ""
        yield Finding(
            cls=FindingClass.LOST,
            object="files in the store",
            reason=f"{len(locked.overwritten)} files are not what was stored; `pgkura verify` names what that touches; "
            f"{named}{more}",
        )
