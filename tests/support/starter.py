"""The program behind tests/support/starting.py: `python starter.py SOCKET`. It ends when nobody can ask any more."""

import gc
import json
import os
import random
import runpy
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

sys.path[0] = os.getcwd()  # as with `python -m`; the folder of this file has modules named as other people's

import pgkura.cli  # noqa: E402


def _serve(asked: socket.socket) -> tuple[list[str], list[int]] | None:
    """Returns in each process that is to become a command: its arguments and its files. None at the end."""
    while True:
        head, files, _, _ = socket.recv_fds(asked, 8, 3)
        if len(head) < 8:
            return None
        length, body = int.from_bytes(head, "big"), b""
        while len(body) < length:
            body += asked.recv(length - len(body))
        if os.fork() == 0:
            arguments, environment, cwd = json.loads(body)
            _become(files[2], environment, cwd)
            asked.close()
            return arguments, files[:2]
        for file in files:
            os.close(file)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _become(tells: int, environment: dict[str, str], cwd: str) -> None:
    """The command is a child of the process that waits for it and tells how it ended."""
    pid = os.fork()
    if pid:
        os.write(tells, f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(tells, f"{code}\n".encode())
        os._exit(0)
    os.close(tells)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    random.seed()


def _load() -> None:
    for file in sorted(Path(pgkura.cli.__file__).parent.glob("[a-z]*.py")):
        import_module(f"pgkura.cli.{file.stem}")
    for name in ("boto3", "pgkura.policy.document", "pgkura.storage.s3", "pgkura.work.processes"):
        with suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"


_load()
_given = _serve(socket.socket(fileno=int(sys.argv[1])))
if _given is not None:
    for _to, _file in enumerate(_given[1], start=1):
        os.dup2(_file, _to)
        os.close(_file)
    sys.argv = ["pgkura", *_given[0]]
    runpy.run_module("pgkura", run_name="__main__", alter_sys=True)
