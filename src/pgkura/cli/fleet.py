"""`backup --all` and `--name`: the policy's databases, their lines told apart by name."""

import sys
import traceback
from collections.abc import Callable
from threading import Lock

from pgkura.app.compose import Composition
from pgkura.app.fleet import Fleet
from pgkura.cli import output
from pgkura.cli.progress import Plain, human_bytes, human_seconds
from pgkura.core.errors import PgkuraError
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress, Silent
from pgkura.core.stop import Stop
from pgkura.operations.backup import BackupResult
from pgkura.operations.fleet import FleetResult, Job, back_up_all
from pgkura.repository.repository import Repository

# Backs one database up: its name, composition, its repository, progress, stop.
BackUp = Callable[[str, Composition, Repository, Progress, Stop], BackupResult]


def run_fleet(fleet: Fleet, back_up: BackUp, *, quiet: bool) -> FleetResult:
    """All databases of the policy."""
    lock = Lock()

    def job(name: str) -> Job:
        def write(line: str) -> None:
            with lock:
                print(f"{name}: {line}", file=sys.stderr, flush=True)

        def run(stop: Stop) -> BackupResult:
            progress: Progress = Silent() if quiet else Plain(write)
            try:
                composition = fleet.composition(name)
                result = back_up(name, composition, fleet.open_repository(composition), progress, stop)
            except PgkuraError as error:
                write(f"failed: {error.msg}")
                raise
            except Exception:
                write("failed\n" + traceback.format_exc())
                raise
            progress.note(f"{result.result}: snapshot {result.snapshot}")
            return result

        return run

    return back_up_all({n: job(n) for n in fleet.names()}, at_once=fleet.policy.fleet.at_once)


def render(fleet: FleetResult) -> None:
    """One line per database, then what is missing where."""
    output.table(
        f"fleet: {fleet.result}",
        ("database", "result", "snapshot", "rows #", "stored #", "time #"),
        (_row(name, one) for name, one in fleet.databases.items()),
    )
    for name, one in fleet.databases.items():
        if isinstance(one, PgkuraError):
            output.out().print(f"{name}: {one}", markup=False)
        elif one.result is not Result.OK:
            output.out().print(f"{name}:", markup=False)
            output.findings(one.skipped, one.accepted)


def _row(name: str, one: BackupResult | PgkuraError) -> tuple[str, ...]:
    if isinstance(one, PgkuraError):
        return (name, "failed", "", "", "", "")
    stored, seconds = human_bytes(one.bytes_stored), human_seconds(one.seconds)
    return (name, one.result.value, one.snapshot, f"{one.rows:,}", stored, seconds)
