"""A snapshot of a real server: complete, of one instant, harmless to the application, and honest."""

import multiprocessing
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.support.psql import with_user
from tests.support.servers import PASSWORD, Server, newest, server, versions
from tests.support.snapshot_scene import FEW_CONNECTIONS, Scene, Script, Statement, held_transaction, make_scene

from pgkura.core.access import resolve
from pgkura.core.errors import DatabaseError, RightsError, SourceBusy
from pgkura.core.memory import sample
from pgkura.core.outcome import Finding, FindingClass, Result
from pgkura.work.pools import WorkerDied

BOUND = 2.0
GRACE = 2.0  # of a busy machine
CHANGED = "changed while the backup ran; stored as of a later instant"


@contextmanager
def _scene(host: Server, folder: Path) -> Iterator[Scene]:
    name = f"snap_{uuid4().hex[:12]}"
    made = make_scene(host.create_database(name), folder / "repository")
    made.sql(
        "CREATE TABLE t (id bigserial PRIMARY KEY, note text)",
        "INSERT INTO t (note) SELECT 'note ' || g FROM generate_series(1, 1000) g",
    )
    yield made
    assert made.leftovers() == []
    host.drop_database(name)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A new database with a table `t` of 1,000 rows and its sequence, on the newest server."""
    with _scene(newest(), tmp_path) as made:
        yield made


@pytest.fixture(params=versions())
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """The same on every version."""
    with _scene(server(request.param), tmp_path) as made:
        yield made


def _lost(taken_findings: tuple[Finding, ...]) -> dict[str, str]:
    return {f.object: f.reason for f in taken_findings if f.cls is FindingClass.LOST}


def _copy(scene: Scene, statement: str) -> list[bytes]:
    with scene.connect() as connection, connection.cursor().copy(statement.encode()) as copy:
        return b"".join(bytes(block) for block in copy).split(b"\n")[:-1]


# -- complete --------------------------------------------------------------------------------------------------


def test_rows_of_every_kind_of_table_are_stored_as_copy_writes_them(each: Scene) -> None:
    each.sql(
        "CREATE TABLE empty (a int)",
        "CREATE TABLE nothing ()",
        "INSERT INTO nothing DEFAULT VALUES",
        'CREATE TABLE "odd ""name\\ tab\t" ("a b" int, "\\" text, g int GENERATED ALWAYS AS ("a b" * 2) STORED)',
        "INSERT INTO \"odd \"\"name\\ tab\t\" VALUES (1, E'a\\tb\\n\\\\'), (2, NULL), (3, '')",
        "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
        "INSERT INTO p SELECT generate_series(0, 9)",
        "CREATE TABLE parent (a int)",
        "CREATE TABLE child () INHERITS (parent)",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO child VALUES (2)",
        "CREATE TYPE mood AS ENUM ('low', 'high')",
        "CREATE TABLE h (m mood) PARTITION BY HASH (m)",
        "CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "INSERT INTO h VALUES ('low'), ('high'), ('low')",
        "CREATE UNLOGGED TABLE u (a int)",
        "INSERT INTO u VALUES (7)",
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t",
        "SELECT lo_from_bytea(4711, decode(repeat('00ff', 300000), 'hex'))",
    )
    taken = each.take()
    assert taken.result is Result.OK
    stored = each.stored(taken)
    assert stored['"public"."t"'] == _copy(each, "COPY t TO STDOUT")
    assert stored['"public"."empty"'] == []
    assert stored['"public"."nothing"'] == [b""]
    assert stored['"public".U&"odd ""name\\005c tab\\0009"'] == [b"1\ta\\tb\\n\\\\", b"2\t\\N", b"3\t"]
    assert len(stored['"public"."p1"']) == 10
    assert '"public"."p"' not in stored
    assert (stored['"public"."parent"'], stored['"public"."child"']) == ([b"1"], [b"2"])
    assert sorted(stored['"public"."h0"'] + stored['"public"."h1"']) == [b"high", b"low", b"low"]
    assert stored['"public"."u"'] == [b"7"]
    blob = b"".join(bytes.fromhex(line.split(b"\t")[2][3:].decode()) for line in stored["blobs"])
    assert blob == b"\x00\xff" * 300000
    targets = {t.name: (t.target, t.columns) for t in each.repo.chunk_list(taken.manifest)}
    assert targets['"public"."h0"'] == ('"public"."h"', '("m")')
    assert targets['"public"."p1"'][0] == '"public"."p1"'
    assert [f.rule for f in taken.findings] == ["unlogged-not-durable"]
    assert taken.counts["tables"] == 10
    assert taken.counts["rows"] == 1000 + 1 + 3 + 10 + 2 + 3 + 1


def test_components_history_and_numbers(scene: Scene) -> None:
    first = scene.take()
    again = scene.take()
    scene.sql("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    third = scene.take()
    one, two, three = (t.manifest.components for t in (first, again, third))
    assert two["archive"] == one["archive"]
    assert three["archive"] != one["archive"]
    changed = {n for n in three if three[n].fingerprint != two[n].fingerprint}
    assert "functions" in changed
    assert not changed & {"schema", "roles", "indexes", "constraints", "views"}
    assert b"CREATE FUNCTION" in scene.repo.component(third.manifest, "functions")
    assert scene.repo.component(first.manifest, "archive").startswith(b"PGDMP")
    assert (again.counts["chunks"], again.counts["chunks_unchanged"]) == (1, 1)
    assert again.counts["bytes_stored"] < first.counts["bytes_stored"]
    told = first.as_json()
    for name in [
        "result",
        "snapshot",
        "tables",
        "rows",
        "bytes_read",
        "bytes_stored",
        "chunks",
        "chunks_unchanged",
        "seconds",
        "peak_memory_bytes",
        "skipped",
    ]:
        assert name in told
    assert told["peak_memory_bytes"] > 1_000_000
    assert [r.kind for r in scene.repo.journal()] == ["backup"] * 3


def test_large_tables_are_read_in_page_ranges_by_processes(each: Scene) -> None:
    each.sql(
        "CREATE TABLE big AS SELECT g AS id, repeat(md5(g::text), 25) AS v FROM generate_series(1, 100000) g",
        "DELETE FROM big WHERE id % 7 = 0",
    )
    before = sample()  # this test process has a past of its own
    taken = each.take(executor="processes", chunk_bytes=4 * 1024 * 1024)
    assert taken.result is Result.OK
    assert taken.counts["chunks"] > 10
    assert each.stored(taken)['"public"."big"'] == _copy(each, "COPY big TO STDOUT")
    assert before < taken.counts["peak_memory_bytes"] < before + 250_000_000


def test_units_run_on_any_executor_and_carry_no_credential(scene: Scene) -> None:
    sent: list[bytes] = []

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
            sent.append(pickle.dumps((fn, args)))
            again, arguments = pickle.loads(sent[-1])
            return super().submit(again, *arguments)

    with Elsewhere(max_workers=1) as pool:
        taken = scene.take(pool=pool)
    assert taken.result is Result.OK
    secrets = [resolve(r) for r in scene.access.references]
    assert sent
    assert not any(secret.encode() in unit or PASSWORD.encode() in unit for unit in sent for secret in secrets)


def test_two_thousand_small_tables(scene: Scene) -> None:
    with scene.connect() as connection:
        for start in range(0, 2000, 250):
            connection.execute(
                "".join(
                    f"CREATE TABLE s{i} (a int); INSERT INTO s{i} VALUES ({i});" for i in range(start, start + 250)
                ).encode()
            )
    with pytest.raises(SourceBusy, match="locks"):
        scene.take()
    taken = scene.take(lock_share=0.5)
    assert taken.result is Result.OK
    assert taken.counts["tables"] == 2001
    stored = scene.stored(taken)
    assert all(stored[f'"public"."s{i}"'] == [str(i).encode()] for i in range(2000))


def test_a_value_of_64_megabytes(scene: Scene) -> None:
    scene.sql(
        "CREATE TABLE large (v text)",
        "ALTER TABLE large ALTER v SET STORAGE EXTERNAL",
        "INSERT INTO large SELECT string_agg(md5(g::text), '') FROM generate_series(1, 2097152) g",
    )
    before = sample()
    taken = scene.take()
    (line,) = scene.stored(taken)['"public"."large"']
    assert len(line) == 64 * 1024 * 1024
    assert taken.counts["peak_memory_bytes"] < before + 500_000_000


# -- one instant, or said so -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("TRUNCATE t", 0),
        ("ALTER TABLE t ALTER note TYPE varchar(200) USING upper(note)", 1000),
        ("ALTER TABLE t ADD COLUMN more int DEFAULT 5", 1000),
        ("ALTER TABLE t RENAME note TO remark", 1000),
        ("CLUSTER t USING t_pkey", 1000),
    ],
)
def test_ddl_before_the_rows_are_read_is_let_through_and_named(scene: Scene, statement: str, rows: int) -> None:
    scene.sql("CREATE TABLE other AS SELECT generate_series(1, 10) a")
    waited: list[float] = []
    script = Script({"reading rows": lambda: waited.append(Statement(scene, statement).done())})
    taken = scene.take(script, max_blocking_seconds=BOUND, connection_share=FEW_CONNECTIONS)
    assert waited[0] < BOUND
    assert taken.result is Result.INCOMPLETE
    assert list(_lost(taken.findings)) == ['table "public"."t"']
    assert _lost(taken.findings)['table "public"."t"'].startswith(CHANGED)
    stored = scene.stored(taken)
    assert len(stored['"public"."t"']) == rows
    assert len(stored['"public"."other"']) == 10


def test_a_table_dropped_before_its_rows_are_read_is_named(each: Scene) -> None:
    script = Script({"reading rows": lambda: each.sql("DROP TABLE t")})
    taken = each.take(script, connection_share=FEW_CONNECTIONS)
    assert taken.result is Result.INCOMPLETE
    assert _lost(taken.findings) == {'table "public"."t"': "dropped while the backup ran; its rows are missing"}
    assert each.stored(taken)['"public"."t"'] == []


def test_a_statement_that_changes_nothing_of_the_rows_costs_nothing(scene: Scene) -> None:
    script = Script({"reading rows": lambda: scene.sql("ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0)")})
    taken = scene.take(script, connection_share=FEW_CONNECTIONS)
    assert taken.result is Result.OK
    assert "gave way to a statement of the application" in script.notes
    assert len(scene.stored(taken)['"public"."t"']) == 1000


def test_rows_and_tables_made_before_the_snapshot_are_in_it_and_later_ones_are_not(scene: Scene) -> None:
    script = Script(
        {
            "locking tables": lambda: scene.sql("CREATE TABLE n AS SELECT 1 AS a"),
            "reading definitions": lambda: scene.sql(
                "CREATE TABLE later AS SELECT 1 AS a", "INSERT INTO t (note) VALUES ('later')"
            ),
        }
    )
    taken = scene.take(script)
    assert taken.result is Result.OK
    stored = scene.stored(taken)
    assert stored['"public"."n"'] == [b"1"]
    assert '"public"."later"' not in stored
    assert len(stored['"public"."t"']) == 1000
    assert script.stages.count("taking the snapshot") == 2
    assert b"later" not in scene.repo.component(taken.manifest, "schema")


def _always_new(scene: Scene) -> Script:
    """A new table just before every snapshot: no attempt finds all tables locked."""
    made: list[str] = []

    def make() -> None:
        name = f"n{len(made)}"
        made.append(name)
        scene.sql(f"CREATE TABLE {name} AS SELECT generate_series(1, 5) AS a")

    return Script({"taking the snapshot": make})


def test_tables_that_nobody_locked_are_locked_late_and_are_right(scene: Scene) -> None:
    taken = scene.take(_always_new(scene), attempts=2)
    assert taken.result is Result.OK
    stored = scene.stored(taken)
    assert len(stored['"public"."n0"']) == len(stored['"public"."n1"']) == 5


@pytest.mark.parametrize("statement", ["TRUNCATE n1", "ALTER TABLE n1 ALTER a TYPE bigint"])
def test_a_table_changed_between_snapshot_and_late_lock_is_never_green(scene: Scene, statement: str) -> None:
    script = _always_new(scene)
    script.steps["reading definitions"] = lambda: scene.sql(statement)
    taken = scene.take(script, attempts=2)
    assert taken.result is Result.INCOMPLETE
    assert list(_lost(taken.findings)) == ['table "public"."n1"']


def test_what_the_application_has_locked_is_waited_for_before_the_snapshot(scene: Scene) -> None:
    with held_transaction(scene, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE; INSERT INTO t (note) VALUES ('x')") as holding:
        script = Script()
        with pytest.raises(SourceBusy, match="locked"):
            scene.take(script, attempts=1, late_lock_seconds=0.5)
        assert any('"public"."t" locked' in note for note in script.notes)
        threading.Timer(1.0, holding.commit).start()
        taken = scene.take(Script(), attempts=1)
    assert taken.result is Result.OK
    assert len(scene.stored(taken)['"public"."t"']) == 1001


def test_an_enum_label_renamed_meanwhile_is_named(scene: Scene) -> None:
    scene.sql("CREATE TYPE mood AS ENUM ('low', 'high')", "CREATE TABLE e (m mood)", "INSERT INTO e VALUES ('low')")
    taken = scene.take(Script({"reading rows": lambda: scene.sql("ALTER TYPE mood RENAME VALUE 'low' TO 'poor'")}))
    assert taken.result is Result.INCOMPLETE
    assert list(_lost(taken.findings)) == ['type "public"."mood"']


def test_sequences_are_never_below_the_rows(scene: Scene) -> None:
    script = Script({"reading rows": lambda: scene.sql("SELECT nextval('t_id_seq') FROM generate_series(1, 50)")})
    taken = scene.take(script)
    assert b'\\"t_id_seq\\"' not in scene.repo.component(taken.manifest, "facts")
    assert b'"public"."t_id_seq"\'\', 1050, true' in scene.repo.component(taken.manifest, "after.sql")


# -- harmless --------------------------------------------------------------------------------------------------


def test_ddl_in_the_middle_of_a_long_copy_waits_no_longer_than_the_bound(scene: Scene) -> None:
    scene.sql("CREATE TABLE wide AS SELECT g, repeat('x', 1000) v FROM generate_series(1, 80000) g")
    statements: list[Statement] = []

    def later() -> None:
        timer = threading.Timer(1.5, lambda: statements.append(Statement(scene, "ALTER TABLE wide ADD COLUMN z int")))
        timer.start()

    script, rate = Script({"reading rows": later}), 12_000_000
    taken = scene.take(script, bytes_per_second=rate, max_blocking_seconds=BOUND, connection_share=FEW_CONNECTIONS)
    assert statements[0].done() < BOUND + GRACE
    assert taken.result is Result.INCOMPLETE
    assert len(scene.stored(taken)['"public"."wide"']) == 80000


def test_ddl_that_waits_for_pg_dump_waits_no_longer_than_the_bound(scene: Scene) -> None:
    scene.sql("CREATE TABLE zz AS SELECT 1 AS a")
    statements: list[Statement] = []
    with psycopg.connect(scene.url) as application:

        def hold_up_pg_dump() -> None:
            # pg_dump locks t, then waits for n, which nobody locked for it; the ALTER waits for pg_dump.
            application.execute("LOCK TABLE n IN ACCESS EXCLUSIVE MODE")
            threading.Timer(
                0.3, lambda: statements.append(Statement(scene, "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0)"))
            ).start()

        script = Script(
            {
                "taking the snapshot": lambda: scene.sql("CREATE TABLE n AS SELECT 1 AS a"),
                "reading definitions": hold_up_pg_dump,
            }
        )
        with pytest.raises(SourceBusy):
            scene.take(script, attempts=1, max_blocking_seconds=BOUND)
        application.rollback()
    assert statements[0].done() < BOUND + GRACE
    assert scene.take().result is Result.OK


def test_connections_and_locks_stay_within_their_shares(scene: Scene) -> None:
    scene.sql(*(f"CREATE TABLE c{i} (a int)" for i in range(30)))
    seen: list[tuple[int, int]] = []

    def look() -> None:
        ((connections, locks),) = scene.rows(
            "SELECT count(DISTINCT a.pid), count(*) FROM pg_stat_activity a JOIN pg_locks l USING (pid) "
            "WHERE a.application_name LIKE 'pgkura%'"
        )
        seen.append((connections, locks))

    steps = dict.fromkeys(("taking the snapshot", "reading definitions", "reading rows", "finishing"), look)
    scene.take(Script(steps))
    assert all(connections <= 25 and locks <= 1600 for connections, locks in seen)


def test_too_few_free_connections_are_refused(scene: Scene) -> None:
    with pytest.raises(SourceBusy, match="connections are free"):
        scene.take(connection_share=0.01)


def test_a_role_subject_to_policies_is_refused_before_the_first_byte(scene: Scene) -> None:
    scene.sql(
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "DROP ROLE IF EXISTS snap_reader",
        "CREATE ROLE snap_reader LOGIN PASSWORD 'x'",
        "GRANT pg_read_all_data TO snap_reader",
    )
    url = with_user(scene.url, "snap_reader", "x")
    script = Script()
    with pytest.raises(RightsError, match="1 table") as caught:
        scene.take(script, url=url)
    assert '"public"."t"' in caught.value.detail
    assert script.stages == ["looking at the database"]
    assert scene.repo.manifest_ids() == []
    scene.sql("ALTER ROLE snap_reader BYPASSRLS")
    assert len(scene.stored(scene.take(url=url))['"public"."t"']) == 1000
    scene.sql("DROP OWNED BY snap_reader", "DROP ROLE snap_reader")


def test_what_the_role_cannot_read_is_named_and_can_be_waived(scene: Scene) -> None:
    scene.sql(
        "DROP ROLE IF EXISTS snap_plain",
        "CREATE ROLE snap_plain LOGIN PASSWORD 'x'",
        "CREATE TABLE open (a int)",
        "INSERT INTO open VALUES (1)",
        "GRANT SELECT ON open TO snap_plain",
        "CREATE SEQUENCE hidden",
        "SELECT lo_create(815)",
    )
    url = with_user(scene.url, "snap_plain", "x")
    taken = scene.take(url=url)
    assert taken.result is Result.INCOMPLETE
    denied = {f.object for f in taken.findings if f.cls is FindingClass.DENIED}
    assert {'table "public"."t"', 'sequence "public"."hidden"', "large object 815"} <= denied
    assert scene.stored(taken)['"public"."open"'] == [b"1"]
    waived = scene.take(url=url, accepted=tuple(denied))
    assert waived.result is Result.OK
    assert set(waived.accepted) == denied
    scene.sql("DROP OWNED BY snap_plain", "DROP ROLE snap_plain")


# -- clean failures --------------------------------------------------------------------------------------------


def test_a_holder_cut_off_fails_the_run(scene: Scene) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgkura % holder'"
    with pytest.raises(DatabaseError, match="locks was cut"):
        scene.take(Script({"reading rows": lambda: scene.sql(cut)}))
    assert scene.repo.manifest_ids() == []


def test_a_watcher_cut_off_stops_the_run(scene: Scene) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgkura % watcher'"

    def step() -> None:
        scene.sql(cut)
        time.sleep(1.0)

    with pytest.raises(DatabaseError, match="watches"):
        scene.take(Script({"reading rows": step}))
    assert scene.repo.manifest_ids() == []


def test_an_exception_anywhere_leaves_nothing_behind(scene: Scene) -> None:
    class Broken(Exception):
        pass

    def fail() -> None:
        raise Broken

    for stage in ("looking", "locking", "taking", "reading definitions", "reading rows", "finishing"):
        with pytest.raises(Broken):
            scene.take(Script({stage: fail}))
    assert scene.repo.manifest_ids() == []
    assert scene.leftovers() == []
    assert scene.take().result is Result.OK


def test_a_lost_worker_process_is_a_clean_failure(scene: Scene) -> None:
    scene.sql("CREATE TABLE wide AS SELECT g, repeat('x', 1000) v FROM generate_series(1, 80000) g")

    def kill() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    time.sleep(1.0)
                    child.kill()
                    return
            time.sleep(0.05)

    script = Script({"reading rows": lambda: threading.Thread(target=kill, daemon=True).start()})
    with pytest.raises(WorkerDied):
        scene.take(script, executor="processes", bytes_per_second=1_000_000)
    assert scene.repo.manifest_ids() == []
