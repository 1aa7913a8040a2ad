"""`prune --also`: several repositories in one run, each planned for itself, by the same rules for what it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pgkura.core.errors import Interrupted, PgkuraError
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress
from pgkura.operations.prune import PlannedPrune, PruneResult, execute_prune


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedAll:
    """What became of each, by its place, in the order in which they were given: a result, or why there is none."""

    ends: tuple[tuple[str, PruneResult | PgkuraError], ...]

    @property
    def result(self) -> Result:
        """The worst."""
        green = all(isinstance(e, PruneResult) and e.result is Result.OK for _, e in self.ends)
        return Result.OK if green else Result.INCOMPLETE

    def as_json(self) -> dict[str, Any]:
        """The first one's object, with the others' in `also`; `result` is the worst of all."""
        (_, first), *others = [(url, _json(url, end)) for url, end in self.ends]
        if not others:
            return {k: v for k, v in first.items() if k != "repository"}
        return {**first, "result": self.result.value, "also": [made for _, made in others]}


def _json(url: str, end: PruneResult | PgkuraError) -> dict[str, Any]:
    if isinstance(end, PruneResult):
        return {"repository": url, **end.as_json()}
    return {"repository": url, "result": "failed", "error": end.as_json()}


def plans_as_json(plans: Sequence[PlannedPrune]) -> dict[str, Any]:
    """The `--dry-run --json` object: the first one's, with the others' in `also`."""
    first, *others = [p.as_json() for p in plans]
    return {**first, "also": others} if others else first


def execute_all(plans: Sequence[PlannedPrune], *, progress: Progress) -> PrunedAll:
    """One after the other. An error of one ends none of the others; of a single one it is raised."""
    ends: list[tuple[str, PruneResult | PgkuraError]] = []
    for planned in plans:
        try:
            ends.append((planned.repo.url, execute_prune(planned, progress=progress)))
        except Interrupted:
            raise
        except PgkuraError as error:
            if len(plans) == 1:
                raise
            ends.append((planned.repo.url, error))
    return PrunedAll(ends=tuple(ends))
