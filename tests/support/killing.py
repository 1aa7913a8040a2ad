"""Counts the writes of a run, in all its processes, and kills it at a chosen one. The product knows nothing of this.

A write is one call of a store (put, create, delete) or one change to a key file of `init`; with `fine`, also each step
of the file system inside them. `Killer` describes it, `install` arms a process: by the environment, through
killer/sitecustomize.py, which every Python process of the run loads.
"""

import fcntl
import functools
import io
import os
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_writing = threading.local()
ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "KURA_KILLER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Killer:
    """count: a file in which the processes count together; at: the write to kill at, 0 for none.

    when   `before` or `after` it
    whom   `group`: every process of the run; `me`: only the one that writes
    only   count only writes whose key begins so
    """

    count: Path
    at: int = 0
    when: str = "before"
    whom: str = "group"
    only: str = ""
    fine: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """For a subprocess and its children."""
        words = (str(self.count), str(self.at), self.when, self.whom, self.only, "fine" if self.fine else "")
        path = f"{ROOT / 'src'}:{ROOT}:{Path(__file__).parent / 'killer'}"
        return {VARIABLE: "|".join(words), "PYTHONPATH": path}

    @property
    def writes(self) -> list[str]:
        """What was counted."""
        return self.count.read_text().splitlines() if self.count.exists() else []

    @classmethod
    def of_environment(cls) -> "Killer | None":
        """As `environment` says it."""
        if VARIABLE not in os.environ:
            return None
        count, at, when, whom, only, fine = os.environ[VARIABLE].split("|")
        return cls(count=Path(count), at=int(at), when=when, whom=whom, only=only, fine=bool(fine))

    def next(self, what: str) -> int:
        """Count one more write."""
        with self.count.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            number = len(file.read().splitlines()) + 1
            file.write(f"{what}\n")
        return number

    def end(self) -> None:
        """SIGKILL."""
        if self.whom == "group":
            os.killpg(os.getpgid(0), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], object], killer: Killer) -> bool:
    """Do it in a process of its own; whether that was killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
        child = os.fork()
    if child == 0:
        try:
            install(killer)
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def install(killer: Killer) -> None:
    """Arm this process."""
    from pgkura.operations import keyfiles
    from pgkura.storage.local import LocalStorage
    from pgkura.storage.s3 import S3Storage

    for store in (LocalStorage, S3Storage):
        for name in ("put", "create", "delete"):
            setattr(store, name, _counted(killer, name, getattr(store, name), lambda a: str(a[1])))
    keyfiles.write_secret = _counted(killer, "write", keyfiles.write_secret, lambda a: f"file {a[0].name}")
    file = keyfiles.KeyFile
    for name in ("keep", "forget"):
        setattr(file, name, _counted(killer, name, getattr(file, name), lambda a: f"file {a[0].path.name}"))
    for name in ("link", "unlink", "replace", "fsync") if killer.fine else ():
        setattr(os, name, _counted(killer, name, getattr(os, name), lambda a: f"os {a[0]}"))
    if killer.only == "folder":
        _install_files(killer)


def _install_files(killer: Killer) -> None:
    """Every file that is opened for writing, every folder made or renamed: what an export does."""
    opened = _counted(killer, "open", io.open, lambda a: f"folder {a[0]}")

    def open_(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return (opened if "w" in mode else _io_open)(file, mode, *rest, **options)

    io.open = open_
    for name in ("mkdir", "rename"):
        setattr(os, name, _counted(killer, name, getattr(os, name), lambda a: f"folder {a[0]}"))


_io_open = io.open


def _counted(killer: Killer, name: str, call: Callable[..., Any], key: Callable[[Any], str]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        what = key(arguments)
        # A store may make one write out of another of its own; the file system's steps inside are counted if asked for.
        inside = getattr(_writing, "inside", False) and not what.startswith("os ")
        if inside or not what.startswith(killer.only):
            return call(*arguments, **options)
        number = killer.next(f"{name} {what}")
        if number == killer.at and killer.when == "before":
            killer.end()
        before, _writing.inside = getattr(_writing, "inside", False), True
        try:
            return call(*arguments, **options)
        finally:
            _writing.inside = before
            if number == killer.at and killer.when == "after":
                killer.end()

    return wrapper
