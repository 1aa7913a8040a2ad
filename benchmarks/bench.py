"""What every figure gets: a server, a folder, a scale; and us, as a command line like any other."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.measure import Cost, no_server, run, size
from benchmarks.results import Wrong
from benchmarks.server import Server
from tests.support.cli import Desk


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """scale 1 is 3 GB of COPY text; days is for the thirty-days figure alone, chunks for memory (0: by the scale).

    again: how often a run that can be repeated and that the host disturbed is measured again
    """

    server: Server
    folder: Path
    scale: float
    rounds: int
    days: int = 30
    chunks: int = 0
    again: int = 3
    note: Callable[[str], None] = say

    @property
    def pgbench_scale(self) -> int:
        """Of pgbench's own tables: a million rows, or 100,000 where it is only tried whether a figure can be had."""
        return 10 if self.scale >= 0.1 else 1

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def ours(self, name: str) -> "Ours":
        """A new repository with new keys."""
        made = Ours(self.server.cpu, self.fresh(name))
        made.run("init")
        return made

    @contextmanager
    def database(self, name: str, template: str = "template0") -> Iterator[str]:
        """A database for a while; gives its name."""
        self.server.create(name, template)
        try:
            yield name
        finally:
            self.server.drop(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What it cost, and the `--json` object of a run that was ok."""

    cost: Cost
    json: dict[str, Any]


class Ours:
    """A repository and the command line, measured. Every run must say `ok`."""

    def __init__(self, server_cpu: Callable[[], float], folder: Path) -> None:
        self._server_cpu = server_cpu
        self._desk = Desk(folder)

    @property
    def size(self) -> int:
        """Bytes of the repository."""
        return size(self._desk.repository)

    @property
    def folder(self) -> Path:
        """The repository's folder."""
        return self._desk.repository

    @property
    def desk(self) -> Desk:
        """Keys and environment."""
        return self._desk

    def run(
        self,
        *arguments: str,
        prefix: Sequence[str] = (),
        local: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Told:
        """`pgkura ARGUMENTS --json`; `local`: it talks to no server."""
        argv = [*prefix, sys.executable, "-m", "pgkura", *arguments, "--json"]
        server_cpu = no_server if local else self._server_cpu
        cost = run(argv, server_cpu=server_cpu, env=self._desk.environment | dict(env or {}))
        told = json.loads(cost.out)
        if told.get("result", "ok") != "ok":
            raise Wrong(f"pgkura {arguments[0]} ended {told['result']}: {json.dumps(told)[:3000]}")
        return Told(cost=cost, json=told)

    def backup(
        self, url: str, *options: str, full: bool = False, prefix: Sequence[str] = (), insecure: bool = False
    ) -> Told:
        """A snapshot of `url`; `full` reads all of it whatever is known."""
        more = ["--full"] if full and knows_full() else []
        env = {"DATABASE_URL": url} | ({"PGKURA_INSECURE_DATABASE": "1"} if insecure else {})
        return self.run("backup", *more, *options, prefix=prefix, env=env)

    def restore(self, url: str, snapshot: str = "latest", *options: str) -> Told:
        """Into the empty database `url`, proven equal."""
        told = self.run("restore", snapshot, "--to", url, "--yes", *options)
        if not told.json["proof"]["equal"]:
            raise Wrong(f"the restored database is not equal to {snapshot}")
        return told

    def prove(self, url: str, snapshot: str = "latest") -> None:
        """Raises Wrong unless the database equals the snapshot."""
        told = self.run("verify", snapshot, "--against", url)
        if not told.json["proof"]["equal"]:
            raise Wrong(f"the database is not equal to {snapshot}")


@cache
def knows_full() -> bool:
    """Whether there is a `--full`; without it every backup reads all."""
    help_text = run([sys.executable, "-m", "pgkura", "backup", "--help"], env=Desk(Path("/tmp")).environment).out
    return "--full" in help_text
