"""Through poolers: session mode works whole, others are refused before a setting of ours reaches the application."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest
from tests.support import compare, nasty
from tests.support.cli import Desk
from tests.support.pooler import Supavisor, pgbouncer
from tests.support.servers import PASSWORD, blank, newest
from tests.support.snapshot_scene import Script, Statement, make_scene
from tests.support.supabase import PASSWORD as PROJECT_PASSWORD
from tests.support.supabase import Standin

from pgkura.core.errors import SourceBusy
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import SqlError

BOUND = 2.0
GRACE = 2.0  # of a busy machine
PROJECT = "abcdefghijklmnopqrst"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


def url(port: int, database: str, user: str = "postgres", password: str = PASSWORD) -> str:
    """Through a pooler on this machine."""
    return f"postgresql://{quote(user, safe='')}:{password}@127.0.0.1:{port}/{database}"


def test_session_mode_carries_backup_restore_and_proof(desk: Desk) -> None:
    home, other = newest(), blank(newest().version)
    source = home.create_database("pooled")
    nasty.fill(home, "pooled")
    target = other.create_database("pooled")
    with pgbouncer(home, mode="session") as near, pgbouncer(other, mode="session") as far:
        doctor = desk.run("doctor", env={"DATABASE_URL": url(near, "pooled")})
        assert "session pooler" in doctor.out
        backup = desk.run("backup", "--json", env={"DATABASE_URL": url(near, "pooled")}).expect().json
        assert backup["result"] == "ok", backup["skipped"]
        restored = desk.run("restore", "latest", "--to", url(far, "pooled"), "--json").expect().json
    assert restored["result"] == "ok" and restored["proof"]["equal"] is True, restored
    compare.assert_same(source, target, ignore=[r"ALTER ROLE postgres "])  # each server's superuser has its own salt


def test_incremental_backups_through_a_session_pool_of_fifteen(desk: Desk) -> None:
    """The second one reads little, though every connection is another server process than yesterday's."""
    home = newest()
    source = home.create_database("pooled_again")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE wide AS SELECT g AS id, repeat(md5(g::text), 30) AS v FROM generate_series(1, 20000) g"
        )
        most, ended = [0], threading.Event()

        def watch() -> None:
            ask = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'pooled_again' AND pid <> pg_backend_pid()"
            while not ended.wait(0.02):
                most.append(int(connection.execute(ask).fetchall()[0][0]))

        with pgbouncer(home, mode="session", size=15) as port:
            watching = threading.Thread(target=watch)
            watching.start()
            try:
                through = {"DATABASE_URL": url(port, "pooled_again")}
                first = desk.run("backup", "--workers", "4", "--json", env=through).expect().json
                with psycopg.connect(source, autocommit=True) as other:
                    other.execute("UPDATE wide SET v = 'new' WHERE id BETWEEN 100 AND 120")
                second = desk.run("backup", "--workers", "4", "--json", env=through).expect().json
            finally:
                ended.set()
                watching.join()
    assert second["bytes_read"] < first["bytes_read"] * 0.05, (first["bytes_read"], second["bytes_read"])
    # Exporter, watcher, four holders, twice four workers, as the plan says; PgBouncer keeps what was opened once.
    assert max(most) <= 14, max(most)


@pytest.mark.parametrize(
    ("mode", "code", "says"), [("transaction", 2, "transaction mode"), ("statement", 14, "refuses transactions")]
)
def test_other_modes_are_refused_and_the_application_keeps_its_settings(
    mode: str, code: int, says: str, desk: Desk
) -> None:
    home = newest()
    source = home.create_database("shared")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    with pgbouncer(home, mode=mode) as port:
        pooled = url(port, "shared")
        with psycopg.connect(pooled, autocommit=True) as application:
            before = settings(application)
            for verb in (["backup"], ["restore", "latest", "--yes"], ["doctor"]):
                done = desk.run(*verb, env={"DATABASE_URL": pooled})
                assert says in done.out + done.err, (done.out, done.err)
                done.expect(1 if verb[0] == "doctor" else code)
            assert settings(application) == before
    assert len(desk.run("snapshots", "--json").expect().json["snapshots"]) == 1


def settings(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """What a leaked setting of ours would change for the application."""
    rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name <> 'application_name'").fetchall()
    return sorted(map(str, rows))


# -- Supavisor -------------------------------------------------------------------------------------------------


@pytest.fixture
def projects() -> Iterator[tuple[Standin, Standin]]:
    """A project full of a customer's objects, and a fresh one."""
    with Standin.start(15) as full, Standin.start(15) as fresh:
        full.fill_customer()
        yield full, fresh


def test_a_project_comes_back_through_its_session_pooler(projects: tuple[Standin, Standin], desk: Desk) -> None:
    """`postgres.<project>`, 15 connections at most, nothing but the names of user, database and application passed."""
    full, fresh = projects
    user = f"postgres.{PROJECT}"
    with Supavisor(full.cluster) as near, Supavisor(fresh.cluster) as far:
        source, target = (url(p.port, "postgres", user, PROJECT_PASSWORD) for p in (near, far))
        backup = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json
        assert backup["result"] == "ok"
        restored = desk.run("restore", "latest", "--to", target, "--json").expect().json
        assert restored["result"] == "ok" and restored["proof"]["equal"] is True, restored["skipped"]
        assert near.most <= 15 and far.most <= 15
    again = desk.run("verify", "latest", "--against", fresh.url(), "--json").expect().json
    assert again["proof"]["equal"] is True


def test_ddl_that_waits_for_pg_dump_behind_the_pooler_waits_no_longer_than_the_bound(tmp_path: Path) -> None:
    """pg_dump is told from other connections by the end of its name, which is all that the pooler lets through."""
    home = newest()
    name = "pooled_ddl"
    scene = make_scene(home.create_database(name), tmp_path / "repository")
    scene.sql("CREATE TABLE t AS SELECT 1 AS id")
    statements: list[Statement] = []
    stopped: list[psutil.Process] = []
    with Supavisor(home.cluster) as pooler, psycopg.connect(scene.url) as application:
        pooled = make_scene(url(pooler.port, name, f"postgres.{PROJECT}"), tmp_path / "pooled")

        def freeze_pg_dump() -> None:
            # It holds t and waits for n: frozen there, it keeps what it has until somebody ends its server process.
            # The reader of catalogs waits for n as well.
            waits = (
                "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND relation = 'n'::regclass"
            )
            while not scene.rows(f"{waits} AND application_name LIKE '%dump'"):
                time.sleep(0.01)
            (dump,) = [p for p in psutil.Process().children(recursive=True) if p.name() == "pg_dump"]
            dump.suspend()
            stopped.append(dump)
            application.rollback()
            statements.append(Statement(scene, "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0)"))
            statements[0].join(timeout=30)
            dump.resume()

        def hold_up_pg_dump() -> None:
            application.execute("LOCK TABLE n IN ACCESS EXCLUSIVE MODE")
            threading.Thread(target=freeze_pg_dump, daemon=True).start()

        script = Script(
            {
                "taking the snapshot": lambda: scene.sql("CREATE TABLE n AS SELECT 1 AS a"),
                "reading definitions": hold_up_pg_dump,
            }
        )
        with pytest.raises(SourceBusy):
            pooled.take(script, attempts=1, max_blocking_seconds=BOUND)
        assert stopped and statements[0].done() < BOUND + GRACE


def test_a_running_statement_is_cancelled_through_the_pooler() -> None:
    home = newest()
    with Supavisor(home.cluster) as pooler:
        endpoint = Endpoint.parse(url(pooler.port, "postgres", f"postgres.{PROJECT}"))
        with closing(connect(endpoint, application_name="pgkura test")) as session:
            assert session.pid != session._connection.info.backend_pid
            threading.Timer(0.5, session.cancel).start()
            with pytest.raises(SqlError) as caught:
                session.rows("SELECT pg_catalog.pg_sleep(60)")
            assert caught.value.sqlstate == "57014"
        assert pooler.cancelled == 1
