"""Definitions: pg_dump at the snapshot, its archive read as structure, one text per kind that has a history."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from pgkura.catalog.components import component_texts
from pgkura.catalog.toc import Toc, read_archive
from pgkura.core.errors import ToolError
from pgkura.core.facts import TableFacts
from pgkura.core.names import QualifiedName
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.relay import client_environment
from pgkura.programs.pgtools import dump_schema, find_client
from pgkura.snapshot.attempt import Desk, GaveWay, Seen
from pgkura.snapshot.yielding import Part, application_name

# What pg_dump says when it was ended, waited too long, or met an object that vanished: the attempt is repeated.
_AGAIN = (
    "statement timeout",
    "lock timeout",
    "does not exist",
    "cache lookup failed",
    "could not open relation",
    "could not find",
)


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


def read_definitions(desk: Desk, source: Endpoint, run: str, seen: Seen) -> Definitions:
    """Run pg_dump in the snapshot. Raises GaveWay when it had to be ended, ToolError when it failed."""
    tool = find_client("pg_dump", seen.facts.server_version_num // 10000)
    desk.progress.stage(f"reading definitions ({tool.title})")
    archive = desk.scratch()
    try:
        with client_environment(source, has_tls=tool.has_tls) as environment:
            dump_schema(
                tool,
                environment | {"PGAPPNAME": application_name(run, Part.DUMP)},
                archive,
                snapshot=seen.moment.id,
                exclude_tables=_unlockable(seen.facts.tables),
                lock_wait_ms=desk.options.queue_wait_ms,
                cancelled=desk.stop.event,
            )
    except ToolError as error:
        desk.stop.check()
        if desk.watcher.take_ended():
            raise GaveWay("gave way to the application") from error
        if any(sign in error.detail for sign in _AGAIN):
            raise GaveWay(f"pg_dump could not finish ({error.detail})") from error
        raise
    return Definitions(archive=archive, toc=read_archive(archive), pg_dump_version=tool.title)


def _unlockable(tables: Sequence[TableFacts]) -> list[str]:
    """Tables that pg_dump could not lock, so it would fail as a whole; as patterns that mean just them."""
    return [
        ".".join('"' + part.replace('"', '""') + '"' for part in (t.schema, t.name))
        for t in tables
        if not t.readable and t.kind in ("r", "p")
    ]
