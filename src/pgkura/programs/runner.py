"""Runs programs: argv lists, own process group, both pipes drained, a deadline, a way to cancel.

Secrets go through the environment, never argv. Nothing else in the product imports subprocess.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pgkura.core.errors import ToolError

TAIL_BYTES = 16 * 1024
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended. `out` is its standard output up to the limit, `err` the last 16 KiB of its errors."""

    code: int
    out: bytes
    err: str


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment: what programs need to start, and `more`. PG* variables of ours do not leak in."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"LC_MESSAGES": "C"} | dict(more or {})


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    deadline: float | None = None,
    cancelled: threading.Event | None = None,
    limit: int = 64 * 1024 * 1024,
    user: int | None = None,
    cwd: Path | None = None,
    started: Callable[[int], None] | None = None,
    to: IO[bytes] | None = None,
) -> Ended:
    """Run to the end. Raises ToolError when it cannot start, passes `deadline` seconds, says too much or is cancelled.

    `started` is told the pid. Standard output goes to the file `to` if there is one, and `Ended.out` is then empty.
    A program that is given up is killed with its whole group.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if to is None else to,
            stderr=subprocess.PIPE,
            start_new_session=True,
            user=user,
            cwd=cwd,
        )
    except OSError as error:
        raise ToolError(f"cannot start {argv[0]}", detail=error.strerror or str(error)) from error
    if started is not None:
        started(process.pid)
    out, err = _Drain(process.stdout, limit, keep_tail=False), _Drain(process.stderr, TAIL_BYTES, keep_tail=True)
    try:
        why = _wait(process, deadline, cancelled, out)
    finally:
        if process.poll() is None:
            kill_group(process.pid)
        process.wait()
        out.join()
        err.join()
    if why:
        raise ToolError(f"{Path(argv[0]).name} {why}", detail=_last_lines(err.text()))
    return Ended(code=process.returncode, out=out.data(), err=err.text())


def _wait(
    process: "subprocess.Popen[bytes]", deadline: float | None, cancelled: threading.Event | None, out: "_Drain"
) -> str:
    """'' when it ended by itself, else why it must be killed."""
    end = None if deadline is None else time.monotonic() + deadline
    while True:
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            if cancelled is not None and cancelled.is_set():
                return "was stopped"
            if out.too_much:
                return "said more than is sensible"
            if end is not None and time.monotonic() > end:
                return f"did not end within {deadline:.0f} s"
        else:
            return ""


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process group that we started; quiet when it is gone."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _last_lines(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-6:])


class _Drain(threading.Thread):
    """Reads a pipe to its end so that the child never blocks on it; keeps the first or the last bytes."""

    def __init__(self, pipe: IO[bytes] | None, limit: int, *, keep_tail: bool) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._limit = limit
        self._tail = keep_tail
        self._kept = bytearray()
        self.too_much = False
        self.start()

    def run(self) -> None:
        """Until the pipe closes."""
        if self._pipe is None:
            return
        with self._pipe:
            while piece := os.read(self._pipe.fileno(), 65536):
                if self._tail:
                    self._kept += piece
                    del self._kept[: -self._limit]
                elif len(self._kept) + len(piece) <= self._limit:
                    self._kept += piece
                else:
                    self.too_much = True

    def data(self) -> bytes:
        """What was kept."""
        return bytes(self._kept)

    def text(self) -> str:
        """What was kept, as text."""
        return self._kept.decode("utf-8", "replace")


class Spawned:
    """A long-running child in its own process group."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises TimeoutError."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"pid {self.pid} still runs after {seconds} s") from None

    def send_signal(self, number: int) -> None:
        """To the child itself; quiet when it is gone."""
        if self._process.poll() is None:
            self._process.send_signal(number)


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    cwd: Path | None = None,
    before_exec: Callable[[], None] | None = None,
) -> Spawned:
    """Start a long-running program whose output goes to `log`. Raises ToolError when it cannot start."""
    try:
        with log.open("ab") as out:
            return Spawned(
                subprocess.Popen(
                    list(argv),
                    env=clean_environment(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=user,
                    cwd=cwd,
                    preexec_fn=before_exec,
                )
            )
    except OSError as error:
        raise ToolError(f"cannot start {argv[0]}", detail=error.strerror or str(error)) from error
