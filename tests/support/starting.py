"""Commands without the second that Python takes to load our modules: a process that has loaded them forks for each.

Each command is a process of its own all the same, with the environment, folder and files that it was given, and
nothing of a command before it. Where Python itself is to be started otherwise (`PYTHONPATH` and the like) there is no
way around starting it.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO

_PROGRAM = Path(__file__).with_name("starter.py")
# What Python looks at before our first line runs.
_STARTED_BY = ("PYTHON", "LANG", "LC_", "LD_", "TZ", "MALLOC_", "OPENBLAS_", "OMP_")


class Starter:
    """Runs `python -m pgkura ARGUMENTS`; threads may run several at once. Its process ends with ours."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._as = _looked_at(environment)
        self._lock = Lock()
        self._asking, asked = socket.socketpair()
        with asked:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(asked.fileno())],
                env=self._as | {"PATH": environment["PATH"], "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[asked.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether Python would start just so in this environment."""
        return _looked_at(environment) == self._as

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], timeout: float, cwd: Path | None
    ) -> tuple[int, bytes, bytes]:
        """Exit code (negative: the signal), standard output and error. Raises TimeoutExpired, after killing it."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            told, tells = os.pipe()
            with open(told, "rb", buffering=0) as answers:
                try:
                    self._ask([*arguments], dict(environment), cwd or Path.cwd(), [out.fileno(), err.fileno(), tells])
                finally:
                    os.close(tells)
                pid = int(_line(answers, 60) or 0)
                assert pid, "the starter has ended"
                code = _line(answers, timeout)
                if code is None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, 9)
                    raise subprocess.TimeoutExpired([*arguments], timeout, _text(out), _text(err))
            assert code, "the starter has ended"
            return int(code), _text(out), _text(err)

    def _ask(self, arguments: list[str], environment: dict[str, str], cwd: Path, files: list[int]) -> None:
        body = json.dumps([arguments, environment, str(cwd)]).encode()
        with self._lock:
            socket.send_fds(self._asking, [len(body).to_bytes(8, "big")], files)
            self._asking.sendall(body)

    def close(self) -> None:
        """End it."""
        self._asking.close()
        self._process.wait()


def _looked_at(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_STARTED_BY)}


def _text(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _line(answers: IO[bytes], timeout: float) -> bytes | None:
    """A line; b'' when nobody will write one, None when none came in time."""
    end, found = time.monotonic() + timeout, b""
    while not found.endswith(b"\n"):
        if not select.select([answers], [], [], max(0, end - time.monotonic()))[0]:
            return None
        more = answers.read(64)
        if not more:
            return b""
        found += more
    return found
