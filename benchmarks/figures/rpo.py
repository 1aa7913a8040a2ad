"""How old a commit is when it is stored: under load, in a bucket that is some way off."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from urllib.parse import urlsplit

import psycopg
from benchmarks.bench import Bench, Ours
from benchmarks.changes import forget, load, percentile, template, watching
from benchmarks.distance import relay
from benchmarks.measure import interleaved
from benchmarks.results import Figure, Run, Wrong, at_most
from tests.support.stores import S3Server, s3

RATE = 200.0
#: There and back, for each of a request's packets.
MILLISECONDS = 60.0
STREAMED, POLLED = "streamed", "by SQL functions"
_DATABASE = "rpo"
_EVERY = 0.05


def figure(bench: Bench) -> Figure:
    """p50 and p99 of what a prober waits, from its commit until the server has heard that it is stored."""
    seconds = max(3.0, 12.0 * bench.scale)
    store = s3("moto")
    port = urlsplit(store.endpoint).port
    if port is None:
        raise Wrong(f"a store without a port: {store.endpoint}")
    with bench.database(_DATABASE, template(bench.server, bench.pgbench_scale)), relay(port, MILLISECONDS / 2) as near:
        contestants = {
            STREAMED: partial(_run, bench, STREAMED, seconds, store, near.port, "stream"),
            POLLED: partial(_run, bench, POLLED, seconds, store, near.port, "sql"),
        }
        try:
            runs = interleaved(contestants, bench.rounds, bench.note)
        finally:
            forget(bench.server, _DATABASE)
    return Figure(
        name="rpo",
        title="From a commit to the bucket",
        data={"transactions a second": int(RATE), "milliseconds to the store and back": int(MILLISECONDS)},
        runs=runs,
        verdicts=(
            at_most("p99", runs, STREAMED, lambda r: r.more["p99"], goal=5.0, unit="s"),
            at_most("p50", runs, STREAMED, lambda r: r.more["p50"], goal=None, unit="s"),
            at_most("p99, by SQL functions", runs, POLLED, lambda r: r.more["p99"], goal=5.0, unit="s"),
            at_most("p50, by SQL functions", runs, POLLED, lambda r: r.more["p50"], goal=None, unit="s"),
        ),
        notes=(
            "the worst of all rounds; watch --period 2s, as it comes",
            "a commit every 50 ms is probed; it counts as stored once the slot's confirmed position is behind it, "
            "a little later",
            f"the bucket is moto's, behind a relay that holds every byte back for {MILLISECONDS / 2:g} ms each way",
        ),
    )


def _run(bench: Bench, name: str, seconds: float, store: S3Server, near: int, transport: str, number: int) -> Run:
    ours = Ours(bench.server.cpu, bench.fresh("rpo-ours"))
    ours.desk.environment.update(store.environment)
    ours.desk.environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{near}"
    ours.desk.environment["PGKURA_REPOSITORY"] = store.new_prefix()
    ours.run("init", local=True)
    ours.folder.mkdir(exist_ok=True)
    with watching(ours, bench.server, _DATABASE, "--transport", transport), probing(bench) as waits:
        done = load(bench.server, _DATABASE, seconds=seconds, rate=RATE)
    if len(waits) < seconds:
        raise Wrong(f"{len(waits)} commits were probed")
    waits.sort()
    more = {"p50": percentile(waits, 0.5), "p99": percentile(waits, 0.99), "most": waits[-1], "probes": len(waits)}
    return Run(contestant=name, round=number, wall=done.seconds, more=more | {"tps": done.tps})


@contextmanager
def probing(bench: Bench) -> Iterator[list[float]]:
    """How long each probed commit waited. Those that wait at the end are waited for."""
    waits: list[float] = []
    errors: list[BaseException] = []
    ended = Event()

    def probe() -> None:
        try:
            _probe(bench, waits, ended)
        except BaseException as error:  # noqa: BLE001 - raised where the load ends
            errors.append(error)

    thread = Thread(target=probe, daemon=True)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join(60)
    if errors:
        raise Wrong(f"the prober ended with {errors[0]!r}")


def _probe(bench: Bench, waits: list[float], ended: Event) -> None:
    emit = "SELECT pg_logical_emit_message(true, 'probe', '')"
    # Not before its own commit: another one may lie in between, so a wait is told a hair too long at most.
    behind = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint"
    heard = (
        "SELECT pg_wal_lsn_diff(confirmed_flush_lsn, '0/0')::bigint FROM pg_replication_slots "
        f"WHERE database = '{_DATABASE}'"
    )
    waiting: list[tuple[int, float]] = []
    with psycopg.connect(bench.server.url(_DATABASE), autocommit=True) as connection:

        def number(sql: str) -> int:
            row = connection.execute(sql.encode()).fetchone()
            return int(row[0]) if row else 0

        last = 0.0
        while not ended.is_set() or waiting:
            connection.execute(emit)
            at = time.monotonic()
            if not ended.is_set():
                waiting.append((number(behind), at))
            last = last or (at + 30 if ended.is_set() else 0.0)
            if last and at > last:
                raise Wrong(f"{len(waiting)} commits were never stored")
            time.sleep(_EVERY)
            position, now = number(heard), time.monotonic()
            waits += [now - since for place, since in waiting if place <= position]
            waiting = [one for one in waiting if one[0] > position]
