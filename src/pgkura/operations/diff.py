"""`diff`: what changed between two snapshots, or a snapshot and a live database, as DDL."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from pgkura.catalog.diff import Change, as_text, compare
from pgkura.catalog.inventory import read_items
from pgkura.catalog.platform import detect
from pgkura.catalog.toc import read_archive
from pgkura.core.errors import UsageError
from pgkura.core.facts import SourceFacts
from pgkura.operations.diff_states import Side, compare_states, without_reordered
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.facts import read_facts, read_platform_names
from pgkura.postgres.inventory import read_inventory
from pgkura.postgres.pinning import connect
from pgkura.repository.repository import Repository
from pgkura.restore.target import dump_definitions
from pgkura.verify.giving_way import giving_way

LIVE = "database"
APPLICATION = "pgkura diff"


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
    before, after = _side(sources, first), _side(sources, second)
    changes = without_reordered(before, after, compare(before.toc, after.toc))
    changes += compare_states(before, after, changes)
    changes.sort(key=lambda c: (c.component, c.title))
    return Difference(first=before.name, second=after.name, changes=tuple(changes))


def live_side(*sides: str) -> tuple[str, tuple[str, ...]]:
    """(URL or reference of the live database, '' for DATABASE_URL; the sides with `database` in its place)."""
    urls = {side for side in sides if "://" in side or side.startswith(("env:", "file:"))}
    if len(urls | ({LIVE} & set(sides))) > 1:
        raise UsageError("two live databases", hint="back one of them up, and compare the other with the snapshot")
    return next(iter(urls), ""), tuple(LIVE if side in urls else side for side in sides)


def _side(sources: Sources, which: str) -> Side:
    if which == LIVE:
        return _live(sources.source())
    repo = sources.repository(need_identity=True)
    manifest = repo.manifest(which)
    return Side(
        name=manifest.id,
        toc=read_archive(repo.component(manifest, "archive")),
        facts=SourceFacts.from_json(json.loads(repo.component(manifest, "facts"))),
        items=read_items(repo.component(manifest, "inventory")),
    )


def _live(endpoint: Endpoint) -> Side:
    """The database as it is at one instant."""
    with giving_way(endpoint, APPLICATION), connect(endpoint, application_name=APPLICATION) as session:
        session.begin()
        snapshot = str(session.one("SELECT pg_catalog.pg_export_snapshot()")[0])
        facts = read_facts(session, detect(*read_platform_names(session))).facts
        items = {(i.cls, i.identity): i.attributes for i in read_inventory(session)}
        toc = dump_definitions(endpoint, session.server_version, snapshot=snapshot, name=APPLICATION)
        session.rollback()
    return Side(name=endpoint.display, toc=toc, facts=facts, items=items)
