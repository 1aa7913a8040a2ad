"""people, hosts, epoch: who may read, who may write."""

from pathlib import Path
from typing import Annotated

import typer

from pgkura.app.compose import Composition
from pgkura.app.settings import parse_time, read_settings
from pgkura.cli import options, output
from pgkura.core.errors import UsageError
from pgkura.operations import keys

people = typer.Typer(help="Who can read every backup: list, add, remove.", no_args_is_help=True, rich_markup_mode=None)
hosts = typer.Typer(
    help="Which machines can make backups: list, add, revoke.", no_args_is_help=True, rich_markup_mode=None
)
epoch = typer.Typer(help="The key that new data is sealed to: new.", no_args_is_help=True, rich_markup_mode=None)


def _composition(repository: str, identity: str, insecure_store: bool, host_key: str = "") -> Composition:
    return Composition(
        read_settings(repository=repository, identity=identity, host_key=host_key, insecure_store=insecure_store)
    )


@people.command("list")
def people_list(
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """List the people whose identities open every backup."""
    composition = _composition(repository, identity, insecure_store)
    listed = keys.list_people(composition.storage(), composition.identity())
    if as_json:
        output.print_json({"result": "ok", "people": [p.as_json() for p in listed]})
        return
    rows = ((p.name, p.recipient, p.added, p.by) for p in listed)
    output.table("people", ("name", "recipient", "added", "by"), rows)


@people.command("add")
def people_add(
    name: Annotated[str, typer.Argument(help="What the person is called here.")],
    recipient: Annotated[str, typer.Argument(help="The person's age recipient (age1…), never a secret key.")],
    write: Annotated[str, typer.Option("--write", help="Also write the comment lines to this new file.")] = "",
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """Let a person read every backup, old and new, with an age identity of their own."""
    if write and Path(write).exists():
        raise UsageError(f"{write} exists already", hint="choose another path")
    composition = _composition(repository, identity, insecure_store)
    done = keys.add_person(composition.storage(), composition.identity(), name, recipient)
    if write:
        Path(write).write_text(done.lines)
    if as_json:
        output.print_json(done.as_json())
        return
    out = output.out()
    out.print(f"{done.name} can read this repository now ({done.epochs} epochs)", markup=False, style="bold")
    out.print("These lines belong into the identity file of the person, above the secret key; they are not secret:\n")
    out.print(done.lines, markup=False)
    out.print(
        "They say whose signatures to trust: hand them over by a way that nobody else can change.\n"
        "The person sets PGKURA_IDENTITY to that file and can then restore, verify and export.",
        markup=False,
    )


@people.command("remove")
def people_remove(
    name: Annotated[str, typer.Argument(help="The name that `people list` shows.")],
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """Shut a person out of the key files; what was copied before cannot be taken back."""
    composition = _composition(repository, identity, insecure_store)
    done = keys.remove_person(composition.storage(), composition.identity(), name)
    if as_json:
        output.print_json(done.as_json())
        return
    output.out().print(
        f"{done.name} is taken out of {done.epochs} epochs.\n"
        "A copy of a key file made before still opens them, and with it all data sealed to these epochs, also data\n"
        "written later. To shut the person out of what comes: pgkura epoch new",
        markup=False,
    )


@hosts.command("list")
def hosts_list(
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """List the machines that were signed in, and those that were revoked."""
    composition = _composition(repository, identity, insecure_store, host_key)
    listed = keys.list_hosts(composition.storage(), *composition.keys_at_hand())
    if as_json:
        output.print_json({"result": "ok", "hosts": [h.as_json() for h in listed]})
        return
    rows = ((h.id, h.name or "-", h.created, h.epoch, h.revoked or "-") for h in listed)
    output.table("hosts", ("host", "name", "added", "since epoch #", "revoked"), rows)


@hosts.command("add")
def hosts_add(
    name: Annotated[str, typer.Argument(help="What the machine is called here.")],
    write: Annotated[Path, typer.Option("--write", help="Path of the new host key file (0600).")],
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """Sign in one more machine: writes its host key file, which makes backups and reads no rows."""
    composition = _composition(repository, identity, insecure_store)
    done = keys.add_host(composition.storage(), composition.identity(), name, write)
    if as_json:
        output.print_json(done.as_json())
        return
    output.out().print(
        f"host {done.id} ({done.name}): {done.path}\n"
        "Move this file to that machine, to the path in its PGKURA_HOST_KEY, and delete it here.",
        markup=False,
    )


@hosts.command("revoke")
def hosts_revoke(
    host: Annotated[str, typer.Argument(help="Host id, a unique beginning of one, or a name.")],
    since: Annotated[
        str, typer.Option("--since", help="Distrust what the host wrote from this time on, e.g. 2026-11-24T10:00Z.")
    ] = "",
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """Believe nothing more that a machine writes; its snapshots of before stay good and restore."""
    composition = _composition(repository, identity, insecure_store)
    when = parse_time("--since", since)
    done = keys.revoke_host(composition.storage(), composition.identity(), host, since=when)
    if as_json:
        output.print_json(done.as_json())
        return
    output.out().print(
        f"host {done.id} ({done.name or 'no name'}) is revoked: {done.snapshots} snapshots and "
        f"{done.files - done.snapshots} other files of it stay good, nothing more is believed.\n"
        "Take the machine's credentials for the store away as well: only that keeps it from deleting or filling.",
        markup=False,
    )


@epoch.command("new")
def epoch_new(
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """Seal new data to a new key: after somebody who could read shall read no more."""
    composition = _composition(repository, identity, insecure_store)
    number = keys.new_epoch(composition.storage(), composition.identity())
    if as_json:
        output.print_json({"result": "ok", "epoch": number})
        return
    output.out().print(
        f"epoch {number} has begun. Hosts learn of it by themselves; the next backup of each database reads and\n"
        "stores everything once. Old snapshots stay as they are, each readable with the key of its epoch.",
        markup=False,
    )
