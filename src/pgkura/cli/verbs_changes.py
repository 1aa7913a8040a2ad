"""watch, mark, timeline, find: the change log."""

import shlex
import signal
from enum import StrEnum
from types import FrameType
from typing import Annotated

import typer

from pgkura.app.compose import Composition
from pgkura.app.settings import read_settings
from pgkura.changes.options import Options
from pgkura.cli import durations, options, output
from pgkura.cli.progress import human_bytes, human_seconds, shown
from pgkura.core.errors import UsageError
from pgkura.core.stop import Stop
from pgkura.operations import watch as operation
from pgkura.operations.bases import Bases
from pgkura.operations.find import find as search_log
from pgkura.operations.find import question_of
from pgkura.operations.timeline import ChainLine
from pgkura.operations.timeline import timeline as make_timeline

_NOT_FOR_BASES = ("database", "every", "name", "policy", "repository", "host_key", "read_from", "as_json", "quiet")


class Transport(StrEnum):
    """How `watch` reads the log."""

    AUTO = "auto"
    STREAM = "stream"
    SQL = "sql"


Database = Annotated[
    str | None,
    typer.Option(
        "--database", help="Source URL, or env:NAME or file:PATH (a password shows in `ps`) [env: DATABASE_URL]"
    ),
]


def watch(
    database: Database = None,
    period: Annotated[
        str, typer.Option("--period", help="How old a commit may grow before it is stored: one request for each.")
    ] = "2s",
    segment_bytes: Annotated[
        int, typer.Option("--segment-bytes", min=4096, help="Store earlier when so much has come.")
    ] = 16 * 1024 * 1024,
    once: Annotated[bool, typer.Option("--once", help="Store everything up to now, then end.")] = False,
    beat: Annotated[
        str, typer.Option("--beat", help="On an idle database write one small message so often, as a sign of life.")
    ] = "60s",
    max_retained: Annotated[
        int | None,
        typer.Option(
            "--max-retained",
            min=0,
            help="Give the slot up when the server keeps so many bytes for us; 0 = never. "
            "[default: 80 % of max_slot_wal_keep_size, or of 4 GiB where that is not set]",
        ),
    ] = None,
    last_slot: Annotated[
        bool, typer.Option("--last-slot", help="Begin even if no replication slot is left to others then.")
    ] = False,
    event_triggers: Annotated[
        bool | None,
        typer.Option(
            "--event-triggers/--no-event-triggers",
            help="Make event triggers (or take them away): they write changes of definitions into the log, for `find`, "
            "and let a table leave it in the transaction in which it loses its key.",
        ),
    ] = None,
    base_after: Annotated[
        str,
        typer.Option(
            "--base-after",
            help="When tables or definitions changed, back up once so long nothing more did; `never`: leave it to you.",
        ),
    ] = "5s",
    base_options: Annotated[
        str, typer.Option("--base-options", help="Options of `backup` for these, e.g. '--lock-days 30 --gentle'.")
    ] = "",
    transport: Annotated[
        Transport,
        typer.Option(
            "--transport",
            help="`stream`: a replication connection. `sql`: SQL functions, also through a session pooler. `auto`: the "
            "first that works.",
        ),
    ] = Transport.AUTO,
    bundle: Annotated[
        bool | None,
        typer.Option(
            "--bundle/--no-bundle",
            help="Put segments together as they come. Default: where this credential may delete; else `prune` does.",
        ),
    ] = None,
    repository: options.Repository = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Follow the database's changes into the repository, for `restore --at`. SIGTERM stores what is whole and ends."""
    composition = Composition(
        read_settings(
            database=options.not_blank("--database", database),
            repository=repository,
            host_key=host_key,
            insecure_store=insecure_store,
            insecure_database=insecure_database,
        )
    )
    wanted = Options(
        period=durations.seconds(period, "--period", least=0.1) or 2.0,
        segment_bytes=segment_bytes,
        once=once,
        beat=durations.seconds(beat, "--beat", least=1) or 60.0,
        max_retained=max_retained,
        bundle=bundle,
        last_slot=last_slot,
        base_after=0.0 if once or base_after == "never" else durations.seconds(base_after, "--base-after", least=0.1),
        transport=transport.value,
    )
    words = _options_of_backup(base_options)
    if event_triggers is not None:
        operation.event_triggers(composition.source(), wanted=event_triggers)
    stop = Stop()

    def gently(signum: int, frame: FrameType | None) -> None:
        stop.request()

    signal.signal(signal.SIGTERM, gently)
    signal.signal(signal.SIGINT, gently)
    with shown(quiet=quiet) as progress:
        repo = composition.repository(need_host=True)
        taker = Bases(repo, composition.environment(), words) if wanted.base_after else None
        done = operation.watch(composition.source(), repo, wanted, progress, stop, taker)
    if as_json:
        output.print_json(done.as_json())
    elif not quiet:
        told = done.told
        output.out().print(
            f"chain {told.chain} up to {told.position}: {told.segments:,} segments, "
            f"{told.transactions:,} transactions, {human_bytes(told.bytes)} stored",
            markup=False,
        )
    raise typer.Exit(output.exit_code(done.result))


def _options_of_backup(text: str) -> list[str]:
    """As words, understood by `backup` itself. Raises UsageError, also for options that say which database or place."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError("--base-options has a quote that is never closed", detail=str(error)) from error
    if not words:
        return []
    from pgkura.cli.main import build

    backup = typer.main.get_command(build("backup")).commands["backup"]  # type: ignore[attr-defined]
    given = backup.make_context("backup", list(words)).params
    if any(given.get(name) for name in _NOT_FOR_BASES):
        raise UsageError(
            "--base-options cannot name a database, a repository, a key or an output", hint="`watch` says these itself"
        )
    return words


def mark(
    name: Annotated[str, typer.Argument(help="A name for the moment, for `restore --at NAME`.")],
    database: Database = None,
    insecure_database: options.InsecureDatabase = False,
    as_json: options.Json = False,
) -> None:
    """Name this moment of a watched database."""
    settings = read_settings(database=options.not_blank("--database", database), insecure_database=insecure_database)
    position = operation.mark(Composition(settings).source(), name)
    if as_json:
        output.print_json({"result": "ok", "name": name, "position": position})
    else:
        output.out().print(f"marked {name} at {position}", markup=False)


def timeline(
    repository: options.Repository = "",
    identity: options.Identity = "",
    host_key: options.HostKey = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """What can be restored to which moment: bases, how far each leads, holes, marks."""
    settings = read_settings(repository=repository, identity=identity, host_key=host_key, insecure_store=insecure_store)
    told = make_timeline(Composition(settings).repository())
    if as_json:
        output.print_json(told.as_json())
        return
    out = output.out()
    if not told.chains:
        out.print("no change log: `pgkura watch` begins one", markup=False)
    for chain in told.chains:
        if chain.hole is not None:
            until = chain.hole.until or "now: no base yet"
            out.print(f"  ░░ hole since {chain.hole.since} until {until}: {chain.hole.reason}", markup=False)
        _render_chain(chain)
    for database, seconds in told.rpo_seconds.items():
        out.print(f"{database}: everything committed until {human_seconds(seconds)} ago is stored", markup=False)


def _render_chain(chain: ChainLine) -> None:
    out = output.out()
    state = f"ended: {chain.ended}" if chain.ended else "goes on"
    out.print(f"{chain.database}, chain {chain.id}: {chain.segments:,} segments, {state}", style="bold", markup=False)
    for base in chain.stretches:
        way = (
            f"━━▶ {base.until_time} ({base.until_lsn})"
            if base.until_time
            else f"┃ {base.unfit or 'leads to nothing but itself'}"
        )
        why = f", since {base.why}" if base.why else ""
        out.print(f"  ● {base.created} snapshot {base.snapshot}{why} ({base.from_lsn}) {way}", markup=False)
    for window in chain.windows:
        until = window.until_time or "now"
        out.print(f"  ░ {window.since_time} to {until} cannot be restored exactly: {window.reason}", markup=False)
    if not chain.stretches:
        out.print("  no base yet: `pgkura backup` makes one", markup=False)
    _render_tables(chain)
    for name, lsn, when in chain.marks:
        out.print(f"  ▲ {when} mark {name!r} ({lsn})", markup=False)


def _render_tables(chain: ChainLine) -> None:
    out = output.out()
    if chain.watcher_seems_dead:
        out.print(
            f"  ! nothing was stored for {human_seconds(chain.silent)}: is the watcher alive? The server keeps its log "
            f"for slot {chain.slot} (`pgkura unwatch` ends that)",
            markup=False,
        )
    if chain.ended:
        return
    groups: dict[str, list[str]] = {}
    for table in chain.tables:
        if table.logged in ("", "inserts"):
            why = table.why or "inserts alone are logged; updates and deletes are counted"
            groups.setdefault(why, []).append(table.table)
    for why, names in groups.items():
        more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
        out.print(f"  · {', '.join(names[:6])}{more}: {why}", markup=False)


def find(
    table: Annotated[str, typer.Option("--table", help="`schema.name` or `name`; all tables without.")] = "",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="COLUMN=VALUE of a row: its whole history. Repeatable."),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="insert, update, delete, truncate or ddl. Repeatable.")
    ] = None,
    since: Annotated[str, typer.Option("--since", help="Commits from this time on.")] = "",
    until: Annotated[str, typer.Option("--until", help="Commits up to this time.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many transactions at most.")] = 10,
    repository: options.Repository = "",
    identity: options.Identity = "",
    insecure_store: options.InsecureStore = False,
    as_json: options.Json = False,
) -> None:
    """Find a transaction in the change log: the largest ones, or every version of a row; and how to get before it."""
    asked = question_of(table=table, kinds=kind or (), where=where or (), since=since, until=until)
    settings = read_settings(repository=repository, identity=identity, insecure_store=insecure_store)
    found = search_log(Composition(settings).repository(need_identity=True), asked, limit=limit)
    if as_json:
        output.print_json(found.as_json())
        return
    for one in found.as_json()["transactions"]:
        counts = "; ".join(f"{t}: " + ", ".join(f"{n:,} {k}" for k, n in ks.items()) for t, ks in one["tables"].items())
        output.out().print(f"{one['time']}  xid {one['xid']}  {counts}", markup=False)
        for said in one["ddl"]:
            output.out().print(f"    {said['role']}: {' '.join(said['query'].split())[:300]}", markup=False)
        for row in one["rows"]:
            output.out().print(f"    {row['kind']} {row['new'] or row['old']}", markup=False)
        output.out().print(f"    restore --at '{one['restore_before']}'", style="dim", markup=False)
    if not found.found:
        output.out().print("nothing of this kind is in the log", markup=False)
