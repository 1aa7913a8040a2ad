"""Definitions: pg_dump at the snapshot, its archive read as structure, one text per kind that has a history."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import IO, Self

from pgkura.catalog.components import component_texts
from pgkura.catalog.toc import Toc, read_archive
from pgkura.core.errors import ToolError
from pgkura.core.names import QualifiedName
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import EARLY_MS
from pgkura.postgres.relay import client_environment
from pgkura.postgres.session import Session
from pgkura.programs.pgtools import Tool, dump_schema, find_client
from pgkura.snapshot.attempt import Desk, GaveWay, awaited
from pgkura.snapshot.conductor import Moment
from pgkura.snapshot.queries import query
from pgkura.snapshot.yielding import Part, application_name

# What pg_dump says when it was ended, waited too long, or met an object that vanished: the attempt is repeated.
_AGAIN = (
    "statement timeout",
    "lock timeout",
    "does not exist",
    "cache lookup failed",
    "could not open relation",
    "could not find",
    "deadlock detected",
)
# How long its one LOCK of all tables may take: it holds some while it waits for the others, so that it has to give up
# before anybody else looks for a deadlock.
LOCK_MS, LOCK_MS_PER_TABLE = 250, 0.05
PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """The archive, its table of contents, and who wrote it."""

    archive: IO[bytes]
    toc: Toc
    pg_dump_version: str

    def texts(self) -> dict[str, str]:
        """Canonical text per history kind, but roles."""
        return component_texts(self.toc)

    def matviews(self) -> list[QualifiedName]:
        """Materialized views in an order in which each finds those it reads."""
        return [QualifiedName(e.schema, e.tag) for e in self.toc.entries if e.desc == "MATERIALIZED VIEW"]


class Dumping:
    """pg_dump at work in the snapshot, beside the reading of catalogs and rows. Leaving early ends it."""

    def __init__(
        self, desk: Desk, source: Endpoint, run: str, exporter: Session, moment: Moment, *, tables: int
    ) -> None:
        desk.progress.stage("reading definitions (pg_dump)")
        self._desk = desk
        self._source = source
        self._name = application_name(run, Part.DUMP)
        self._moment = moment
        # Asked of the session that holds the snapshot: nothing else has to be known before pg_dump can begin.
        self._left_out = [_pattern(schema, name) for schema, name in exporter.rows(query("unlockable"))]
        self._major = exporter.server_version // 10000
        # Through a pooler start-up options do not travel.
        self._options = (
            {"PGOPTIONS": f"-c deadlock_timeout={EARLY_MS}"} if exporter.early and not exporter.pooled else {}
        )
        self._lock_wait_ms = min(desk.options.queue_wait_ms, _lock_wait_ms(exporter, tables))
        self._archive = desk.scratch()
        self._given_up = Event()
        self._tool: Tool | None = None
        desk.watcher.take_ended()  # of the attempt before
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pgkura-definitions")
        self._future = self._pool.submit(self._run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._pool.shutdown(wait=True)

    def check(self) -> None:
        """Raises what `definitions` would raise by now."""
        if self._future.done():
            self.definitions()

    def definitions(self) -> Definitions:
        """When it has ended. Raises GaveWay when it had to be ended, ToolError when it failed."""
        try:
            return awaited(self._desk, self._future)
        except ToolError as error:
            self._desk.stop.check()
            if self._tool is None:
                raise  # there is none
            if self._desk.watcher.take_ended():
                raise GaveWay("gave way to the application") from error
            if any(sign in error.detail for sign in _AGAIN):
                raise GaveWay(f"pg_dump could not finish ({error.detail})") from error
            # Whatever it was: the server may say the same in another language.
            raise GaveWay(f"pg_dump failed ({error.detail})", instead=error) from error

    def _run(self) -> Definitions:
        self._tool = tool = find_client("pg_dump", self._major)
        deadline = time.monotonic() + self._desk.options.queue_wait_ms / 1000
        with client_environment(self._source, has_tls=tool.has_tls) as environment:
            while not self._dumped(tool, environment | self._options | {"PGAPPNAME": self._name}, deadline):
                # What it had locked is given back while it waits.
                self._given_up.wait(PAUSE_SECONDS)
        return Definitions(archive=self._archive, toc=read_archive(self._archive), pg_dump_version=tool.title)

    def _dumped(self, tool: Tool, environment: Mapping[str, str], deadline: float) -> bool:
        """False: tables were locked by others, and there is time to ask again."""
        self._archive.seek(0)
        self._archive.truncate()
        try:
            dump_schema(
                tool,
                environment,
                self._archive,
                snapshot=self._moment.id,
                exclude_tables=self._left_out,
                lock_wait_ms=self._lock_wait_ms,
                cancelled=self._given_up,
            )
        except ToolError as error:
            locked = any(sign in error.detail for sign in ("statement timeout", "deadlock detected"))
            if not locked or time.monotonic() > deadline or self._given_up.is_set():
                raise
            return False
        return True


def _lock_wait_ms(session: Session, tables: int) -> int:
    ask = "SELECT s.reset_val::int4 FROM pg_catalog.pg_settings s WHERE s.name = 'deadlock_timeout'"
    others_look_after = int(session.one(ask)[0])
    return round(min(LOCK_MS, others_look_after / 2) + LOCK_MS_PER_TABLE * tables) or 1


def _pattern(schema: str, name: str) -> str:
    """A pattern that means just this table."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))
