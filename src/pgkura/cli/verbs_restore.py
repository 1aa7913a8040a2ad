"""restore and release: verbs that write to a target."""

import os
import sys
from typing import Annotated

import typer

from pgkura.app.compose import Composition
from pgkura.app.executors import choose
from pgkura.app.settings import parse_switch, read_settings
from pgkura.cli import options, output
from pgkura.cli.progress import human_bytes, human_seconds, shown
from pgkura.core.errors import NotConfirmed
from pgkura.core.outcome import Result
from pgkura.operations.release import release_jobs
from pgkura.operations.replay import parse_moment
from pgkura.operations.restore import PlannedRestore, RestoreResult, execute_restore, plan_restore

To = Annotated[
    str | None,
    typer.Option("--to", help="Target URL, or env:NAME or file:PATH; wins over DATABASE_URL [env: DATABASE_URL]"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the exact plan, touch nothing [env: DRY_RUN]")]


def _is_dry(flag: bool) -> bool:
    # The variable is read first: a misspelt one is refused whatever the flag says.
    return parse_switch("DRY_RUN", os.environ.get("DRY_RUN", "")) or flag


def restore(
    snapshot: options.SnapshotId = "latest",
    to: To = None,
    dry_run: DryRun = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every step of the plan, by name.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    allow_non_empty: Annotated[
        bool, typer.Option("--allow-non-empty", help="Restore beside what the target already holds.")
    ] = False,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="Let the backup's own CHECK and default functions run with your rights."),
    ] = False,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            help="A moment of the change log: TIME, LSN, `before xid N`, `after xid N`, `snapshot X:Y:Z`, `latest`, "
            "a mark.",
        ),
    ] = "",
    accept: options.Accept = None,
    repository: options.Repository = "",
    identity: options.Identity = "",
    workers: options.Workers = 2,
    executor: options.Executor = "auto",
    insecure_store: options.InsecureStore = False,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Restore a snapshot into an empty database or a fresh Supabase project, and prove it equal."""
    dry_run = _is_dry(dry_run)
    settings = read_settings(
        database=options.not_blank("--to", to),
        repository=repository,
        identity=identity,
        insecure_store=insecure_store,
        insecure_database=insecure_database,
    )
    composition = Composition(settings)
    moment = parse_moment(at) if at else None
    choice, access = choose(executor), composition.access_for_reading()
    choice.check(access)
    with shown(quiet=quiet) as progress:
        planned = plan_restore(
            composition.repository(need_identity=True),
            snapshot,
            composition.target(),
            allow_non_empty=allow_non_empty,
            trust_code=trust_code,
            accepted=tuple(accept or ()),
            parallel=workers,
            at=moment,
            progress=progress,
        )
    if dry_run:
        if as_json:
            output.print_json(planned.as_json())
        else:
            _render_plan(planned, verbose=verbose)
        return
    if not as_json and not quiet:
        _render_plan(planned, verbose=verbose)
    _confirm(planned, yes=yes)
    with shown(quiet=quiet) as progress, choice.open(access) as crew:
        result = execute_restore(planned, progress=progress, access=access, crew=crew)
    if as_json:
        output.print_json(result.as_json())
    else:
        _render(result)
    raise typer.Exit(output.exit_code(result.result))


def _confirm(planned: PlannedRestore, *, yes: bool) -> None:
    if yes or not planned.needs_confirmation:
        return
    question = f"write to database {planned.target_display}, which is not empty?"
    if not sys.stdin.isatty():
        raise NotConfirmed(question, hint="read the plan with --dry-run, then add --yes")
    if not typer.confirm(question, default=False, err=True):
        raise NotConfirmed("nothing was touched", hint="")


def _render_plan(planned: PlannedRestore, *, verbose: bool) -> None:
    out = output.out()
    out.print(
        f"restore {planned.snapshot} to {planned.target_display} ({planned.target_kind})", style="bold", markup=False
    )
    output.table(
        "stages",
        ("#", "stage", "objects #", "rows #", "bytes #", "note"),
        (
            (
                n,
                s.name,
                f"{s.objects:,}",
                f"{s.rows:,}" if s.rows else "",
                human_bytes(s.bytes) if s.bytes else "",
                s.note,
            )
            for n, s in enumerate(planned.stages, 1)
        ),
    )
    for line in planned.notes:
        out.print(line, markup=False)
    if verbose:
        for number, step in enumerate(planned.steps, 1):
            size = f"  ({step.rows:,} rows, {human_bytes(step.bytes)})" if step.action == "load" else ""
            out.print(f"{number:>6}  {step.stage.value}: {step.action} {step.what}{size}", markup=False)
    else:
        out.print(f"{len(planned.steps):,} steps: --verbose (-v) or --json shows each", style="dim", markup=False)
    output.findings(planned.findings, planned.accepted)


def _render(result: RestoreResult) -> None:
    out = output.out()
    style = "bold green" if result.result is Result.OK else "bold yellow"
    equal = "equal" if result.proof.get("equal") else "NOT equal"
    out.print(
        f"{result.result}: {result.snapshot} restored to {result.target}, proof: {equal}", style=style, markup=False
    )
    out.print(
        f"{result.rows:,} rows; restore_seconds {result.restore_seconds:.1f}, proof_seconds {result.proof_seconds:.1f} "
        f"(together {human_seconds(result.seconds)})",
        markup=False,
    )
    output.findings(result.skipped, result.accepted)
    output.unused_waivers(result.accepted_unused)


def release(
    to: To = None,
    snapshot: options.SnapshotId = "latest",
    dry_run: DryRun = False,
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
) -> None:
    """Switch the cron jobs that a restore holds back to their stored state."""
    dry_run = _is_dry(dry_run)
    settings = read_settings(
        database=options.not_blank("--to", to),
        repository=repository,
        identity=identity,
        insecure_store=insecure_store,
        insecure_database=insecure_database,
    )
    composition = Composition(settings)
    repo = composition.repository(need_identity=True)
    released = release_jobs(repo, snapshot, composition.target(), dry_run=dry_run)
    if as_json:
        output.print_json(released.as_json())
    else:
        done = "would be switched" if dry_run else "switched"
        output.out().print(
            f"{len(released.jobs)} cron jobs on {released.target} {done} to their stored state", markup=False
        )
        for job in released.jobs if dry_run else ():
            output.out().print(f"  {job}", markup=False)
        output.findings(released.skipped)
    if not dry_run:
        raise typer.Exit(output.exit_code(released.result))
