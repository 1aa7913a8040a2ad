"""`verify`: the repository read back, or a database compared with a snapshot."""

import time
from dataclasses import dataclass
from typing import Any

from pgkura.changes.checking import check_log
from pgkura.core.access import Access
from pgkura.core.errors import FormatTooNew, Tampered
from pgkura.core.outcome import Finding, Result, unused
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.operations.proofs import keep_proof
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.check import Problem, check_repository
from pgkura.repository.repository import Repository
from pgkura.verify.giving_way import giving_way
from pgkura.verify.proof import prove
from pgkura.verify.units import APPLICATION
from pgkura.work.pools import Crew


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What `verify` prints; as_json is the documented object."""

    result: Result
    summary: str
    seconds: float
    proof: dict[str, Any]
    problems: tuple[str, ...]
    differences: tuple[Finding, ...]
    ignored: tuple[str, ...] = ()
    accepted_unused: tuple[str, ...] = ()
    later: bool = False

    @property
    def exit_code(self) -> int:
        """0 ok, 3 a database that differs, 16 a damaged repository, 17 one with files of a later format (`later`)."""
        if self.problems and self.later:
            return FormatTooNew.exit_code
        if self.problems:
            return Tampered.exit_code
        return 0 if self.result is Result.OK else 3

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result.value,
            "summary": self.summary,
            "seconds": round(self.seconds, 3),
            "proof": self.proof,
            "problems": list(self.problems),
            "ignored": list(self.ignored),
            "accepted_unused": list(self.accepted_unused),
        }


def verify_repository(repo: Repository, snapshot: str, *, progress: Progress) -> VerifyResult:
    """With the identity every byte is decrypted and decoded; without it only the sealed form is checked."""
    begun = time.monotonic()
    ids = [repo.manifest(snapshot).id] if snapshot else repo.manifest_ids()
    report = check_repository(repo, ids, deep=repo.can_read_data, progress=progress)
    log = check_log(repo, deep=repo.can_read_data, progress=progress)
    report.problems += (Problem(file=d.file, reason=d.reason, snapshots=(), later=d.later) for d in log.damages)
    report.ignored = repo.warnings
    unused_files = "unused files were not counted" if report.orphans is None else f"{report.orphans} unused files"
    form = "read, decrypted and decoded" if repo.can_read_data else "in sealed form only (no identity here)"
    body = {**report.as_json(), "segments": log.segments, "bundles": log.bundles, "log_bytes": log.bytes}
    if repo.can_read_data:
        keep_proof(repo, "check", body, progress)
    return VerifyResult(
        result=Result.INCOMPLETE if report.problems else Result.OK,
        summary=f"{len(ids)} snapshots, {report.objects} objects, {report.chunks} chunks, "
        f"{log.segments} segments {form}; {len(report.problems)} problems, {unused_files}",
        seconds=time.monotonic() - begun,
        proof=body,
        problems=tuple(str(p) for p in report.problems),
        ignored=tuple(report.ignored),
        later=all(p.later for p in report.problems),
        differences=(),
    )


def verify_against(
    repo: Repository,
    snapshot: str,
    endpoint: Endpoint,
    *,
    accepted: tuple[str, ...] = (),
    parallel: int = 2,
    progress: Progress,
    access: Access | None = None,
    crew: Crew | None = None,
) -> VerifyResult:
    """Compare a database with a snapshot; the proof goes to the journal. Raises SourceBusy: its application waited."""
    manifest = repo.manifest(snapshot)
    waived = (*accepted, *manifest.accepted)
    stop = Stop()
    with giving_way(endpoint, APPLICATION, stop):
        proof = prove(
            endpoint,
            repo,
            manifest,
            told=manifest.skipped,
            accepted=waived,
            parallel=parallel,
            progress=progress,
            stop=stop,
            access=access,
            crew=crew,
        )
    keep_proof(repo, "proof", proof.as_json(), progress)
    word = "equal" if proof.equal else "NOT equal"
    return VerifyResult(
        result=proof.result,
        summary=f"{endpoint.display} against {manifest.id}: {word} ({proof.tables} tables, {proof.rows:,} rows, "
        f"{proof.sequences} sequences, {proof.foreign_keys} foreign keys, {proof.objects} objects)",
        seconds=proof.seconds,
        proof=proof.as_json(),
        problems=(),
        differences=proof.differences,
        accepted_unused=unused(proof.differences, accepted),
    )
