"""What the figures of the change log share: pgbench as the load, and a watcher beside it."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from benchmarks.bench import Ours
from benchmarks.measure import SETTLE_SECONDS, run
from benchmarks.results import Run, Wrong
from benchmarks.server import Server

CLIENTS = 4
#: What follows a database runs on another machine; here it gets what pgbench and the server leave of the processors.
ASIDE = ("nice", "-n", "19")
#: A key for the one table of pgbench's that has none: it would not be in the log.
KEYED = "ALTER TABLE pgbench_history ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What pgbench did. `latencies` in milliseconds, sorted, from the moment a transaction was due."""

    transactions: int
    tps: float
    seconds: float
    latencies: tuple[float, ...] = ()

    def percentile(self, share: float) -> float:
        """Of the latencies, in milliseconds."""
        return percentile(self.latencies, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values. Raises Wrong where there are none."""
    if not values:
        raise Wrong("nothing was measured")
    return values[min(len(values) - 1, int(len(values) * share))]


def template(server: Server, scale: int) -> str:
    """A database as pgbench makes it, every table with a key."""

    def fill(url: str) -> None:
        run([server.program("pgbench"), "-i", "-q", "-s", str(scale), url])
        server.execute("filling", KEYED)

    return server.made(f"pgbench_{scale}", fill)


def load(
    server: Server,
    database: str,
    *,
    seconds: float,
    rate: float = 0.0,
    script: Path | None = None,
    logs: Path | None = None,
) -> Load:
    """pgbench for so long, at a rate or as fast as it can; `logs`: a folder for the latency of every transaction."""
    argv = [server.program("pgbench"), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(int(seconds))]
    argv += ["-R", f"{rate:.1f}"] if rate else []
    argv += ["-f", str(script)] if script else []
    argv += ["-l", "--log-prefix", str(logs / "log")] if logs else []
    done = run([*argv, server.url(database)])
    count = re.search(r"transactions actually processed: (\d+)", done.out)
    tps = re.search(r"tps = ([\d.]+)", done.out)
    if count is None or tps is None:
        raise Wrong(f"pgbench said {done.out[-1000:]}")
    times: list[float] = []
    for file in logs.glob("log*") if logs else ():
        # client, transaction, microseconds, …; a transaction that was skipped has a word there
        times += [int(line.split()[2]) / 1000 for line in file.read_text().splitlines() if line.split()[2].isdigit()]
    return Load(
        transactions=int(count[1]),
        tps=float(tps[1]),
        seconds=int(count[1]) / float(tps[1]),
        latencies=tuple(sorted(times)),
    )


@contextmanager
def watching(ours: Ours, server: Server, database: str, *options: str) -> Iterator[psutil.Process]:
    """A watcher that has caught up; ended at the end, and its chain taken from the server.

    A process that the caller has killed is all right too.
    """
    environment = ours.desk.environment | {"DATABASE_URL": server.url(database)}
    argv = [*ASIDE, sys.executable, "-m", "pgkura", "watch", "--quiet", *options]
    said = ours.folder.parent / "watch.log"
    with said.open("wb") as err:
        child = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=err, stderr=err)
    try:
        until = time.monotonic() + 60
        while not _has_slot(server, database):
            if child.poll() is not None or time.monotonic() > until:
                raise Wrong(f"no watcher: {said.read_text(errors='replace')[-1000:]}")
            time.sleep(0.1)
        caught_up(server, database)
        yield psutil.Process(child.pid)
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            child.wait(120)
        if child.returncode not in (0, -signal.SIGKILL):
            raise Wrong(f"watch ended with {child.returncode}: {said.read_text(errors='replace')[-1000:]}")
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        forget(server, database)


@contextmanager
def receiving(server: Server, database: str) -> Iterator[psutil.Process]:
    """The floor of following a database: PostgreSQL's own client reads the same log and throws it away."""
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        connection.execute("CREATE PUBLICATION pgkura_floor FOR ALL TABLES")
        connection.execute("SELECT pg_create_logical_replication_slot('pgkura_floor', 'pgoutput')")
    argv = [
        *ASIDE,
        server.program("pg_recvlogical"),
        "-d",
        server.url(database),
        "-S",
        "pgkura_floor",
        "--start",
        "--no-loop",
    ]
    argv += ["-o", "proto_version=1", "-o", "publication_names=pgkura_floor", "-s", "1", "-f", "/dev/null"]
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        caught_up(server, database)
        yield psutil.Process(child.pid)
        if child.poll() is not None:
            raise Wrong(f"pg_recvlogical ended with {child.returncode}")
    finally:
        child.kill()
        child.wait()
        forget(server, database)


def _has_slot(server: Server, database: str) -> bool:
    return server.value("postgres", f"SELECT count(*) FROM pg_replication_slots WHERE database = '{database}'") == 1


def caught_up(server: Server, database: str, seconds: float = 120) -> None:
    """Wait until the server has heard that everything of now is stored."""
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = on")
        row = connection.execute("SELECT pg_logical_emit_message(true, 'bench', '')::text").fetchone()
        assert row is not None
        until = time.monotonic() + seconds
        ask = "SELECT bool_and(confirmed_flush_lsn >= %s::pg_lsn) FROM pg_replication_slots WHERE database = %s"
        while connection.execute(ask, (row[0], database)).fetchone() != (True,):
            if time.monotonic() > until:
                raise Wrong("the watcher does not catch up")
            time.sleep(0.05)


def forget(server: Server, database: str) -> None:
    """Slots keep a database from being dropped."""
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        for _ in range(100):
            with suppress(psycopg.errors.ObjectInUse):
                connection.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s",
                    (database,),
                )
                break
            time.sleep(0.1)
        names = connection.execute("SELECT pubname FROM pg_publication WHERE pubname ~ '^pgkura_'").fetchall()
        for (name,) in names:
            connection.execute(psycopg.sql.SQL("DROP PUBLICATION {}").format(psycopg.sql.Identifier(str(name))))


def measured(
    contestant: str,
    number: int,
    server: Server,
    database: str,
    watcher: psutil.Process | None,
    *,
    seconds: float,
    rate: float = 0.0,
    logs: Path | None = None,
) -> Run:
    """A load, and what it cost: the server's processes, and the watcher's apart."""
    sender, looks = _processes(server)
    served, spent = server.cpu(), _cpu(watcher)
    sent, looked = sum(map(_cpu, sender)), sum(map(_cpu, looks))
    done = load(server, database, seconds=seconds, rate=rate, logs=logs)
    time.sleep(SETTLE_SECONDS)
    if watcher is not None:
        caught_up(server, database)  # the last seconds' log is read and paid for, too
    more = {
        "tps": done.tps,
        "transactions": float(done.transactions),
        "sender_cpu": sum(map(_cpu, sender)) - sent,
        "looks_cpu": sum(map(_cpu, looks)) - looked,
    }
    if done.latencies:
        more |= {"p50_ms": done.percentile(0.5), "p99_ms": done.percentile(0.99)}
    return Run(
        contestant=contestant,
        round=number,
        wall=done.seconds,
        client_cpu=_cpu(watcher) - spent,
        server_cpu=server.cpu() - served,
        more=more,
    )


def _processes(server: Server) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The server's processes that work for a watcher: that which sends, and those that look or read by SQL."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pid, backend_type = 'walsender' FROM pg_stat_activity "
            "WHERE application_name ~ '^(pgkura|pg_recvlogical)'"
        ).fetchall()
    found = [(psutil.Process(pid), sends) for pid, sends in rows]
    return [p for p, sends in found if sends], [p for p, sends in found if not sends]


def _cpu(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
