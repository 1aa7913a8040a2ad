"""`diff`: what changed between two snapshots, or a snapshot and a live database, as DDL."""

from dataclasses import dataclass
from typing import Any, Protocol

from pgkura.catalog.diff import Change, as_text, compare
from pgkura.catalog.toc import Toc, read_archive
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.repository.repository import Repository
from pgkura.restore.target import dump_definitions

LIVE = "database"


class Sources(Protocol):
    """What a diff may read from."""

    def repository(self, *, need_identity: bool = False) -> Repository:
        """The repository."""
        ...

    def source(self) -> Endpoint:
        """The live database."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The changes from the first to the second."""

    first: str
    second: str
    changes: tuple[Change, ...]

    def text(self) -> str:
        """Readable DDL, '' when nothing differs."""
        return as_text(list(self.changes))

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": "ok",
            "first": self.first,
            "second": self.second,
            "changes": [c.as_json() for c in self.changes],
        }


def diff_snapshots(sources: Sources, first: str, second: str) -> Difference:
    """Each side is a snapshot id, `latest`, or `database`."""
    name_a, toc_a = _toc(sources, first)
    name_b, toc_b = _toc(sources, second)
    return Difference(first=name_a, second=name_b, changes=tuple(compare(toc_a, toc_b)))


def _toc(sources: Sources, which: str) -> tuple[str, Toc]:
    if which == LIVE:
        endpoint = sources.source()
        with connect(endpoint, application_name="pgkura diff") as session:
            version = session.server_version
        return endpoint.display, dump_definitions(endpoint, version)
    repo = sources.repository(need_identity=True)
    manifest = repo.manifest(which)
    return manifest.id, read_archive(repo.component(manifest, "archive"))
