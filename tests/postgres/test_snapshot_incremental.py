"""What a second backup reads, keeps and drops; each is compared with what a plain reader saw."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from tests.support.servers import server, versions
from tests.support.snapshot_scene import Scene, Script, make_scene

from pgkura.core.errors import Interrupted
from pgkura.core.names import QualifiedName
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.lists import TableData
from pgkura.snapshot.options import Options
from pgkura.snapshot.statements import counts_statement
from pgkura.snapshot.take import take as take_
from pgkura.snapshot.taken import Taken
from pgkura.snapshot.units import Piece

SMALL = {"range_pages": 16, "small_bytes": 8192, "chunk_bytes": 65536}
TABLES = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE wide (id int PRIMARY KEY, mood mood, body text);
CREATE TABLE texts (id int, tags text[], body text);
CREATE TABLE tiny (id int);
CREATE TABLE named (id int, what regclass);
INSERT INTO wide SELECT g, 'good', repeat(md5(g::text), 10) FROM generate_series(1, 4000) g;
INSERT INTO texts SELECT g, ARRAY['a', E'b\tc'], repeat(md5(g::text), 10) FROM generate_series(1, 2000) g;
INSERT INTO tiny SELECT g FROM generate_series(1, 10) g;
INSERT INTO named VALUES (1, 'wide');
"""


@pytest.fixture(params=sorted({versions()[0], versions()[-1]}))
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A database of a few kinds of tables, on the oldest and the newest version."""
    name = f"incremental_{uuid4().hex[:8]}"
    home = server(request.param)
    made = make_scene(home.create_database(name), tmp_path / "repository")
    made.sql(TABLES, "VACUUM ANALYZE")
    yield made
    home.drop_database(name)


def take(scene: Scene, script: Script | None = None, **options: Any) -> Taken:
    """A backup with small ranges."""
    return scene.take(script, **{**SMALL, **options})


def same(scene: Scene, taken: Taken) -> None:
    """What is stored is what COPY of now says, in any order."""
    with scene.connect() as connection:
        connection.execute("SET search_path = ''")
        for table in scene.repo.chunk_list(taken.manifest):
            want = rows_of(connection, table)
            have = sorted(stored_rows(scene, table))
            assert have == want, table.name
            assert table.rows == len(want)


def rows_of(connection: psycopg.Connection[tuple[Any, ...]], table: TableData) -> list[bytes]:
    """Each row as COPY gives it."""
    form = " WITH (FORMAT binary)" if table.binary else ""
    with connection.cursor().copy(f"COPY {table.name} {table.columns} TO STDOUT{form}".encode()) as copy:
        rows = [bytes(row) for row in copy]
    if table.binary:
        rows = [] if len(rows) == 1 else [rows[0][19:], *rows[1:-1]]
    return sorted(rows)


def stored_rows(scene: Scene, table: TableData) -> Iterator[bytes]:
    """Each row of a table's layers."""
    for layer in table.layers:
        data = b"".join(scene.repo.read_rows(layer))
        ends = np.cumsum(scene.repo.read_sizes(layer)).tolist() if table.binary else newlines(data)
        for start, end in zip([0, *ends], ends, strict=False):
            yield data[start:end]


def newlines(data: bytes) -> list[int]:
    """The place after each."""
    return [i + 1 for i, byte in enumerate(data) if byte == 10]


def test_nothing_changed_reads_nothing(scene: Scene) -> None:
    """But for tables whose values may print differently while no tuple changes."""
    first, second = take(scene), take(scene)
    assert second.counts["chunks_unchanged"] == second.counts["chunks"] == first.counts["chunks"]
    assert second.counts["bytes_read"] < 100 < first.counts["bytes_read"]
    same(scene, second)


def test_where_no_transaction_ended_nothing_is_counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where one has, everything is."""
    asked: list[int] = []

    def counted(pieces: Sequence[Piece], ages: Sequence[int], *, name: QualifiedName | None = None) -> str:
        asked.append(len(pieces))
        return counts_statement(pieces, ages, name=name)

    monkeypatch.setattr("pgkura.snapshot.following.counts_statement", counted)
    for _ in range(20):
        first = take(scene)
        asked.clear()
        second = take(scene)
        xmin, xmax, running = first.manifest.snapshot.split(":")
        if xmin == xmax and not running and second.manifest.snapshot == first.manifest.snapshot:
            break
        time.sleep(0.5)  # the server's own housekeeping
    else:
        raise AssertionError("this server is never at rest")
    assert not asked
    assert second.counts["chunks_unchanged"] == second.counts["chunks"]
    same(scene, second)
    scene.sql("INSERT INTO tiny VALUES (77)")
    same(scene, take(scene))
    assert sum(asked) > 10


def test_a_transaction_younger_than_all_that_have_ended(scene: Scene) -> None:
    """A snapshot does not list it as running; what it commits is found all the same."""
    take(scene)
    with scene.connect() as application:
        application.execute("BEGIN")
        application.execute("UPDATE wide SET body = 'late' WHERE id % 50 = 0")
        application.execute("DELETE FROM texts WHERE id % 50 = 0")
        application.execute("INSERT INTO tiny VALUES (78)")
        same(scene, take(scene))
        application.execute("COMMIT")
    same(scene, take(scene))
    with scene.connect() as application:
        application.execute("BEGIN")
        application.execute("UPDATE wide SET body = 'never' WHERE id % 50 = 0")
        same(scene, take(scene))
        application.execute("ROLLBACK")
    same(scene, take(scene))


def test_changes_of_every_kind(scene: Scene) -> None:
    """Inserts, updates and deletes, again and again, with VACUUM giving places to other rows."""
    take(scene)
    for step in range(4):
        scene.sql(
            f"UPDATE wide SET mood = 'bad' WHERE id % 97 = {step}",
            f"DELETE FROM wide WHERE id % 89 = {step}",
            f"INSERT INTO wide SELECT {10000 + step * 100} + g, NULL, 'new' FROM generate_series(1, 50) g",
            f"UPDATE texts SET body = '' WHERE id = {step * 500 + 1}",
            f"DELETE FROM texts WHERE id BETWEEN {step * 100 + 2} AND {step * 100 + 4}",
            "VACUUM wide" if step % 2 else "SELECT 1",
            f"INSERT INTO tiny VALUES ({step})",
        )
        taken = take(scene)
        same(scene, taken)
        assert 0 < taken.counts["bytes_read"] < 600_000, "less than a whole reading"
        assert taken.counts["chunks_unchanged"] > 0
    assert any(x.drops for t in scene.repo.chunk_list(taken.manifest) for x in t.layers)
    assert {t.name: t.binary for t in scene.repo.chunk_list(taken.manifest)}['"public"."wide"']


def test_many_new_rows_in_one_range(scene: Scene) -> None:
    """They are as many chunks as they need, and what was there is not stored again."""
    take(scene, range_pages=2048)
    for columns in ("wide (id, body)", "texts (id, body)"):
        scene.sql(f"INSERT INTO {columns} SELECT 10000 + g, repeat(md5(g::text), 9) FROM generate_series(1, 20000) g")
    scene.sql("DELETE FROM wide WHERE id < 10")
    taken = take(scene, range_pages=2048)
    same(scene, taken)
    for table in scene.repo.chunk_list(taken.manifest):
        assert max((layer.chunk.length for layer in table.layers), default=0) < 2_500_000
    assert taken.counts["chunks_unchanged"] > 5
    scene.sql("DELETE FROM wide WHERE id % 100 = 0", "DELETE FROM texts WHERE id % 100 = 0")
    same(scene, take(scene, range_pages=2048))


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'",
        "ALTER TABLE wide ADD COLUMN more int DEFAULT 7",
        "ALTER TABLE wide DROP COLUMN body",
        "ALTER TABLE wide ALTER COLUMN id TYPE bigint",
        "VACUUM FULL wide",
        "CLUSTER wide USING wide_pkey",
        "TRUNCATE wide",
        "ALTER TABLE wide RENAME TO old; CREATE TABLE wide (LIKE old); INSERT INTO wide SELECT * FROM old LIMIT 3900",
        "ALTER TABLE named RENAME TO other; ALTER TABLE wide RENAME TO renamed",
    ],
)
def test_what_tuple_identity_cannot_know(scene: Scene, change: str) -> None:
    """The key excludes it: read whole, and equal."""
    take(scene)
    scene.sql(*change.split("; "))
    same(scene, take(scene))


def test_a_row_written_under_a_savepoint_of_an_open_transaction(scene: Scene) -> None:
    """Its xid is no top-level one: the snapshot taken meanwhile does not list it as running."""
    with scene.connect() as application:
        application.execute("BEGIN")
        application.execute("SAVEPOINT a")
        application.execute("INSERT INTO wide VALUES (-1, NULL, 'under a savepoint')")
        application.execute("RELEASE a")
        application.execute("UPDATE wide SET body = 'updated' WHERE id = 1")
        scene.sql("INSERT INTO tiny VALUES (5)")
        same(scene, take(scene))
        application.execute("COMMIT")
    taken = take(scene)
    assert 0 < taken.counts["bytes_read"] < 300_000
    same(scene, taken)


def test_full_reads_everything_and_the_next_goes_on(scene: Scene) -> None:
    """--full, then a small one."""
    take(scene)
    whole = take(scene, full=True)
    assert whole.counts["bytes_read"] > 1_000_000
    scene.sql("DELETE FROM wide WHERE id = 7")
    after = take(scene)
    assert 0 < after.counts["bytes_read"] < 300_000
    same(scene, after)


def test_a_shrunk_table_is_not_mistaken(scene: Scene) -> None:
    """Its last range takes over the pages of others; what is remembered of one must not stand for both."""
    take(scene)
    scene.sql("DELETE FROM wide WHERE ctid >= '(20,0)'", "VACUUM wide")
    same(scene, take(scene))
    scene.sql("INSERT INTO wide SELECT g, 'bad', 'x' FROM generate_series(100001, 100400) g")
    same(scene, take(scene))


class Cut(Script):
    """Ends the run after some units."""

    def __init__(self, stop: Stop, units: int) -> None:
        super().__init__()
        self.stop = stop
        self.left = units

    def advance(self, amount: int) -> None:
        """One unit more."""
        if "reading rows" in self.stages:
            self.left -= 1
            if self.left == 0:
                self.stop.request()


def cut_short(scene: Scene, units: int, **options: Any) -> None:
    """A backup that is stopped in the middle of its rows, after it left what it had read.

    It leaves nothing while the server has not flushed its log up to the snapshot: others write on this server too.
    """
    chosen = Options(**{"executor": "threads", **SMALL, "checkpoint_seconds": 0.0, **options})
    for _ in range(20):
        stop = Stop()
        with pytest.raises(Interrupted):
            take_(Endpoint.parse(scene.url), scene.repo, chosen, Cut(stop, units), access=scene.access, stop=stop)
        if list(scene.repo.storage.list("state/partial-")):
            return
        time.sleep(0.25)
    pytest.fail("a backup cut short left nothing")


def test_a_backup_cut_short_is_gone_on_with(scene: Scene) -> None:
    """What it stored is not stored again, what it read is not read again; changes since then are in."""
    scene.sql(*(f"CREATE TABLE more_{i} AS SELECT * FROM wide" for i in range(4)))
    whole = take(scene, full=True)
    scene.sql(
        "TRUNCATE wide", *(f"UPDATE more_{i} SET id = -id" for i in range(4)), "INSERT INTO wide SELECT * FROM more_1"
    )
    cut_short(scene, 4, workers=1)
    assert len(scene.repo.manifest_ids()) == 1, "no snapshot came of it"
    scene.sql("UPDATE more_0 SET body = 'since' WHERE id > -20", "DELETE FROM wide WHERE id % 50 = 0")
    script = Script()
    after = take(scene, script)
    assert any("cut short" in note for note in script.notes)
    assert 0 < after.counts["bytes_read"] < 0.8 * whole.counts["bytes_read"]
    same(scene, after)
    again = take(scene, script := Script())
    assert not any("cut short" in note for note in script.notes), "a whole state is newer"
    same(scene, again)


def test_a_lost_state_costs_one_full_read(scene: Scene) -> None:
    """Nothing else."""
    take(scene)
    for stored in list(scene.repo.storage.list("state/")):
        scene.repo.storage.delete(stored.key)
    taken = take(scene)
    assert taken.counts["bytes_read"] > 1_000_000
    same(scene, taken)
