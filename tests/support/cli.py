"""The real command line as a subprocess, with an environment that holds nothing but what a test gives."""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.starting import Starter

ROOT = Path(__file__).resolve().parents[2]

# What any Python of these tests is started with.
_PLAIN = {"LANG": "C.UTF-8", "PYTHONPATH": str(ROOT / "src")}


@cache
def _starter() -> Starter:
    """One for all tests of this process."""
    made = Starter({"PATH": os.environ["PATH"], **_PLAIN})
    atexit.register(made.close)
    return made


_started: "list[subprocess.Popen[bytes]]" = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """stdout as exactly one JSON object."""
        value = json.loads(self.out)
        assert isinstance(value, dict), self.out
        return value

    def expect(self, code: int = 0) -> "Done":
        """Fail the test with everything the command said unless it ended with `code`."""
        assert self.code == code, f"exit {self.code}, wanted {code}\n--- out\n{self.out}\n--- err\n{self.err}"
        return self


@dataclass(slots=True)
class Desk:
    """A person's desk: a repository, two key files and an environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            **_PLAIN,
            "PGKURA_REPOSITORY": str(self.repository),
            "PGKURA_IDENTITY": str(self.identity),
            "PGKURA_HOST_KEY": str(self.host_key),
        } | self.environment

    @property
    def repository(self) -> Path:
        """The repository folder."""
        return self.folder / "repository"

    @property
    def identity(self) -> Path:
        """The identity file."""
        return self.folder / "keys" / "identity.txt"

    @property
    def host_key(self) -> Path:
        """The host key file."""
        return self.folder / "keys" / "host.key"

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        timeout: float = 240,
        cwd: Path | None = None,
        alone: bool = False,
    ) -> Done:
        """`pgkura ARGUMENTS`; `alone`: in a process that shares no memory with any other, which takes a second more."""
        environment = self.environment | dict(env or {})
        starter = _starter()
        if alone or not starter.fits(environment):
            return command([sys.executable, "-m", "pgkura", *arguments], environment, timeout, cwd)
        code, out, err = starter.run(arguments, environment, timeout, cwd)
        return Done(code=code, out=out.decode(), err=err.decode())

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """The same in the background, in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pgkura", *arguments],
            env=self.environment | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _started.append(process)
        return process


def end_started() -> None:
    """Kill what a test left running: one that fails half way must not make others fail."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def command(argv: list[str], environment: Mapping[str, str], timeout: float = 240, cwd: Path | None = None) -> Done:
    """Any command, no standard input."""
    done = subprocess.run(
        argv,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        cwd=cwd,
        check=False,
    )
    return Done(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())
