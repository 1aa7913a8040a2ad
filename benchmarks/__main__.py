"""Us and the peers side by side on the same data, interleaved; prints medians and ratios.

    make bench                        the default: about 3.2 GB of COPY text, 3 rounds
    python -m benchmarks --scale 0.1 --rounds 1

Needs PostgreSQL server programs (see tests/support/servers.py) and their clients. Run it on a quiet machine.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import psutil
from benchmarks.data import generate
from tests.support.cli import Desk
from tests.support.cluster import Cluster, start_cluster
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
    """Runs of one contestant: wall seconds, CPU seconds of client and server, bytes written, peak memory in bytes."""

    name: str
    wall: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
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
        Race(base, folder, cluster).run(options.rounds)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Race:
    """Backup and restore of each contestant, interleaved."""

    def __init__(self, base: str, folder: Path, cluster: Cluster) -> None:
        self._base = base
        self._folder = folder
        self._postmaster = psutil.Process(int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0]))
        self._ours_out, self._theirs_out = Measured("pgkura backup (sealed)"), Measured("pg_dump -Fd -j2 -Z1")
        self._ours_in, self._theirs_in = Measured("pgkura restore (with proof)"), Measured("pg_restore -j2")
        self._load, self._proof = Measured("  of it the restore"), Measured("  of it the proof")

    def run(self, rounds: int) -> None:
        """All rounds, then the table."""
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            desk = self._back_up()
            self._restore(desk)
        show(self._ours_out, self._theirs_out)
        show(self._ours_in, self._theirs_in)
        show(self._load, self._theirs_in)
        print(f"proof: {median(self._proof.wall):.1f} s, {ratio(self._proof, self._load):.2f} of the restore")
        peaks = " and ".join(f"{one.peak / 1e6:.0f} MB" for one in (self._ours_out, self._ours_in))
        print(f"peak memory of all our processes in backup and restore: {peaks}")

    def _back_up(self) -> Desk:
        for name in ("desk", "dump"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        desk = Desk(self._folder / "desk")
        desk.run("init").expect()
        source = f"{self._base}/source"
        ours = partial(desk.run, "backup", "--json", env={"DATABASE_URL": source}, timeout=3600)
        answer = self._timed(self._ours_out, ours).expect().json
        self._ours_out.bytes = size(desk.repository)
        self._ours_out.peak = max(self._ours_out.peak, answer["peak_memory_bytes"])
        dump = [str(client("pg_dump", VERSION)), "-Fd", "-j2", "-Z1", "-f", str(self._folder / "dump"), source]
        self._timed(self._theirs_out, partial(subprocess.run, dump, check=True))
        self._theirs_out.bytes = size(self._folder / "dump")
        return desk

    def _restore(self, desk: Desk) -> None:
        for name in ("ours", "theirs"):
            psql(f"{self._base}/postgres", f"DROP DATABASE IF EXISTS {name}")
            psql(f"{self._base}/postgres", f"CREATE DATABASE {name} TEMPLATE template0")
        psql(f"{self._base}/postgres", "CHECKPOINT")
        ours = partial(desk.run, "restore", "latest", "--to", f"{self._base}/ours", "--json", timeout=3600)
        told = self._timed(self._ours_in, ours).expect().json
        if not told["proof"]["equal"]:
            sys.exit("the restored database is not equal: no time of it means anything")
        self._ours_in.peak = max(self._ours_in.peak, told["peak_memory_bytes"])
        self._load.wall.append(told["restore_seconds"])
        self._proof.wall.append(told["proof_seconds"])
        psql(f"{self._base}/postgres", "CHECKPOINT")
        load = [str(client("pg_restore", VERSION)), "-j2", "-d", f"{self._base}/theirs", str(self._folder / "dump")]
        self._timed(self._theirs_in, partial(subprocess.run, load, check=True))

    def _timed(self, measured: Measured, act: Callable[[], T]) -> T:
        """Run it and book wall and CPU: of our children, and of the server's processes."""
        before, served = resource.getrusage(resource.RUSAGE_CHILDREN), self._server_cpu()
        begun = time.monotonic()
        result = act()
        measured.wall.append(time.monotonic() - begun)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        measured.client.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        time.sleep(0.5)  # until the postmaster has collected its children
        measured.server.append(self._server_cpu() - served)
        return result

    def _server_cpu(self) -> float:
        """Of the postmaster, of what it has collected, and of its living children."""
        ours = self._postmaster.cpu_times()
        living = [p.cpu_times() for p in self._postmaster.children()]
        return sum((ours.user, ours.system, ours.children_user, ours.children_system)) + sum(
            c.user + c.system for c in living
        )


def psql(url: str, sql: str) -> None:
    """One statement."""
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run([str(client("psql", VERSION)), "-Xqc", sql, url], check=True, env=environment)


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def ratio(a: Measured, b: Measured) -> float:
    """Of the median walls."""
    return median(a.wall) / median(b.wall)


def show(ours: Measured, theirs: Measured) -> None:
    """Two lines and their ratio."""
    for one in (ours, theirs):
        cpu = f"CPU s {median(one.client):6.1f} client {median(one.server):6.1f} server" if one.client else " " * 35
        written = f"{one.bytes / 1e6:8.0f} MB" if one.bytes else " " * 11
        runs = " ".join(f"{w:.1f}" for w in one.wall)
        print(f"{one.name:<30}{median(one.wall):7.1f} s wall  {cpu} {written}  ({runs})")
    cpus = ""
    if ours.client and theirs.client:
        total = [median(one.client) + median(one.server) for one in (ours, theirs)]
        cpus = f", CPU {total[0] / total[1]:.2f}"
    print(f"{'ratio':<30}{ratio(ours, theirs):7.2f} wall{cpus}")


if __name__ == "__main__":
    main()
