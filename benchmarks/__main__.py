"""Us and the peers side by side on the same data, interleaved; prints medians and ratios.

    make bench                        the default: about 3.2 GB of COPY text, 3 rounds
    python -m benchmarks --scale 0.1 --rounds 1

Needs PostgreSQL server programs (see tests/support/servers.py) and their clients. Run it on a quiet machine.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.data import generate
from tests.support.cli import Desk
from tests.support.cluster import start_cluster
from tests.support.psql import client
from tests.support.servers import PASSWORD, binaries

VERSION = 15
T = TypeVar("T")
SETTINGS = {
    "fsync": "on",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "wal_level": "logical",
    "max_connections": "60",
}


@dataclass(slots=True)
class Measured:
    """Runs of one contestant: wall seconds, client CPU seconds, bytes written, peak memory in bytes."""

    name: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    bytes: int = 0
    peak: int = 0


def main() -> None:
    """Fill, run the rounds, print."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    home = binaries(VERSION)
    if home is None:
        sys.exit(f"no PostgreSQL {VERSION} server here")
    folder = Path(tempfile.mkdtemp(prefix="kura-bench-"))
    cluster = start_cluster(home, superuser="postgres", password=PASSWORD, settings=SETTINGS)
    try:
        base = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{cluster.port}"
        psql(f"{base}/postgres", "CREATE DATABASE source TEMPLATE template0")
        print(f"filling at scale {options.scale} …", flush=True)
        generate(f"{base}/source", scale=options.scale, note=print)
        psql(f"{base}/source", "VACUUM ANALYZE")
        psql(f"{base}/source", "CHECKPOINT")
        race(base, folder, options.rounds)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def race(base: str, folder: Path, rounds: int) -> None:
    """Backup and restore of each contestant, interleaved."""
    desk = Desk(folder / "desk")
    ours_out, theirs_out = Measured("pgkura backup (sealed)"), Measured("pg_dump -Fd -j2 -Z1")
    ours_in, theirs_in = Measured("pgkura restore (without proof)"), Measured("pg_restore -j2")
    proof = Measured("pgkura proof")
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        shutil.rmtree(folder / "desk", ignore_errors=True)
        shutil.rmtree(folder / "dump", ignore_errors=True)
        desk = Desk(folder / "desk")
        desk.run("init").expect()
        told = timed(
            ours_out, partial(desk.run, "backup", "--json", env={"DATABASE_URL": f"{base}/source"}, timeout=3600)
        )
        answer = told.expect().json
        ours_out.bytes, ours_out.peak = size(desk.repository), max(ours_out.peak, answer["peak_memory_bytes"])
        dump = [str(client("pg_dump", VERSION)), "-Fd", "-j2", "-Z1", "-f", str(folder / "dump"), f"{base}/source"]
        timed(theirs_out, partial(subprocess.run, dump, check=True))
        theirs_out.bytes = size(folder / "dump")

        for name in ("ours", "theirs"):
            psql(f"{base}/postgres", f"DROP DATABASE IF EXISTS {name}")
            psql(f"{base}/postgres", f"CREATE DATABASE {name} TEMPLATE template0")
        psql(f"{base}/postgres", "CHECKPOINT")
        restored = desk.run("restore", "latest", "--to", f"{base}/ours", "--json", timeout=3600).expect().json
        if not restored["proof"]["equal"]:
            sys.exit("the restored database is not equal: no time of it means anything")
        ours_in.wall.append(restored["restore_seconds"])
        proof.wall.append(restored["proof_seconds"])
        psql(f"{base}/postgres", "CHECKPOINT")
        load = [str(client("pg_restore", VERSION)), "-j2", "-d", f"{base}/theirs", str(folder / "dump")]
        timed(theirs_in, partial(subprocess.run, load, check=True))
    show(ours_out, theirs_out)
    show(ours_in, theirs_in)
    print(f"proof: {statistics.median(proof.wall):.1f} s, {ratio(proof, ours_in):.2f} of the restore")
    print(f"peak memory of all our processes in the backup: {ours_out.peak / 1e6:.0f} MB")


def timed(measured: Measured, act: Callable[[], T]) -> T:
    """Run it and book wall and the CPU of its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    result = act()
    measured.wall.append(time.monotonic() - begun)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return result


def psql(url: str, sql: str) -> None:
    """One statement."""
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run([str(client("psql", VERSION)), "-Xqc", sql, url], check=True, env=environment)


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def ratio(a: Measured, b: Measured) -> float:
    """Of the median walls."""
    return statistics.median(a.wall) / statistics.median(b.wall)


def show(ours: Measured, theirs: Measured) -> None:
    """Two lines and their ratio."""
    for one in (ours, theirs):
        cpu = f"{statistics.median(one.cpu):7.1f} s client CPU" if one.cpu else " " * 20
        written = f"{one.bytes / 1e6:8.0f} MB" if one.bytes else ""
        runs = " ".join(f"{w:.1f}" for w in one.wall)
        print(f"{one.name:<34}{statistics.median(one.wall):7.1f} s wall {cpu} {written}   ({runs})")
    print(f"{'ratio':<34}{ratio(ours, theirs):7.2f}")


if __name__ == "__main__":
    main()
