"""`backup --also`: the new snapshot in further repositories at once; one that fails does not undo the others."""

from collections.abc import Sequence
from dataclasses import replace

from pgkura.core.errors import Interrupted, PgkuraError
from pgkura.core.outcome import Finding, FindingClass, Result
from pgkura.core.progress import Progress
from pgkura.operations.backup import BackupResult
from pgkura.operations.copy import copy_snapshots
from pgkura.repository.keycopying import KEYS
from pgkura.repository.repository import Repository
from pgkura.storage.base import Storage


def copy_also(
    repo: Repository, backup: BackupResult, targets: Sequence[Storage], *, storage_class: str, progress: Progress
) -> BackupResult:
    """The backup's result with its copies; `incomplete` when one of them is not there."""
    copies: list[dict[str, object]] = []
    lost: list[Finding] = []
    for target in targets:
        why = ""
        try:
            made = copy_snapshots(repo, target, [backup.snapshot], storage_class=storage_class, progress=progress)
            keys = any(file.startswith(KEYS) for file in made.done.problems)
            if made.done.failed or made.log.problems or keys:
                why = "; ".join(made.problems[:3])
        except Interrupted:
            raise
        except PgkuraError as error:
            why = error.reason
        copies.append({"repository": target.url, "result": "failed" if why else "ok", "why": why})
        if why:
            lost.append(Finding(cls=FindingClass.LOST, object=f"copy in {target.url}", reason=why))
    return replace(
        backup,
        copies=tuple(copies),
        skipped=(*backup.skipped, *lost),
        result=Result.INCOMPLETE if lost else backup.result,
    )
