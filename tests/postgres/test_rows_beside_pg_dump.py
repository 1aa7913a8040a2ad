"""Rows are read while pg_dump still writes definitions: when it gives way, nothing of that snapshot is in the next."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg.pq import TransactionStatus
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, Script, make_scene

from pgkura.core.errors import SourceBusy
from pgkura.core.outcome import Result
from pgkura.programs.pgtools import find_client
from pgkura.snapshot.taken import Taken


@dataclass(slots=True)
class AtFirstRows(Script):
    """Does something, once, when the first rows are in the repository."""

    files: list[Path] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    scene: Scene | None = None
    seen: int = 0

    def advance(self, amount: int) -> None:
        """Called when a unit is done."""
        if self.stages[-1] != "reading rows" or not amount:
            return
        self.seen += 1
        if self.seen == 1 and self.scene is not None:
            self.scene.sql(*self.statements)
            for file in self.files:
                file.touch()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Two tables that each transaction changes together, in several units each."""
    host, name = newest(), f"beside_{uuid4().hex[:12]}"
    made = make_scene(host.create_database(name), tmp_path / "repository")
    for table in ("a", "b"):
        made.sql(
            f"CREATE TABLE {table} (id int PRIMARY KEY, version int, filling text)",
            f"INSERT INTO {table} SELECT g, 1, repeat('x', 900) FROM generate_series(1, 9000) g",
        )
    yield made
    assert made.leftovers() == []
    host.drop_database(name)


@pytest.fixture
def late_pg_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real pg_dump, which ends only when rows have been read; `failures` of its runs then fail."""
    real = find_client("pg_dump", newest().version)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "pg_dump").write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && exec {real.path} "$@"
{real.path} "$@" || exit 1
tries=0
until [ -e {tmp_path}/rows-read ]; do sleep 0.05; tries=$((tries + 1)); [ $tries -lt 600 ] || exit 7; done
if [ $(cat {tmp_path}/failures) -gt 0 ]; then
  echo $(($(cat {tmp_path}/failures) - 1)) > {tmp_path}/failures
  echo 'pg_dump: error: could not open relation with OID 1' >&2; exit 1
fi
"""
    )
    (folder / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PGKURA_PG_BIN", str(folder))
    (tmp_path / "failures").write_text("0")
    return tmp_path


def _script(scene: Scene, folder: Path) -> AtFirstRows:
    return AtFirstRows(
        scene=scene,
        files=[folder / "rows-read"],
        statements=["BEGIN; UPDATE a SET version = 2; UPDATE b SET version = 2; DELETE FROM a WHERE id > 8000; COMMIT"],
    )


def _versions(lines: list[bytes]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for line in lines:
        version = line.split(b"\t")[1]
        found[version] = found.get(version, 0) + 1
    return found


def _stored(scene: Scene, taken: Taken) -> list[dict[bytes, int]]:
    """Of table a, then of b."""
    return [_versions(lines) for _, lines in sorted(scene.stored(taken).items())]


def test_rows_do_not_wait_for_pg_dump(scene: Scene, late_pg_dump: Path) -> None:
    """pg_dump waits for rows here: a backup that waited for it first would never end."""
    script = _script(scene, late_pg_dump)
    taken = scene.take(script, range_pages=128)
    assert taken.result is Result.OK
    assert script.stages.count("reading rows") == 1
    assert _stored(scene, taken) == [{b"1": 9000}, {b"1": 9000}]


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_when_it_gives_way_everything_is_read_again(scene: Scene, late_pg_dump: Path, executor: str) -> None:
    """At one later instant; what was read before counts neither once more nor instead."""
    (late_pg_dump / "failures").write_text("1")
    script = _script(scene, late_pg_dump)
    taken = scene.take(script, range_pages=128, executor=executor)
    assert taken.result is Result.OK
    assert script.stages.count("reading rows") == 2
    assert any("taking a new snapshot" in note for note in script.notes)
    assert _stored(scene, taken) == [{b"2": 8000}, {b"2": 9000}]
    again = scene.take()
    assert again.result is Result.OK and again.counts["rows"] == 17_000


def test_when_it_always_gives_way_nothing_is_a_snapshot(scene: Scene, late_pg_dump: Path) -> None:
    """Said as it is, and before anything was written that names a snapshot."""
    (late_pg_dump / "failures").write_text("9")
    with pytest.raises(SourceBusy, match="no quiet moment in 3 attempts"):
        scene.take(_script(scene, late_pg_dump))
    assert scene.repo.manifest_ids() == []


def test_when_the_catalogs_cannot_be_read_everything_is_read_again(scene: Scene) -> None:
    """A view that the application is altering: the text of one that reads it is asked for while rows are read."""
    scene.sql("CREATE VIEW v AS SELECT count(*) AS n FROM a", "CREATE VIEW above AS SELECT n FROM v")
    application = scene.connect()
    application.autocommit = False

    def alter() -> None:
        if not application.closed and application.info.transaction_status == TransactionStatus.IDLE:
            application.execute("ALTER VIEW v SET (security_barrier)")
            application.execute("UPDATE a SET version = 2")
            application.execute("UPDATE b SET version = 2")

    def commit_at_second() -> None:
        if script.stages.count("taking the snapshot") == 2:
            application.commit()
            application.close()

    script = Script({"reading definitions": alter, "taking the snapshot": commit_at_second})
    taken = scene.take(script, range_pages=128)
    assert taken.result is Result.OK
    assert script.stages.count("reading rows") == 2
    assert any("keeps a table locked" in note for note in script.notes)
    assert _stored(scene, taken) == [{b"2": 9000}, {b"2": 9000}]
