"""A prune in a process of its own that kills itself.

Each is forked from a process that has loaded everything and nothing else: starting Python anew takes longer than the
prune, and some tests kill one before every single write.
"""

import multiprocessing
import os
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.support.shelf import Aged

from pgkura.changes import spans
from pgkura.core.progress import Silent
from pgkura.operations.prune import execute_prune, plan_prune
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.local import LocalStorage

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """What one does.

    host_key, identity  with an identity packs are packed anew
    last   snapshots that are kept; grace: seconds
    age    files that were there when it began count as so many seconds older
    fan    segments of a change log that become a bundle; 0 = as many as usual
    """

    folder: Path
    host_key: str
    last: int
    identity: str = ""
    grace: int = 0
    age: int = 0
    fan: int = 0

    def start(self, step: int) -> "Running":
        """SIGKILL comes before this write or delete (0 = never)."""
        reader, writer = _FORKS.Pipe(duplex=False)
        process = _FORKS.Process(target=_prune, args=(self, step, writer))
        process.start()
        writer.close()
        return Running(process=process, told=reader)

    def run(self, step: int) -> tuple[int, str]:
        """(exit code, number of steps it took or what went wrong)."""
        return self.start(step).result()

    def steps(self) -> int:
        """How many it takes where nothing kills it."""
        code, told = self.run(0)
        assert code == 0, told
        return int(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One that was started."""

    process: BaseProcess
    told: Connection

    def result(self, seconds: float = 60) -> tuple[int, str]:
        """As `Prune.run`."""
        try:
            told = str(self.told.recv()) if self.told.poll(seconds) else "it takes too long"
        except EOFError:
            told = ""
        self.told.close()
        self.process.join(seconds)
        code = self.process.exitcode
        assert code is not None, told
        return code, told


class Mortal(Aged):
    """Dies before its nth write or delete."""

    steps = 0
    last = 0

    def before(self, act: str, key: str) -> None:
        """Count, and die."""
        super().before(act, key)
        if act in ("put", "create", "delete"):
            self.steps += 1
            if self.steps == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def _prune(prune: Prune, step: int, told: "Connection") -> None:
    store = Mortal(LocalStorage(prune.folder), seconds=prune.age)
    store.last = step
    try:
        identity = Identity.parse(prune.identity) if prune.identity else None
        repo = Repository.open(store, identity=identity, host=HostKey.parse(prune.host_key))
        if prune.fan and spans.plan_bundles.__kwdefaults__ is not None:
            spans.plan_bundles.__kwdefaults__["fan"] = prune.fan
        planned = plan_prune(
            repo,
            Rules(last=prune.last),
            grace=prune.grace,
            repack_below=0.8 if identity else None,
            repack_least=1,
            progress=Silent(),
        )
        execute_prune(planned, progress=Silent())
    except BaseException:
        told.send(traceback.format_exc())
        raise
    told.send(store.steps)
