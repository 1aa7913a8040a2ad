"""A table that was altered while it was backed up comes back in the columns that are stored, and is not green."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.support.servers import Server, newest, server, versions
from tests.support.snapshot_scene import FEW_CONNECTIONS, Scene, Script, make_scene

from pgkura.core.access import hold
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.operations.restore import RestoreResult, execute_restore, plan_restore
from pgkura.postgres.endpoint import Endpoint
from pgkura.snapshot.taken import Taken
from pgkura.work.pools import Crew

TABLE = "CREATE TABLE t (id int PRIMARY KEY, note text DEFAULT 'made up', more text, body text)"
ROWS = (
    r"INSERT INTO t SELECT g, 'note ' || g, E'a\tb\nc\\' || g, repeat(md5(g::text), 9) FROM generate_series(1, 3000) g"
)
ALTERS = {
    "renamed": "ALTER TABLE t RENAME note TO remark",
    "dropped": "ALTER TABLE t DROP note",
    "another type": "ALTER TABLE t ALTER note DROP DEFAULT, ALTER note TYPE bytea USING note::bytea",
}
LEFT = "SELECT id, more, body FROM t ORDER BY id"
NOTE = 'column "public"."t"."note"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What is backed up, and an empty database."""

    source: Scene
    target: Scene

    def altered(self, statement: str, **options: Any) -> Taken:
        """A backup that is at its rows when the application alters the table."""
        script = Script({"reading rows": lambda: self.source.sql(statement)})
        return self.source.take(script, connection_share=FEW_CONNECTIONS, **options)

    def restore(self, taken: Taken, kind: Any = "threads", parallel: int = 2) -> RestoreResult:
        """With its proof."""
        planned = plan_restore(
            self.source.repo, taken.manifest.id, Endpoint.parse(self.target.url), parallel=parallel, progress=Silent()
        )
        return execute_restore(planned, progress=Silent(), access=self.target.access, crew=Crew(kind=kind))


@contextmanager
def _pair(home: Server, folder: Path) -> Iterator[Pair]:
    """A table of 3,000 rows, analyzed: large enough for binary rows where everything is small."""
    name = f"columns_{uuid4().hex[:8]}"
    source = make_scene(home.create_database(name), folder / "repository")
    source.sql(TABLE, ROWS, "CREATE TABLE other AS SELECT 1 AS a", "VACUUM ANALYZE")
    url = home.create_database(f"{name}_back")
    access = replace(source.access, database=hold(f"target-{name}", url), host_key="", identity=source.identity)
    yield Pair(source=source, target=Scene(url=url, repo=source.repo, access=access, identity=source.identity))
    home.drop_database(name)
    home.drop_database(f"{name}_back")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """On the newest server."""
    with _pair(newest(), tmp_path) as made:
        yield made


@pytest.fixture(params=versions())
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """On every version."""
    with _pair(server(request.param), tmp_path) as made:
        yield made


def test_a_partitioned_table_that_was_let_go_has_no_rows_to_compare(pair: Pair) -> None:
    """Its lock gave way to a statement; what it had was never more than a name."""
    pair.source.sql(
        "CREATE TABLE p (k int, note text) PARTITION BY LIST (k)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        "INSERT INTO p VALUES (1, 'a')",
    )
    taken = pair.altered("ALTER TABLE p ADD CHECK (k > 0)")
    assert taken.result is Result.OK
    result = pair.restore(taken)
    assert result.result is Result.OK and pair.target.rows("TABLE p") == [(1, "a")]
