"""What `take` answers, and the numbers in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgkura.core.outcome import Finding, Result
from pgkura.repository.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A snapshot that exists. `counts` has whole numbers under the names of `backup --json`; `seconds` beside it."""

    manifest: Manifest
    result: Result
    findings: tuple[Finding, ...]
    accepted: tuple[str, ...]
    counts: Mapping[str, int]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The object that `backup --json` ends with."""
        return {
            "result": self.result.value,
            "snapshot": self.manifest.id,
            **self.counts,
            "seconds": round(self.seconds, 3),
            "skipped": [f.as_json() for f in self.findings],
            "accepted": list(self.accepted),
        }
