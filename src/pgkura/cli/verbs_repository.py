"""init, snapshots, show, history, export: verbs that need no database."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pgkura.app.compose import Composition
from pgkura.app.settings import read_settings
from pgkura.cli import options, output
from pgkura.cli.progress import human_bytes, shown
from pgkura.core.outcome import Result
from pgkura.operations.export import export as export_snapshot
from pgkura.operations.init import cut_short, initialise, new_host, refresh_scripts
from pgkura.operations.listing import KINDS, kind_history, list_snapshots, show_snapshot
from pgkura.repository.creating import is_there


def init(
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    refresh: Annotated[
        bool, typer.Option("--refresh-script", help="Only write RESTORE.md and restore.sh of this version anew.")
    ] = False,
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """Make a repository and its two key files; where there is one, and the identity but no host key: a new host key."""
    settings = read_settings(repository=repository, identity=identity, host_key=host_key, insecure_store=insecure_store)
    composition = Composition(settings)
    storage = composition.storage()
    if refresh:
        _refresh(composition, as_json=as_json)
        return
    to_host_key = settings.host_key.writable_path()
    has_only_identity = settings.identity.exists() and not settings.host_key.exists()
    if has_only_identity and is_there(storage) and not cut_short(storage, settings.identity.path, to_host_key):
        made = new_host(storage, composition.identity(), to_host_key)
    else:
        made = initialise(storage, settings.identity.writable_path(), to_host_key, now=datetime.now(UTC))
    if as_json:
        output.print_json(made.as_json())
        return
    out = output.out()
    out.print(f"repository  {made.repository}  ({made.repository_id})", markup=False)
    if made.identity is not None:
        out.print(f"identity    {made.identity}", markup=False, style="bold")
    out.print(f"host key    {made.host_key}", markup=False)
    if made.made == "rest":
        out.print("An earlier `init` was cut short here; it is finished now.", markup=False)
    if made.identity is None:
        out.print(
            "\nThis machine can make backups again. The identity is not needed for that: move it off this machine."
            "\nIf the old host key may be in other hands: `pgkura hosts list`, then `pgkura hosts revoke`.",
            markup=False,
        )
        return
    out.print(
        "\nMove the IDENTITY off this machine now (password manager, printed in a safe): it alone reads and restores"
        "\nbackups. Lose it, and no backup in this repository can be read again, by you or by anyone else."
        "\nThe HOST KEY stays here (0600): it makes backups and reads none. Lose it, and nothing is lost but the next"
        "\nincremental: `pgkura init` with the identity makes another. Stolen, it adds backups and reads no old ones.",
        markup=False,
    )


def _refresh(composition: Composition, *, as_json: bool) -> None:
    changed = refresh_scripts(composition.storage(), composition.identity())
    if as_json:
        output.print_json({"result": "ok", "changed": list(changed)})
        return
    told = f"written anew: {', '.join(changed)}" if changed else "RESTORE.md and restore.sh are this version's already"
    output.out().print(told, markup=False)


def snapshots(
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """List the snapshots, oldest first."""
    settings = read_settings(repository=repository, identity=identity, host_key=host_key, insecure_store=insecure_store)
    repo = Composition(settings).repository()
    listed = list_snapshots(repo)
    output.warnings(repo.warnings)
    if as_json:
        output.print_json(listed.as_json())
        raise typer.Exit(listed.exit_code)
    for told in listed.damaged:
        output.out().print(told, markup=False)
    if not listed.rows:
        if not listed.damaged:
            output.out().print("no snapshots yet: `pgkura backup` makes the first", markup=False)
        raise typer.Exit(listed.exit_code)
    output.table(
        "snapshots",
        ("snapshot", "database", "server", "result", "tables #", "rows #", "read #", "stored #", "proven"),
        (
            (
                row.id,
                row.database,
                row.server,
                row.result,
                f"{row.tables:,}",
                f"{row.rows:,}",
                human_bytes(row.bytes_read),
                human_bytes(row.bytes_stored),
                row.proven or "-",
            )
            for row in listed.rows
        ),
    )
    raise typer.Exit(listed.exit_code)


def show(
    snapshot: options.SnapshotId = "latest",
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """Show one snapshot: what it holds, what was skipped and why."""
    settings = read_settings(repository=repository, identity=identity, host_key=host_key, insecure_store=insecure_store)
    shown_one = show_snapshot(Composition(settings).repository(), snapshot)
    if as_json:
        output.print_json(shown_one.as_json())
        return
    out = output.out()
    for label, value in shown_one.facts:
        out.print(f"{label:<16}{value}", markup=False)
    output.table(
        "components",
        ("component", "fingerprint", "bytes #"),
        ((name, print_[:16], human_bytes(size)) for name, print_, size in shown_one.components),
    )
    if shown_one.tables:
        output.table(
            "largest tables",
            ("table", "rows #", "bytes #"),
            ((name, f"{rows:,}", human_bytes(size)) for name, rows, size in shown_one.tables[:20]),
        )
    output.findings(shown_one.skipped, shown_one.accepted)


def history(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS)}")],
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """The permanent history of one kind: a new version only when it changed."""
    settings = read_settings(repository=repository, identity=identity, host_key=host_key, insecure_store=insecure_store)
    versions = kind_history(Composition(settings).repository(), kind)
    if as_json:
        output.print_json({"result": "ok", "kind": kind, "versions": [v.as_json() for v in versions]})
        return
    output.table(
        f"history of {kind}",
        ("version #", "first seen", "snapshot", "fingerprint"),
        ((v.number, v.created, v.snapshot, v.fingerprint[:16]) for v in versions),
    )
    output.out().print("what changed between two of them: pgkura diff SNAPSHOT SNAPSHOT", style="dim", markup=False)


def export(
    snapshot: options.SnapshotId,
    directory: Annotated[Path, typer.Argument(help="A new folder; it will hold clear text.")],
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a snapshot as the plan's files: SQL by kind, data compressed and as SQL, for stock tools."""
    settings = read_settings(repository=repository, identity=identity, insecure_store=insecure_store)
    repo = Composition(settings).repository(need_identity=True)
    with shown(quiet=quiet) as progress:
        exported = export_snapshot(repo, repo.manifest(snapshot), directory, progress)
    if as_json:
        output.print_json(exported.as_json())
        raise typer.Exit(output.exit_code(Result(exported.result)))
    output.out().print(
        f"exported to {directory}: this is CLEAR TEXT with every row and password hash; guard it, then delete it\n"
        f"load it with: psql -X -v ON_ERROR_STOP=1 -d URL -f {directory}/load.sql",
        markup=False,
    )
    output.findings(exported.skipped)
    raise typer.Exit(output.exit_code(Result(exported.result)))
