"""backup."""

from dataclasses import asdict, replace
from typing import Annotated

import typer

from pgkura.app.compose import Composition
from pgkura.app.executors import choose
from pgkura.app.fleet import Flags, Fleet, find_policy, open_fleet
from pgkura.app.settings import read_settings
from pgkura.cli import durations, options, output
from pgkura.cli.fleet import render as render_fleet
from pgkura.cli.fleet import run_fleet
from pgkura.cli.progress import human_bytes, human_seconds, shown
from pgkura.core.errors import UsageError
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.operations.backup import BackupResult, Limits, Lock, back_up
from pgkura.repository.repository import Repository
from pgkura.snapshot.detector import DEFAULT_POLICY, Policy
from pgkura.snapshot.standby import check_same_system
from pgkura.storage.retention import LockMode


def backup(
    database: Annotated[
        str | None,
        typer.Option(
            "--database", help="Source URL, or env:NAME or file:PATH (a password shows in `ps`) [env: DATABASE_URL]"
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All databases of the policy.")] = False,
    name: Annotated[str, typer.Option("--name", help="One database of the policy, by its name.")] = "",
    policy: Annotated[
        str, typer.Option("--policy", help="The policy document; default ./pgkura.yaml [env: PGKURA_POLICY]")
    ] = "",
    repository: options.Repository = "",
    host_key: options.HostKey = "",
    accept: options.Accept = None,
    storage_class: Annotated[
        str, typer.Option("--storage-class", help="For row data in S3, e.g. GLACIER_IR (90 days at least).")
    ] = "",
    workers: options.Workers = 2,
    executor: options.Executor = "auto",
    max_blocking: Annotated[
        float, typer.Option("--max-blocking", min=0.1, help="Seconds an application statement may wait on us.")
    ] = 2.0,
    lock_share: Annotated[
        float, typer.Option("--lock-share", min=0.01, max=1, help="Share of the server's lock table we may use.")
    ] = 0.25,
    connection_share: Annotated[
        float, typer.Option("--connection-share", min=0.01, max=1, help="Share of the free connections we may take.")
    ] = 0.25,
    max_rate: Annotated[
        int, typer.Option("--max-rate", min=0, help="Bytes per second from the server, all workers; 0 = no limit.")
    ] = 0,
    cpu_share: Annotated[
        float, typer.Option("--cpu-share", min=0.05, max=1, help="Share of its time each worker lets the server work.")
    ] = 1.0,
    statement_timeout: Annotated[
        str, typer.Option("--statement-timeout", help="Longest statement that reads rows, e.g. 30min; '' = no limit.")
    ] = "",
    lock_timeout: Annotated[
        str, typer.Option("--lock-timeout", help="Longest wait for one lock, e.g. 2s; '' = from --max-blocking.")
    ] = "",
    max_snapshot_age: Annotated[
        str, typer.Option("--max-snapshot-age", help="How long VACUUM may be held back; at half of it it is said.")
    ] = "6h",
    end_at_snapshot_age: Annotated[
        bool, typer.Option("--end-at-snapshot-age", help="At that age end with exit code 20, no snapshot made.")
    ] = False,
    read_from: Annotated[
        str | None,
        typer.Option("--read-from", help="A standby of the database (URL, env:NAME, file:PATH): all is read there."),
    ] = None,
    lock_days: Annotated[
        int,
        typer.Option("--lock-days", min=0, help="Object Lock: keep all the snapshot's files so long; 0 = no lock."),
    ] = 0,
    lock_mode: Annotated[
        LockMode, typer.Option("--lock-mode", help="COMPLIANCE: nobody can shorten it. GOVERNANCE: a permission can.")
    ] = LockMode.COMPLIANCE,
    gentle: Annotated[
        bool, typer.Option("--gentle", help="Never read in ranges: spares the cache; over 256 MB no increments.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read everything, whatever is known to be unchanged since the last backup.")
    ] = False,
    rebase_share: Annotated[
        float | None,
        typer.Option(
            "--rebase-share",
            min=0,
            max=10,
            help=f"Read a range whole that keeps more rows in vain than this share; {DEFAULT_POLICY.share:g}, or the "
            "policy's.",
        ),
    ] = None,
    reread_after: Annotated[
        str,
        typer.Option(
            "--reread-after",
            help=f"Read each range whole again after so many days, changed or not; {DEFAULT_POLICY.days}d, or the "
            "policy's.",
        ),
    ] = "",
    also: Annotated[
        list[str] | None,
        typer.Option("--also", help="Copy the snapshot to this repository too (made if empty). Repeatable."),
    ] = None,
    insecure_store: options.InsecureStore = False,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Back up everything at one instant, sealed."""
    url = options.not_blank("--database", database)
    standby = options.not_blank("--read-from", read_from)
    if standby and every:
        raise UsageError("--read-from does not go with --all", hint="one standby is of one system")
    limits = Limits(
        max_blocking_seconds=max_blocking,
        lock_share=lock_share,
        connection_share=connection_share,
        bytes_per_second=max_rate,
        cpu_share=cpu_share,
        statement_timeout_seconds=durations.seconds(statement_timeout, "--statement-timeout", least=0.01),
        lock_timeout_seconds=durations.seconds(lock_timeout, "--lock-timeout", least=0.01),
        max_snapshot_age_seconds=durations.seconds(max_snapshot_age or "6h", "--max-snapshot-age", least=1),
        end_at_snapshot_age=end_at_snapshot_age,
        gentle=gentle,
        full=full,
    )
    days = _days(reread_after)
    flags = Flags(
        repository=repository,
        host_key=host_key,
        insecure_store=insecure_store,
        insecure_database=insecure_database,
    )
    fleet = _fleet(flags, every, name, url, policy)

    def one(
        name: str, composition: Composition, repo: Repository, progress: Progress, stop: Stop | None = None
    ) -> BackupResult:
        source, access = composition.source(), composition.access_for_backup()
        if standby:
            composition = composition.reading_from(standby)
            primary, source, access = source, composition.source(), composition.access_for_backup()
            check_same_system(primary, source)
        others = [composition.other_storage(url) for url in also or ()]
        with choose(executor).open(access) as crew:
            made = back_up(
                source,
                repo,
                access,
                accepted=tuple(accept or ()),
                storage_class=storage_class,
                parallel=workers,
                limits=replace(limits, follow=_follow(rebase_share, days, fleet, name)),
                lock=Lock(days=lock_days, mode=lock_mode),
                progress=progress,
                stop=stop,
                crew=crew,
            )
        if not others:
            return made
        from pgkura.operations.also import copy_also

        return copy_also(repo, made, others, storage_class=storage_class, progress=progress)

    if every and fleet is not None:
        told = run_fleet(fleet, one, quiet=quiet)
        if as_json:
            output.print_json(told.as_json())
        elif not quiet or told.exit_code:
            render_fleet(told)
        raise typer.Exit(told.exit_code)
    if fleet is None:
        composition = Composition(read_settings(database=url, **asdict(flags)))
    else:
        composition = fleet.composition(*fleet.names([name]))
    with shown(quiet=quiet) as progress:
        result = one(name, composition, composition.repository(need_host=True), progress)
    if as_json:
        output.print_json(result.as_json())
    elif not quiet or result.result is not Result.OK:
        _render(result)
    raise typer.Exit(output.exit_code(result.result))


def _days(reread_after: str) -> int | None:
    """Whole days, for a range remembers the day on which it was read; None: not given."""
    return round(durations.seconds(reread_after, "--reread-after", least=86_400) // 86_400) or None


def _follow(share: float | None, days: int | None, fleet: Fleet | None, name: str) -> Policy:
    """What the flags say, else the policy for this database, else what is usual."""
    if fleet is not None:
        plan = fleet.policy.increments_of(name)
        share, days = plan.rebase_share if share is None else share, plan.days if days is None else days
    usual = DEFAULT_POLICY
    return replace(usual, share=usual.share if share is None else share, days=usual.days if days is None else days)


def _fleet(flags: Flags, every: bool, name: str, database: str, policy: str) -> Fleet | None:
    """The policy's databases; None where one is meant by its URL."""
    if every:
        _refuse_beside_policy(database, name)
    elif name:
        _refuse_beside_policy(database)
    elif policy:
        raise UsageError("--policy says nothing alone", hint="add --all, or --name NAME for one of its databases")
    else:
        return None
    return open_fleet(find_policy(policy), flags)


def _refuse_beside_policy(database: str, name: str = "") -> None:
    if database or name:
        given = "--database" if database else "--name"
        raise UsageError(f"{given} does not go with {'--name' if database and not name else '--all'}", hint="give one")


def _render(result: BackupResult) -> None:
    out = output.out()
    style = "bold green" if result.result is Result.OK else "bold yellow"
    out.print(f"{result.result}: snapshot {result.snapshot}", style=style, markup=False)
    out.print(
        f"{result.tables:,} tables, {result.rows:,} rows; {human_bytes(result.bytes_read)} read, "
        f"{human_bytes(result.bytes_stored)} stored; {result.chunks_unchanged:,} of {result.chunks:,} chunks known; "
        f"{human_seconds(result.seconds)}, peak memory {human_bytes(result.peak_memory_bytes)}",
        markup=False,
    )
    if result.warning:
        out.print(f"warning: {result.warning}", style="bold yellow", markup=False)
    if result.lock is not None:
        out.print(
            f"{result.lock.files:,} files locked ({result.lock.mode}) until {result.lock.until}; "
            f"{result.lock.extended:,} locks made longer",
            markup=False,
        )
    for copy in result.copies:
        out.print(f"copy in {copy['repository']}: {copy['result']}", markup=False)
    output.findings(result.skipped, result.accepted)
    output.unused_waivers(result.accepted_unused)
