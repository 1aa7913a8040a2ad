"""Bases that a watcher has taken: `pgkura backup` in a process of its own, so that receiving never waits for it.

Nothing is taken where a backup fits already, and never the first one of a database: how much that reads is the user's
to decide.
"""

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

from pgkura.changes.rebasing import BaseTaken, Wanted
from pgkura.core.errors import EXIT_INCOMPLETE, EXIT_OK, ToolError
from pgkura.postgres.shape import Shape
from pgkura.programs.runner import Ended, kill_group, run
from pgkura.repository.changes import HEAD
from pgkura.repository.manifest import SKEW, Manifest, dated
from pgkura.repository.repository import Repository

_GENTLY = 20.0
_KIND = "base"


class Bases:
    """A BaseTaker. `environment` names database, repository and key for the child; `options` are those of `backup`."""

    def __init__(self, repo: Repository, environment: Mapping[str, str], options: Sequence[str]) -> None:
        self._repo, self._environment, self._options = repo, environment, options
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pgkura-base")
        self._running: Future[BaseTaken | None] | None = None
        self._killed = Event()
        self._pid = 0

    def take(self, wanted: Wanted) -> "Future[BaseTaken | None]":
        """The newest backup if it fits, else a new one; None where this database was never backed up."""
        self._running = self._pool.submit(self._take, wanted)
        return self._running

    def stop(self) -> None:
        """Ask the child to end, which it does at once; kill it if it does not."""
        running = self._running
        if running is not None and not running.done():
            if self._pid:
                kill_group(self._pid, signal.SIGTERM)
            end = time.monotonic() + _GENTLY
            while not running.done() and time.monotonic() < end:
                time.sleep(0.05)
            self._killed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, wanted: Wanted) -> BaseTaken | None:
        newest = self._newest(wanted)
        if newest is None:
            return None
        if shape_of(newest, wanted.chain) == wanted.shape:
            return BaseTaken(snapshot=newest.id, shape=wanted.shape, made=False)
        told = self._run()
        made = self._repo.exact_manifest(str(told["snapshot"]))
        shape = shape_of(made, wanted.chain)
        self._repo.append_journal(
            _KIND, {"snapshot": made.id, "chain": wanted.chain, "why": "tables or definitions changed"}
        )
        return BaseTaken(snapshot=made.id, shape=shape, made=True)

    def _newest(self, wanted: Wanted) -> Manifest | None:
        """Of this chain's database: its newest base of the chain, or else its newest snapshot."""
        head = self._repo.chain_record(wanted.chain, HEAD) or {}
        newest: Manifest | None = None
        for snapshot in reversed(self._repo.manifest_ids()):
            if newest is not None and dated(snapshot) < dated(wanted.chain) - SKEW:
                return newest
            manifest = self._repo.exact_manifest(snapshot)
            if (manifest.system_identifier, manifest.database) != (head.get("system"), head.get("database")):
                continue
            if shape_of(manifest, wanted.chain) is not None:
                return manifest
            newest = newest or manifest
        return newest

    def _run(self) -> dict[str, Any]:
        argv = [sys.executable, "-m", "pgkura", "backup", "--json", "--quiet", *self._options]
        try:
            ended = run(argv, environment=self._environment, cancelled=self._killed, started=self._begun)
        finally:
            self._pid = 0
        return _answer(ended)

    def _begun(self, pid: int) -> None:
        self._pid = pid


def shape_of(manifest: Manifest, chain: str) -> Shape | None:
    """As this chain's base, None if it is none."""
    log = manifest.log
    if log is None or log["chain"] != chain:
        return None
    return Shape(rows=log["rows"], definitions=log["definitions"])


def _answer(ended: Ended) -> dict[str, Any]:
    """What the backup printed. Raises ToolError with its own words."""
    try:
        told = json.loads(ended.out)
    except ValueError:
        told = {}
    if ended.code in (EXIT_OK, EXIT_INCOMPLETE) and "snapshot" in told:
        return dict(told)
    error = told.get("error", {})
    last = ended.err.strip().splitlines()[-1:] or [f"exit code {ended.code}"]
    raise ToolError(str(error.get("message") or last[0]), detail=str(error.get("why", "")))
