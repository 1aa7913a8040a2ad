"""How fast changes are played again: next to making them, to a statement for each, to the server's own recovery."""

import re
import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psycopg
from benchmarks import row_by_row
from benchmarks.bench import Bench, Ours
from benchmarks.changes import Load, forget, load, template
from benchmarks.measure import SETTLE_SECONDS, interleaved
from benchmarks.results import Figure, Run, Wrong, compared
from benchmarks.server import Server, programs

#: Of a transaction of pgbench's; every table has a key.
CHANGES = 4
HOT_ROWS, HOT_CHANGES = 1000, 5
OURS, HOT = "restore --at: replay", "restore --at: replay of a hot table"
MADE, HOT_MADE = "pgbench makes them", "pgbench makes those of a hot table"
ROWS = "a statement for each change (psycopg pipeline)"
NATIVE = "the server's own recovery"
_ROWS_AT_MOST = 40_000
_SETTINGS = {"shared_buffers": "256MB"}
_DONE = re.compile(r"redo done at .* user: ([\d.]+) s, system: ([\d.]+) s, elapsed: ([\d.]+) s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A database, its log from a base on, and what was made meanwhile."""

    database: str
    ours: Ours
    base: str
    load: Load
    changes: int
    state: tuple[tuple[object, ...], ...]

    def made(self, contestant: str) -> Run:
        """The making of it."""
        return Run(contestant=contestant, round=1, wall=self.load.seconds, more={"changes": float(self.changes)})


def figure(bench: Bench) -> Figure:
    """On a server of its own, whose whole cluster can be copied."""
    seconds = max(3.0, 12.0 * bench.scale)
    home = programs()
    if home is None:
        raise Wrong("no server")
    server = Server(home, bench.fresh("replay-server"))
    server.start(_SETTINGS)
    try:
        return _measured(bench, server, seconds)
    finally:
        server.stop()
        for name in ("replay-server", "replay-base", "replay-native"):
            shutil.rmtree(bench.folder / name, ignore_errors=True)


def _measured(bench: Bench, server: Server, seconds: float) -> Figure:
    server.create("plain", template(server, bench.pgbench_scale))
    begun = _begin(bench, server, "plain", "replay-ours")
    server.stop()
    base = server.cold_copy(bench.fresh("replay-base"))
    server.start(_SETTINGS)
    plain = _story(server, "plain", *begun, seconds, CHANGES)
    archive, until = _archive(bench, server)
    hot = _hot(bench, server, seconds)
    for story in (plain, hot):
        story.ours.run("watch", "--once", env={"DATABASE_URL": server.url(story.database)})
        forget(server, story.database)
    contestants = {
        OURS: partial(_ours, server, plain, OURS),
        HOT: partial(_ours, server, hot, HOT),
        ROWS: partial(_rows, server, plain),
        NATIVE: partial(_native, bench, base, archive, until, plain),
    }
    runs = [plain.made(MADE), hot.made(HOT_MADE), *interleaved(contestants, bench.rounds, bench.note)]
    rates = {name: _rate([r for r in runs if r.contestant == name]) for name in (MADE, HOT_MADE, *contestants)}
    return Figure(
        name="replay",
        title="Playing changes again",
        data={"changes": plain.changes, "changes of the hot table": hot.changes, "seconds they took": int(seconds)},
        runs=runs,
        verdicts=(
            compared("wall of a change, next to making it", runs, OURS, MADE, _micros, goal=0.1, unit="µs"),
            compared("the same, hot table", runs, HOT, HOT_MADE, _micros, goal=0.1, unit="µs"),
            compared("next to a statement for each", runs, OURS, ROWS, _micros, unit="µs"),
            compared("next to the server's own recovery", runs, OURS, NATIVE, _micros, unit="µs"),
        ),
        checked=(
            "every restored database, and the recovered one, had the rows of the source in all tables",
            "every change met its row",
        ),
        notes=(
            "changes a second: " + ", ".join(f"{name}: {rate:,.0f}" for name, rate in rates.items()),
            f"made by {MADE.split()[0]} -c 4, no watcher beside it; each transaction of the hot table updates "
            f"{HOT_CHANGES} of {HOT_ROWS:,} rows",
            "our wall is the replay's alone, not the base's; a statement for each: the first "
            f"{_ROWS_AT_MOST:,} changes, decoding and all, synchronous_commit off; recovery: as the server tells it",
        ),
    )


def _micros(run: Run) -> float:
    return run.wall / run.more["changes"] * 1e6


def _rate(runs: list[Run]) -> float:
    return sum(r.more["changes"] for r in runs) / sum(r.wall for r in runs)


# -- making


def _begin(bench: Bench, server: Server, database: str, name: str) -> tuple[Ours, str]:
    """A chain, and a base of it."""
    ours = Ours(server.cpu, bench.fresh(name))
    ours.run("init")
    ours.run("watch", "--once", env={"DATABASE_URL": server.url(database)})
    return ours, str(ours.backup(server.url(database)).json["snapshot"])


def _story(
    server: Server, database: str, ours: Ours, base: str, seconds: float, each: int, script: Path | None = None
) -> Story:
    server.execute(database, "CHECKPOINT")
    done = load(server, database, seconds=seconds, script=script)
    state = _state(server, database)
    return Story(database=database, ours=ours, base=base, load=done, changes=done.transactions * each, state=state)


def _hot(bench: Bench, server: Server, seconds: float) -> Story:
    server.create("hot")
    server.execute(
        "hot",
        "CREATE TABLE hot (id int PRIMARY KEY, n bigint NOT NULL, note text NOT NULL)",
        f"INSERT INTO hot SELECT g, 0, repeat('x', 100) FROM generate_series(1, {HOT_ROWS}) g",
    )
    ours, base = _begin(bench, server, "hot", "replay-hot")
    script = bench.fresh("replay-script") / "hot.sql"
    # In the order of their keys: four clients, no deadlock.
    lines = [f"\\set first random(1, {HOT_ROWS - HOT_CHANGES + 1})", "BEGIN;"]
    lines += [f"UPDATE hot SET n = n + 1 WHERE id = :first + {n};" for n in range(HOT_CHANGES)]
    script.write_text("\n".join([*lines, "COMMIT;", ""]))
    return _story(server, "hot", ours, base, seconds, HOT_CHANGES, script)


def _archive(bench: Bench, server: Server) -> tuple[Path, str]:
    """All of the server's log so far, and its last position."""
    until = str(server.value("postgres", "SELECT pg_current_wal_flush_lsn()"))
    server.execute("postgres", "SELECT pg_switch_wal()")
    folder = bench.fresh("replay-archive")
    for file in (server.data / "pg_wal").iterdir():
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder, until


def _state(server: Server, database: str) -> tuple[tuple[object, ...], ...]:
    """Of every table: rows, and a sum of hashes over all of them."""
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        tables = connection.execute(
            "SELECT oid::regclass::text FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
        ask = "SELECT '{0}', count(*), sum(hashtextextended(t::text, 0)) FROM {0} t"
        return tuple(row for (name,) in tables for row in connection.execute(ask.format(name).encode()).fetchall())


def _same(server: Server, database: str, story: Story, what: str) -> None:
    found = _state(server, database)
    if found != story.state:
        raise Wrong(f"{what}: {found}, the source had {story.state}")


# -- playing again


def _ours(server: Server, story: Story, name: str, number: int) -> Run:
    server.create("back")
    try:
        server.execute("postgres", "CHECKPOINT")
        told = story.ours.run("restore", "--at", "latest", "--to", server.url("back"), "--yes")
        _same(server, "back", story, name)
    finally:
        server.drop("back")
    at = told.json["at"]
    if at["changes"] != story.changes or not at["every_change_met_its_row"]:
        raise Wrong(f"{story.changes} changes were made: {at}")
    more = {"changes": float(at["changes"]), "rows_written": float(at["rows_written"]), "whole": told.cost.wall}
    return Run(
        contestant=name,
        round=number,
        wall=at["milliseconds"] / 1000,
        client_cpu=told.cost.client_cpu,
        server_cpu=told.cost.server_cpu,
        peak_memory=told.cost.peak_memory,
        more=more,
    )


def _rows(server: Server, story: Story, number: int) -> Run:
    server.create("back")
    try:
        story.ours.restore(server.url("back"), story.base)
        server.execute("postgres", "CHECKPOINT")
        served = server.cpu()
        run = row_by_row.apply(ROWS, number, story.ours, server.url("back"), most=_ROWS_AT_MOST)
        time.sleep(SETTLE_SECONDS)
        run = replace(run, server_cpu=server.cpu() - served)
        if run.more["changes"] == story.changes:
            _same(server, "back", story, ROWS)
    finally:
        server.drop("back")
    return run


def _native(bench: Bench, base: Server, archive: Path, until: str, story: Story, number: int) -> Run:
    """From a copy of the stopped cluster, as it was at the base."""
    copy = base.cold_copy(bench.fresh("replay-native"))
    (copy.data / "server.log").unlink(missing_ok=True)
    signal = copy.data / "recovery.signal"
    signal.touch()
    about = copy.data.stat()
    shutil.chown(signal, about.st_uid, about.st_gid)
    copy.start(
        _SETTINGS
        | {
            "restore_command": f"'cp {archive}/%f %p'",
            "recovery_target_lsn": f"'{until}'",
            "recovery_target_inclusive": "on",
            "recovery_target_action": "promote",
        }
    )
    try:
        while copy.value("postgres", "SELECT pg_is_in_recovery()"):
            time.sleep(0.1)
        _same(copy, "plain", story, NATIVE)
        told = _DONE.search(copy.said())
        if told is None:
            raise Wrong(f"no recovery: {copy.said()[-1000:]}")
    finally:
        copy.stop()
    user, system, elapsed = map(float, told.groups())
    return Run(
        contestant=NATIVE, round=number, wall=elapsed, server_cpu=user + system, more={"changes": float(story.changes)}
    )
