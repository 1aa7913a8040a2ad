"""`copy`: snapshots to a second repository of the same keys (3-2-1), without the identity."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pgkura.changes.copying import CopiedLog, LogCopier
from pgkura.core.errors import StoreError, UsageError
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.repository.copying import Copied, Copier, prepare_copy
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyNotFound, Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """What `copy` prints; as_json is the documented object."""

    result: Result
    target: str
    done: Copied
    problems: tuple[str, ...]
    seconds: float
    log: CopiedLog = field(default_factory=CopiedLog)

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result.value,
            "target": self.target,
            "copied": self.done.snapshots,
            "present": self.done.present,
            "failed": self.done.failed,
            "objects_copied": self.done.objects,
            "objects_present": self.done.objects_present,
            "bytes_copied": self.done.bytes,
            "changes": self.log.as_json(),
            "problems": list(self.problems),
            "notes": [*self.done.notes, *self.log.notes],
            "seconds": round(self.seconds, 3),
        }


def copy_snapshots(
    repo: Repository,
    target: Storage,
    which: Sequence[str],
    *,
    everything: bool = False,
    check: bool = False,
    storage_class: str = "",
    workers: int = 4,
    changes: bool = True,
    progress: Progress,
    stop: Stop | None = None,
) -> CopyResult:
    """`changes`: with the change logs that these snapshots are bases of (all of them with `everything`).

    Raises UsageError, RepositoryExists (the target is something else), RepositoryNotFound (no such snapshot) …"""
    begun = time.monotonic()
    if everything == bool(which):
        raise UsageError("which snapshots?", hint="name them (or `latest`), or say --all; not both")
    if target.url == repo.url:
        raise UsageError("source and target are the same place", detail=target.url)
    ids = repo.manifest_ids() if everything else list(dict.fromkeys(_id(repo, w) for w in which))
    keys = prepare_copy(repo, target)
    stop = stop or Stop()
    copier = Copier(repo, target, progress, stop, check=check, storage_class=storage_class)
    copier.copy(ids, workers=workers)
    done = copier.done
    done.notes += keys.notes
    done.problems |= keys.problems
    log = LogCopier(repo, target, progress, stop, check=check, storage_class=storage_class, workers=workers)
    if changes:
        log.copy(repo.chain_ids() if everything else _chains(repo, (*done.snapshots, *done.present)))
    if done.snapshots:
        _journal(repo, target, done)
    copier.copy_journal()
    problems = tuple(f"{name}: {why}" for name, why in (done.problems | log.done.problems).items())
    return CopyResult(
        result=Result.INCOMPLETE if problems else Result.OK,
        target=target.url,
        done=done,
        problems=problems,
        seconds=time.monotonic() - begun,
        log=log.done,
    )


def _chains(repo: Repository, ids: Iterable[str]) -> list[str]:
    """The change logs that these snapshots are bases of."""
    found: dict[str, None] = {}
    for snapshot_id in ids:
        with suppress(KeyNotFound):  # a prune has just removed it
            manifest = repo.exact_manifest(snapshot_id)
            if manifest.log is not None:
                found[manifest.log["chain"]] = None
    return list(found)


def _id(repo: Repository, which: str) -> str:
    """A whole id stands for itself, so that a damaged manifest is named in the result instead of ending the run."""
    return which if which in repo.manifest_ids() else repo.manifest(which).id


def _journal(repo: Repository, target: Storage, done: Copied) -> None:
    body = {"target": target.url, "snapshots": done.snapshots, "bytes": done.bytes, "problems": len(done.problems)}
    try:
        repo.append_journal("copy", body)
    except StoreError as error:
        done.notes.append(f"the copy could not be added to the journal: {error.msg}")
