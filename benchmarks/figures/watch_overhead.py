"""What a watcher costs its source, at half of what the server can and at all of it; what a dead one leaves there."""

import shutil
from functools import partial

from benchmarks.bench import Bench
from benchmarks.changes import forget, load, measured, receiving, template, watching
from benchmarks.measure import interleaved
from benchmarks.results import Figure, Run, at_most, compared

HALF, HALF_WATCHED = "half the rate, alone", "half the rate, watched"
FULL, FULL_WATCHED = "as fast as it can, alone", "as fast as it can, watched"
POLLED = "half the rate, watched by SQL functions"
FLOOR = "half the rate, pg_recvlogical to nowhere"
DEAD = "half the rate, the watcher killed"
_DATABASE = "watched"


def figure(bench: Bench) -> Figure:
    """Latency, CPU and throughput, with and without."""
    seconds = max(2.0, 6.0 * bench.scale)
    filled = template(bench.server, bench.pgbench_scale)
    with bench.database(_DATABASE, filled):
        load(bench.server, _DATABASE, seconds=seconds)  # every page and every plan has been used once
        most = load(bench.server, _DATABASE, seconds=seconds).tps
        rate = most / 2
        bench.note(f"{most:.0f} transactions a second at most; the rate is {rate:.0f}")
        contestants = {
            HALF: partial(_run, bench, HALF, seconds, rate, None),
            HALF_WATCHED: partial(_run, bench, HALF_WATCHED, seconds, rate, ("--transport", "stream")),
            POLLED: partial(_run, bench, POLLED, seconds, rate, ("--transport", "sql")),
            FLOOR: partial(_floor, bench, seconds, rate),
            FULL: partial(_run, bench, FULL, seconds, 0.0, None),
            FULL_WATCHED: partial(_run, bench, FULL_WATCHED, seconds, 0.0, ("--transport", "stream")),
        }
        try:
            runs = interleaved(contestants, bench.rounds, bench.note)
            runs.append(_dead(bench, seconds, rate))
        finally:
            forget(bench.server, _DATABASE)
        facts = bench.server.facts(_DATABASE)
    return Figure(
        name="watch_overhead",
        title="A watcher beside pgbench",
        data=facts,
        runs=runs,
        verdicts=(
            compared(
                "p99 latency at half the rate",
                runs,
                HALF_WATCHED,
                HALF,
                lambda r: r.more["p99_ms"],
                goal=1.1,
                unit="ms",
            ),
            compared("p50 latency at half the rate", runs, HALF_WATCHED, HALF, lambda r: r.more["p50_ms"], unit="ms"),
            compared(
                "the server's CPU for one transaction, walsender and all",
                runs,
                HALF_WATCHED,
                HALF,
                _server_micros,
                goal=1.08,
                unit="µs",
            ),
            at_most(
                "of it the walsender's", runs, HALF_WATCHED, partial(_micros_of, "sender_cpu"), goal=None, unit="µs"
            ),
            at_most(
                "of it the watcher's looks", runs, HALF_WATCHED, partial(_micros_of, "looks_cpu"), goal=None, unit="µs"
            ),
            compared("the same, by SQL functions", runs, POLLED, HALF, _server_micros, unit="µs"),
            at_most("of it reading and looks", runs, POLLED, partial(_micros_of, "looks_cpu"), goal=None, unit="µs"),
            compared("p99 latency, by SQL functions", runs, POLLED, HALF, lambda r: r.more["p99_ms"], unit="ms"),
            compared("floor: the server's CPU, pg_recvlogical beside it", runs, FLOOR, HALF, _server_micros, unit="µs"),
            compared("floor: p99 latency", runs, FLOOR, HALF, lambda r: r.more["p99_ms"], unit="ms"),
            compared("wall of one transaction at saturation", runs, FULL_WATCHED, FULL, _wall_micros, unit="µs"),
            compared("the server's CPU of one at saturation", runs, FULL_WATCHED, FULL, _server_micros, unit="µs"),
            at_most(
                "the watcher's own CPU for one transaction", runs, FULL_WATCHED, _watcher_micros, goal=None, unit="µs"
            ),
            at_most("kept for a dead watcher", runs, DEAD, lambda r: r.bytes, goal=None, unit="bytes"),
        ),
        notes=(
            f"pgbench TPC-B, scale {bench.pgbench_scale}, 4 clients, prepared",
            f"half the rate is {rate:.0f} transactions a second",
            "CPU is counted until everything that pgbench committed is stored",
            "floor: the same publication read by PostgreSQL's own client, which stores nothing",
            "latency counts from when a transaction was due; CPU s client is the watcher's, in no other number",
            "watcher and pg_recvlogical run at the lowest priority (nice 19), as if on another machine",
            "at saturation pgbench, server and watcher share the machine's cores: its CPU is taken from theirs",
            f"the killed watcher's run made {runs[-1].more['transactions']:,.0f} transactions and "
            f"{runs[-1].more['written'] / 1e6:,.1f} MB of log",
        ),
    )


def _server_micros(run: Run) -> float:
    return run.server_cpu / run.more["transactions"] * 1e6


def _micros_of(what: str, run: Run) -> float:
    return run.more[what] / run.more["transactions"] * 1e6


def _watcher_micros(run: Run) -> float:
    return run.client_cpu / run.more["transactions"] * 1e6


def _wall_micros(run: Run) -> float:
    return 1e6 / run.more["tps"]


def _run(bench: Bench, name: str, seconds: float, rate: float, options: tuple[str, ...] | None, number: int) -> Run:
    logs = bench.fresh("watch-logs")
    bench.server.execute(_DATABASE, "VACUUM", "CHECKPOINT")
    if options is None:
        made = measured(name, number, bench.server, _DATABASE, None, seconds=seconds, rate=rate, logs=logs)
    else:
        ours = bench.ours("watch-ours")
        with watching(ours, bench.server, _DATABASE, *options) as watcher:
            made = measured(name, number, bench.server, _DATABASE, watcher, seconds=seconds, rate=rate, logs=logs)
    shutil.rmtree(logs)
    return made


def _floor(bench: Bench, seconds: float, rate: float, number: int) -> Run:
    logs = bench.fresh("watch-logs")
    bench.server.execute(_DATABASE, "VACUUM", "CHECKPOINT")
    with receiving(bench.server, _DATABASE) as client:
        made = measured(FLOOR, number, bench.server, _DATABASE, client, seconds=seconds, rate=rate, logs=logs)
    shutil.rmtree(logs)
    return made


def _dead(bench: Bench, seconds: float, rate: float) -> Run:
    """What the server keeps for a watcher that nobody starts again."""
    position = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
    kept = (
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots "
        f"WHERE database = '{_DATABASE}'"
    )
    with watching(bench.ours("watch-ours"), bench.server, _DATABASE) as watcher:
        watcher.kill()
        before = _number(bench, position)
        done = load(bench.server, _DATABASE, seconds=seconds, rate=rate)
        written = _number(bench, position) - before
        retained = _number(bench, kept)
    more = {"transactions": float(done.transactions), "tps": done.tps, "written": float(written)}
    return Run(contestant=DEAD, round=1, wall=done.seconds, bytes=retained, more=more)


def _number(bench: Bench, sql: str) -> int:
    return int(str(bench.server.value(_DATABASE, sql)))
