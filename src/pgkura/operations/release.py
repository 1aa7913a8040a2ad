"""`release`: let the cron jobs of a restored database run again."""

import json
from dataclasses import dataclass
from typing import Any

from pgkura.core.facts import SourceFacts
from pgkura.core.outcome import Finding, Result, decide
from pgkura.core.progress import Silent
from pgkura.operations.proofs import keep_proof
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.repository.repository import Repository
from pgkura.restore.platform_state import release_jobs as release_on


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """Which jobs were switched (or would be: `planned`), and which could not be."""

    result: Result
    planned: bool
    target: str
    jobs: tuple[str, ...]
    skipped: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": "planned" if self.planned else self.result.value,
            "target": self.target,
            "jobs": list(self.jobs),
            "skipped": [f.as_json() for f in self.skipped],
        }


def release_jobs(repo: Repository, snapshot: str, endpoint: Endpoint, *, dry_run: bool = False) -> Released:
    """Switch each job of the snapshot to its stored state on the target, journaled; `dry_run` only says which."""
    manifest = repo.manifest(snapshot)
    facts = SourceFacts.from_json(json.loads(repo.component(manifest, "facts")))
    with connect(endpoint, application_name="pgkura release") as session:
        jobs, findings = release_on(session, facts, dry_run=dry_run)
    if not dry_run:
        keep_proof(repo, "release", {"snapshot": manifest.id, "target": endpoint.display, "jobs": jobs}, Silent())
    return Released(
        result=decide(findings),
        planned=dry_run,
        target=endpoint.display,
        jobs=tuple(jobs),
        skipped=tuple(findings),
    )
