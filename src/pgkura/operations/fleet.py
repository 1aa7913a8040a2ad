"""`backup --all`: several databases, a bounded number at once, each a backup of its own."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from pgkura.core.errors import EXIT_INCOMPLETE, EXIT_OK, PgkuraError
from pgkura.core.outcome import Result
from pgkura.core.stop import Stop
from pgkura.operations.backup import BackupResult

TICK_SECONDS = 0.2
Job = Callable[[Stop], BackupResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResult:
    """Each database's own result, or the error that ended its backup."""

    databases: Mapping[str, BackupResult | PgkuraError]

    @property
    def result(self) -> str:
        """The worst: failed, incomplete, ok."""
        if any(isinstance(one, PgkuraError) for one in self.databases.values()):
            return "failed"
        results = {one.result for one in self.databases.values() if isinstance(one, BackupResult)}
        return Result.OK.value if results <= {Result.OK} else Result.INCOMPLETE.value

    @property
    def exit_code(self) -> int:
        """1 if one failed, 3 if one is incomplete, else 0."""
        return {"failed": PgkuraError.exit_code, "incomplete": EXIT_INCOMPLETE}.get(self.result, EXIT_OK)

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result,
            "databases": {
                name: {"error": one.as_json()} if isinstance(one, PgkuraError) else one.as_json()
                for name, one in self.databases.items()
            },
        }


def back_up_all(jobs: Mapping[str, Job], *, at_once: int) -> FleetResult:
    """Run all jobs. One that fails stops no other; an interrupt of ours stops all, and is raised when they ended."""
    stops = {name: Stop() for name in jobs}
    done: dict[str, BackupResult | PgkuraError] = {}
    with ThreadPoolExecutor(at_once, thread_name_prefix="pgkura-fleet") as pool:
        futures: dict[str, Future[BackupResult]] = {n: pool.submit(_run, job, stops[n]) for n, job in jobs.items()}
        try:
            # In slices: a signal's exception reaches this thread between them.
            while wait(futures.values(), timeout=TICK_SECONDS).not_done:
                pass
        except BaseException:
            for name, future in futures.items():
                future.cancel()
                stops[name].request()
            raise
    for name, future in futures.items():
        try:
            done[name] = future.result()
        except PgkuraError as error:
            done[name] = error
    return FleetResult(databases=done)


def _run(job: Job, stop: Stop) -> BackupResult:
    stop.check()
    try:
        return job(stop)
    except PgkuraError:
        raise
    except Exception as error:
        # A fault of ours in one backup must not take the others with it. Its message might quote anything.
        raise PgkuraError(
            f"a fault in pgkura: {type(error).__name__}", hint="please report it, with the traceback of a run alone"
        ) from error
