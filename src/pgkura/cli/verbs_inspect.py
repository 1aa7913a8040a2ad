"""doctor, diff, verify: verbs that only look."""

from typing import Annotated

import typer

from pgkura.app.compose import Composition
from pgkura.app.executors import choose
from pgkura.app.settings import read_settings
from pgkura.cli import options, output
from pgkura.cli.progress import human_seconds, shown
from pgkura.core.outcome import Result
from pgkura.operations.diff import diff_snapshots, live_side
from pgkura.operations.doctor import examine
from pgkura.operations.verify import verify_against, verify_repository

_MARK = {"ok": "[green]ok[/]", "note": "[cyan]note[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


def doctor(
    database: Annotated[str | None, typer.Option("--database", help="URL to examine [env: DATABASE_URL]")] = None,
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
) -> None:
    """Say in plain words what can be protected, what cannot and why, and what to change."""
    settings = read_settings(
        database=options.not_blank("--database", database),
        repository=repository,
        identity=identity,
        host_key=host_key,
        insecure_store=insecure_store,
        insecure_database=insecure_database,
    )
    report = examine(Composition(settings))
    if as_json:
        output.print_json(report.as_json())
    else:
        output.table(
            "doctor",
            ("", "what", "found", "what to change"),
            ((_MARK[c.state], c.what, c.found, c.change) for c in report.checks),
        )
    raise typer.Exit(report.exit_code)


def diff(
    first: Annotated[
        str,
        typer.Argument(
            help="Snapshot id, `latest`, or a live database: `database` (DATABASE_URL), URL, env:NAME, file:PATH."
        ),
    ],
    second: Annotated[str, typer.Argument(help="The same.")],
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
) -> None:
    """What changed between two snapshots, or a snapshot and a live database, as readable DDL."""
    url, (first, second) = live_side(first, second)
    settings = read_settings(
        database=url,
        repository=repository,
        identity=identity,
        insecure_store=insecure_store,
        insecure_database=insecure_database,
    )
    changes = diff_snapshots(Composition(settings), first, second)
    if as_json:
        output.print_json(changes.as_json())
        return
    text = changes.text()
    output.out().print(text or "no difference", markup=False)


def verify(
    snapshot: options.SnapshotId = "",
    against: Annotated[
        str | None,
        typer.Option("--against", help="Compare this database with the snapshot: a URL, env:NAME or file:PATH."),
    ] = None,
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    accept: options.Accept = None,
    workers: options.Workers = 2,
    executor: options.Executor = "auto",
    insecure_store: options.InsecureStore = False,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read the repository back (all snapshots, or one); with --against compare a database with a snapshot."""
    settings = read_settings(
        database=options.not_blank("--against", against),
        repository=repository,
        identity=identity,
        host_key=host_key,
        insecure_store=insecure_store,
        insecure_database=insecure_database,
    )
    composition = Composition(settings)
    choice = choose(executor)
    with shown(quiet=quiet) as progress:
        if against:
            access = composition.access_for_reading()
            with choice.open(access) as crew:
                result = verify_against(
                    composition.repository(need_identity=True),
                    snapshot or "latest",
                    composition.target(),
                    accepted=tuple(accept or ()),
                    parallel=workers,
                    progress=progress,
                    access=access,
                    crew=crew,
                )
        else:
            result = verify_repository(composition.repository(), snapshot, progress=progress)
    if as_json:
        output.print_json(result.as_json())
    else:
        style = "bold green" if result.result is Result.OK else "bold red"
        output.out().print(
            f"{result.result}: {result.summary} ({human_seconds(result.seconds)})", style=style, markup=False
        )
        for problem in result.problems:
            output.out().print(f"  {problem}", markup=False)
        output.warnings(result.ignored)
        output.findings(result.differences, tuple(accept or ()))
        output.unused_waivers(result.accepted_unused)
    raise typer.Exit(result.exit_code)
