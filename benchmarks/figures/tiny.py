"""Ten thousand tables of ten rows."""

import shutil
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.measure import interleaved, run, size
from benchmarks.results import Figure, Run, Wrong, compared
from tests.support.cli import Done

OURS = "pgkura backup (sealed)"
#: What every logical backup of definitions pays that asks pg_dump for them, as we do.
DEFINITIONS = peers.Dump(name="floor: pg_dump -Fc -s, the definitions alone", options=("-Fc", "-s"))
TABLES = 10_000
#: The least power of two at which pg_dump itself, and our locks beside it, find room with 100 connections.
ENOUGH = {"max_connections": "100", "max_locks_per_transaction": "256"}
DEFAULT = {"max_connections": "100"}


def figure(bench: Bench) -> Figure:
    """First what a server with default settings says, then both with room for their locks."""
    count = max(20, int(TABLES * min(1.0, bench.scale)))
    try:
        bench.server.stop()
        bench.server.start(ENOUGH)
        database = bench.server.made(f"tiny_{count}", lambda url: _fill(bench, count))
        bench.server.stop()
        bench.server.start(DEFAULT)
        notes = _refusals(bench, database)
        bench.server.stop()
        bench.server.start(ENOUGH)
        bench.server.warm(database)
        contestants = {OURS: partial(_ours, bench, database, count)}
        dumps = (peers.GZIP, peers.GZIP_1, DEFINITIONS)
        contestants |= {one.name: partial(_dump, bench, database, count, one) for one in dumps}
        runs = interleaved(contestants, bench.rounds, bench.note, again=bench.again)
        facts = bench.server.facts(database)
    finally:
        bench.server.stop()
        bench.server.start()
    return Figure(
        name="tiny",
        title=f"{count:,} tables of ten rows",
        data=facts,
        runs=runs,
        verdicts=(
            compared("wall", runs, OURS, peers.GZIP.name, lambda r: r.wall, goal=1.0),
            compared("wall, against -Z1", runs, OURS, peers.GZIP_1.name, lambda r: r.wall),
            compared("CPU of client and server", runs, OURS, peers.GZIP.name, lambda r: r.cpu),
            compared("floor: definitions alone: wall", runs, DEFINITIONS.name, peers.GZIP.name, lambda r: r.wall),
            compared("floor: definitions alone: CPU", runs, DEFINITIONS.name, peers.GZIP.name, lambda r: r.cpu),
            compared("bytes", runs, OURS, peers.GZIP.name, lambda r: r.bytes, unit="bytes"),
        ),
        checked=(f"our last snapshot was compared equal with the database; every dump names {count} tables",),
        notes=(*notes, f"measured with {ENOUGH}, ours with --lock-share 1"),
    )


def _fill(bench: Bench, count: int) -> None:
    for first in range(0, count, 250):
        bench.server.execute(
            "filling",
            "CREATE SCHEMA IF NOT EXISTS tiny",
            f"""DO $$ BEGIN FOR n IN {first}..{min(first + 250, count) - 1} LOOP
                EXECUTE format('CREATE TABLE tiny.%I (id integer PRIMARY KEY, name text NOT NULL, at timestamptz)',
                    'tenant_' || n);
                EXECUTE format('INSERT INTO tiny.%I SELECT g, md5(%L || g), timestamptz ''2026-01-01 00:00+00'' + '
                    'g * interval ''1 hour'' FROM generate_series(1, 10) g', 'tenant_' || n, n || ' ');
            END LOOP; END $$""",
        )


def _refusals(bench: Bench, database: str) -> tuple[str, str]:
    """What each says on a server with default settings."""
    url = bench.server.url(database)
    to = bench.folder / "tiny-dump"
    shutil.rmtree(to, ignore_errors=True)
    argv = [peers.tool("pg_dump"), "-Fd", "-j2", "-f", str(to), url]
    theirs = run(["bash", "-c", '"$@" 2>&1 || echo "exit $?"', "sh", *argv])
    shutil.rmtree(to, ignore_errors=True)
    desk = bench.ours("tiny-default").desk
    ours: Done = desk.run("backup", "--json", "--quiet", env={"DATABASE_URL": url}, timeout=3600)
    return (
        f"with default settings pg_dump -j2 says: {_short(theirs.out) or 'nothing, it succeeds'}",
        f"with default settings we end with exit code {ours.code}: {_short(ours.out + ours.err)}",
    )


def _short(text: str) -> str:
    return " ".join(text.split())[:600]


def _ours(bench: Bench, database: str, count: int, number: int) -> Run:
    repository = bench.ours("tiny-ours")
    told = repository.backup(bench.server.url(database), "--lock-share", "1", full=True)
    if told.json["tables"] != count or told.json["rows"] != 10 * count:
        raise Wrong(f"{told.json['tables']} tables and {told.json['rows']} rows in the backup")
    if number == bench.rounds:
        repository.prove(bench.server.url(database))
    return told.cost.run(OURS, number, size=repository.size, received=told.json["bytes_read"])


def _dump(bench: Bench, database: str, count: int, one: peers.Dump, number: int) -> Run:
    to = bench.folder / "tiny-dump"
    _away(to)
    cost = one.run(bench.server.url(database), to, bench.server.cpu)
    held = one.entries(to, "TABLE" if one is DEFINITIONS else "TABLE DATA")
    if held != count:
        raise Wrong(f"{one.name} holds {held} tables")
    made = cost.run(one.name, number, size=size(to))
    _away(to)
    return made


def _away(made: Path) -> None:
    shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
