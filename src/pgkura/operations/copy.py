"""`copy`: snapshots to a second repository of the same keys (3-2-1), without the identity."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgkura.core.errors import StoreError, UsageError
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.repository.copying import Copied, Copier, prepare_copy
from pgkura.repository.repository import Repository
from pgkura.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """What `copy` prints; as_json is the documented object."""

    result: Result
    target: str
    done: Copied
    problems: tuple[str, ...]
    seconds: float

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
            "problems": list(self.problems),
            "notes": self.done.notes,
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
    progress: Progress,
    stop: Stop | None = None,
) -> CopyResult:
    """Raises UsageError, RepositoryExists (the target is something else), RepositoryNotFound (no such snapshot) …"""
    begun = time.monotonic()
    if everything == bool(which):
        raise UsageError("which snapshots?", hint="name them (or `latest`), or say --all; not both")
    if target.url == repo.url:
        raise UsageError("source and target are the same place", detail=target.url)
    ids = repo.manifest_ids() if everything else list(dict.fromkeys(_id(repo, w) for w in which))
    prepare_copy(repo, target)
    copier = Copier(repo, target, progress, stop or Stop(), check=check, storage_class=storage_class)
    copier.copy(ids, workers=workers)
    done = copier.done
    if done.snapshots:
        _journal(repo, target, done)
    copier.copy_journal()
    problems = tuple(f"{name}: {why}" for name, why in done.problems.items())
    return CopyResult(
        result=Result.INCOMPLETE if problems else Result.OK,
        target=target.url,
        done=done,
        problems=problems,
        seconds=time.monotonic() - begun,
    )


def _id(repo: Repository, which: str) -> str:
    """A whole id stands for itself, so that a damaged manifest is named in the result instead of ending the run."""
    return which if which in repo.manifest_ids() else repo.manifest(which).id


def _journal(repo: Repository, target: Storage, done: Copied) -> None:
    body = {"target": target.url, "snapshots": done.snapshots, "bytes": done.bytes, "problems": len(done.problems)}
    try:
        repo.append_journal("copy", body)
    except StoreError as error:
        done.notes.append(f"the copy could not be added to the journal: {error.msg}")
