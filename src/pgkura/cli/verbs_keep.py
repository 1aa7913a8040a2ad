"""prune and copy: verbs that decide which snapshots lie where."""

import os
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer

from pgkura.app.compose import Composition
from pgkura.app.settings import parse_switch, read_settings
from pgkura.cli import options, output
from pgkura.cli.progress import human_bytes, human_seconds, shown
from pgkura.core.errors import NotConfirmed, UsageError
from pgkura.core.outcome import Result
from pgkura.operations.copy import CopyResult, copy_snapshots
from pgkura.operations.prune import GRACE_SECONDS, PlannedPrune, PruneResult, plan_prune
from pgkura.operations.prune_also import PrunedAll, execute_all, plans_as_json
from pgkura.operations.prune_changes import Keep
from pgkura.repository.retention import Rules

_DURATION = re.compile(r"(\d+)\s*(s|m|min|h|d|w|y)?\Z")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 366 * 86_400, None: 1}


def seconds_of(text: str, option: str) -> int:
    """`90`, `90s`, `30min`, `12h`, `30d`, `8w`, `1y`. Raises UsageError."""
    found = _DURATION.match(text.strip().lower())
    if found is None:
        raise UsageError(f"{option} {text!r} is no duration", hint="for example 12h, 30d, 8w or 1y")
    return int(found[1]) * _SECONDS[found[2]]


def prune(
    keep_last: Annotated[int, typer.Option("--keep-last", min=0, help="Keep the newest N snapshots.")] = 0,
    keep_hourly: Annotated[int, typer.Option("--keep-hourly", min=0, help="… one of each of the last N hours.")] = 0,
    keep_daily: Annotated[int, typer.Option("--keep-daily", min=0, help="… one of each of the last N days.")] = 0,
    keep_weekly: Annotated[int, typer.Option("--keep-weekly", min=0, help="… one of each of the last N weeks.")] = 0,
    keep_monthly: Annotated[int, typer.Option("--keep-monthly", min=0, help="… one of each of N months.")] = 0,
    keep_yearly: Annotated[int, typer.Option("--keep-yearly", min=0, help="… one of each of N years.")] = 0,
    keep_within: Annotated[
        str, typer.Option("--keep-within", help="Keep all within this time before the newest: 12h, 30d, 8w, 1y.")
    ] = "",
    grace: Annotated[
        str, typer.Option("--grace", help="How long unreferenced data stays; longer than any backup runs.")
    ] = f"{GRACE_SECONDS}s",
    repack_below: Annotated[
        float | None,
        typer.Option(
            "--repack-below",
            min=0,
            max=1,
            help="Pack anew what is needed of packs of which less than this share is: 0.5 with identity and host key "
            "at hand, else 0 (never).",
        ),
    ] = None,
    no_repack: Annotated[bool, typer.Option("--no-repack", help="As --repack-below 0.")] = False,
    keep_changes: Annotated[
        str,
        typer.Option(
            "--keep-changes",
            help="Keep the change log of so long only, and the snapshots that lead to its moments: 7d. Without it "
            "all that the kept snapshots lead to.",
        ),
    ] = "",
    no_bundle: Annotated[
        bool, typer.Option("--no-bundle", help="Leave the change log's segments in files of their own.")
    ] = False,
    storage_class: Annotated[
        str, typer.Option("--storage-class", help="Of packs that are written anew in S3, e.g. GLACIER_IR.")
    ] = "",
    also: Annotated[
        list[str] | None,
        typer.Option("--also", help="A second repository of the same keys, by the same rules. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the exact plan, delete nothing [env: DRY_RUN]")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    single_writer: Annotated[
        bool,
        typer.Option("--single-writer", help="Nothing else uses this store; where it cannot keep two writers apart."),
    ] = False,
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove old snapshots by rules, for each database apart, and the data that nothing needs any more."""
    rules = Rules(
        last=keep_last,
        hourly=keep_hourly,
        daily=keep_daily,
        weekly=keep_weekly,
        monthly=keep_monthly,
        yearly=keep_yearly,
        within=timedelta(seconds=seconds_of(keep_within, "--keep-within")) if keep_within else timedelta(0),
    )
    seconds = seconds_of(grace, "--grace")
    within = timedelta(seconds=seconds_of(keep_changes, "--keep-changes")) if keep_changes else None
    dry_run = dry_run or parse_switch("DRY_RUN", os.environ.get("DRY_RUN", ""))
    settings = read_settings(repository=repository, identity=identity, host_key=host_key, insecure_store=insecure_store)
    composition = Composition(settings)
    repos = [composition.repository(), *map(composition.other_repository, also or ())]
    with shown(quiet=quiet) as progress:
        plans = [
            plan_prune(
                repo,
                rules,
                grace=seconds,
                single_writer=single_writer,
                repack_below=0.0 if no_repack else repack_below,
                storage_class=storage_class,
                keep=Keep(within=within, bundle=not no_bundle),
                progress=progress,
            )
            for repo in repos
        ]
    if dry_run:
        if as_json:
            output.print_json(plans_as_json(plans))
        else:
            _render_plans(plans)
        problems = any(planned.problems for planned in plans)
        raise typer.Exit(output.exit_code(Result.INCOMPLETE if problems else Result.OK))
    if not as_json and not quiet:
        _render_plans(plans)
    _confirm(plans, yes=yes)
    with shown(quiet=quiet) as progress:
        done = execute_all(plans, progress=progress)
    if as_json:
        output.print_json(done.as_json())
    elif not quiet or done.result is not Result.OK:
        _render_all(done)
    raise typer.Exit(output.exit_code(done.result))


def _confirm(plans: Sequence[PlannedPrune], *, yes: bool) -> None:
    doing = [p for p in plans if p.needs_confirmation]
    if yes or not doing:
        return
    question = " and ".join(f"remove {len(p.removed)} snapshots and unreferenced data from {p.repo.url}" for p in doing)
    if not sys.stdin.isatty():
        raise NotConfirmed(f"{question}?", hint="read the plan with --dry-run, then add --yes")
    if not typer.confirm(f"{question}?", default=False, err=True):
        raise NotConfirmed("nothing was touched", hint="")


def _render_plans(plans: Sequence[PlannedPrune]) -> None:
    for planned in plans:
        if len(plans) > 1:
            output.out().print(planned.repo.url, style="bold", markup=False)
        _render_plan(planned)


def _render_all(done: PrunedAll) -> None:
    for url, end in done.ends:
        if len(done.ends) > 1:
            output.out().print(url, style="bold", markup=False)
        if isinstance(end, PruneResult):
            _render(end)
        else:
            output.out().print(f"failed: {end.msg}", style="bold yellow", markup=False)


def _render_plan(planned: PlannedPrune) -> None:
    output.table(
        "plan",
        ("snapshot", "database", "", "why"),
        (
            (v.id, planned.databases[v.id], "keep" if v.keep else "REMOVE", ", ".join(v.reasons) or "no rule keeps it")
            for v in planned.verdicts
        ),
    )
    doomed = planned.doomed
    out = output.out()
    for count, size, what in (
        (len(planned.deletable), planned.bytes_of(planned.deletable), "unreferenced files are deleted now"),
        (
            len(doomed.marked - planned.deletable),
            planned.bytes_of(doomed.marked - planned.deletable),
            f"become unreferenced; a prune in {human_seconds(planned.grace)} or later deletes them",
        ),
        (len(doomed.waiting), planned.bytes_of(doomed.waiting), "still wait for their grace time"),
    ):
        if count:
            out.print(f"{count:,} files ({human_bytes(size)}) {what}", markup=False)
    _render_compaction(planned)
    _render_changes(planned)
    if doomed.young:
        out.print(f"{human_bytes(doomed.young)} may belong to a backup that is running", markup=False)
    for line in planned.problems:
        out.print(line, style="yellow", markup=False)
    for line in planned.notes:
        out.print(line, style="dim", markup=False)


def _render_compaction(planned: PlannedPrune) -> None:
    found = planned.compaction
    if not found.packs:
        return
    requests = ", ".join(f"{count:,} {kind}" for kind, count in found.requests.items())
    output.out().print(
        f"{len(found.packs):,} packs are packed anew: {human_bytes(found.live)} of rows and "
        f"{human_bytes(found.lists)} of lists are written for {len(found.snapshots)} snapshots, "
        f"{human_bytes(found.freed)} become unreferenced; about {requests} requests",
        markup=False,
    )


def _render_changes(planned: PlannedPrune) -> None:
    out = output.out()
    for plan in planned.changes:
        told = plan.as_json()
        said = [f"REMOVE: {plan.gone}"] if plan.gone else []
        said += [f"what lies before {told['cut_before']} goes"] if plan.cut else []
        for files, size, what in (
            (told["files_to_delete"], told["bytes_freed"], "are deleted now"),
            (told["files_waiting"], told["bytes_waiting"], "wait for their grace time"),
        ):
            said += [f"{files:,} files ({human_bytes(size)}) {what}"] if files else []
        if plan.groups:
            said.append(f"{told['segments_to_bundle']:,} segments become {len(plan.groups):,} bundles")
        if said:
            out.print(f"change log {plan.id} of {plan.database}: {'; '.join(said)}", markup=False)


def _render(result: PruneResult) -> None:
    out = output.out()
    done, changes = result.done, result.changes
    style = "bold green" if result.result is Result.OK else "bold yellow"
    out.print(
        f"{result.result}: {len(done.snapshots)} snapshots removed, {result.kept} kept; {done.deleted:,} files "
        f"({human_bytes(done.bytes_deleted)}) deleted, {done.marked:,} ({human_bytes(done.bytes_marked)}) newly wait"
        + (f"; {done.repacked.packs:,} packs became {done.repacked.packs_written:,}" if done.repacked.packs else "")
        + (f"; {changes.deleted:,} files of the change log deleted" if changes.deleted else "")
        + (f"; {changes.segments:,} segments became {changes.bundles:,} bundles" if changes.bundles else ""),
        style=style,
        markup=False,
    )
    for line in result.problems:
        out.print(line, style="yellow", markup=False)


def copy(
    snapshots: Annotated[
        list[str] | None, typer.Argument(help="Snapshot ids, beginnings of them, or `latest`.")
    ] = None,
    to_repository: Annotated[
        str, typer.Option("--to-repository", help="Folder or s3://bucket/prefix; made as a copy if it is empty.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every snapshot.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read back and hash what the copy has already.")] = False,
    storage_class: Annotated[str, typer.Option("--storage-class", help="For row data in S3, e.g. GLACIER_IR.")] = "",
    no_changes: Annotated[bool, typer.Option("--no-changes", help="Without the change logs.")] = False,
    workers: Annotated[int, typer.Option("--workers", "-j", min=1, max=32, help="Files under way at once.")] = 4,
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Copy snapshots to a second repository of the same keys (3-2-1); resumable, needs no identity."""
    if not to_repository:
        raise UsageError("where to?", hint="give --to-repository with a folder or s3://bucket/prefix")
    settings = read_settings(repository=repository, identity=identity, host_key=host_key, insecure_store=insecure_store)
    composition = Composition(settings)
    with shown(quiet=quiet) as progress:
        result = copy_snapshots(
            composition.repository(),
            composition.other_storage(to_repository),
            snapshots or (),
            everything=everything,
            check=check,
            storage_class=storage_class,
            workers=workers,
            changes=not no_changes,
            progress=progress,
        )
    if as_json:
        output.print_json(result.as_json())
    elif not quiet or result.result is not Result.OK:
        _render_copy(result)
    raise typer.Exit(output.exit_code(result.result))


def _render_copy(result: CopyResult) -> None:
    out = output.out()
    done = result.done
    style = "bold green" if result.result is Result.OK else "bold yellow"
    out.print(
        f"{result.result}: {len(done.snapshots)} snapshots copied to {result.target}, {len(done.present)} were there; "
        f"{done.objects:,} files ({human_bytes(done.bytes)})"
        + (f", {result.log.files:,} of change logs ({human_bytes(result.log.bytes)})" if result.log.files else "")
        + f" in {human_seconds(result.seconds)}",
        style=style,
        markup=False,
    )
    for line in (*result.problems, *done.notes, *result.log.notes):
        out.print(line, style="yellow", markup=False)
