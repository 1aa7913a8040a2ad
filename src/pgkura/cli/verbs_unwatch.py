"""unwatch: the end of a change log."""

from typing import Annotated

import typer

from pgkura.app.compose import Composition
from pgkura.app.settings import read_settings
from pgkura.cli import options, output
from pgkura.cli.progress import shown
from pgkura.cli.verbs_changes import Database
from pgkura.operations.unwatch import unwatch as end_log


def unwatch(
    database: Database = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even while a watcher reads: its connection is ended.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Slots of ours too that this repository knows nothing of.")
    ] = False,
    repository: options.Repository = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """End the change log: slot and publications go, the server keeps nothing for it any more. What is stored stays."""
    settings = read_settings(
        database=options.not_blank("--database", database),
        repository=repository,
        host_key=host_key,
        insecure_store=insecure_store,
        insecure_database=insecure_database,
    )
    composition = Composition(settings)
    with shown(quiet=quiet) as progress:
        done = end_log(composition.source(), composition.repository(need_host=True), progress, force=force, every=every)
    if as_json:
        output.print_json(done.as_json())
    elif not quiet:
        for chain in done.chains:
            output.out().print(f"chain {chain} has ended", markup=False)
        for slot in done.dropped:
            output.out().print(f"dropped: slot {slot} and its publications", markup=False)
        for slot in done.stayed:
            output.out().print(f"not of this repository, and still there (--all): {slot}", markup=False)
        if not (done.chains or done.dropped or done.stayed):
            output.out().print("nothing of ours is on this server", markup=False)
    raise typer.Exit(output.exit_code(done.result))
