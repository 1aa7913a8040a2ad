"""A hosted project, as the demoted role `postgres`: backed up whole, restored into a fresh one, proven equal."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support import compare
from tests.support.cli import Desk
from tests.support.servers import binaries, needs
from tests.support.supabase import APART, Standin
from tests.support.watching import AnonWatcher


@pytest.fixture(
    params=[(15, "old", False), (16, "old", True), (17, "new", False), (18, "new", False)],
    ids=["15", "16-supautils", "17-new-grants", "18-new-grants"],
)
def projects(request: pytest.FixtureRequest) -> Iterator[tuple[Standin, Standin]]:
    """A project full of a customer's objects, and a fresh one."""
    version, grants, supautils = request.param
    needs(f"PostgreSQL {version}", binaries(version) is not None)
    with (
        Standin.start(version, supautils=supautils) as full,
        Standin.start(version, supautils=supautils, default_grants=grants) as fresh,
    ):
        full.fill_customer()
        yield full, fresh


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


def test_project_comes_back_equal(projects: tuple[Standin, Standin], desk: Desk) -> None:
    """Users, storage rows, schemas, triggers on auth, grants and revokes, views, publication, secrets, held jobs."""
    full, fresh = projects
    backup = desk.run("backup", "--json", env={"DATABASE_URL": full.url()}).expect().json
    assert backup["result"] == "ok"
    with AnonWatcher(full, fresh) as watcher:
        restored = desk.run("restore", "latest", "--to", fresh.url(), "--json").expect().json
    assert restored["result"] == "ok" and restored["proof"]["equal"] is True, restored["skipped"]
    classes = {f["class"] for f in restored["skipped"]}
    assert classes <= {"managed", "by_design"}
    compare.assert_same(full.admin_url, fresh.admin_url, ignore=APART)
    assert watcher.seen == [], "anon saw rows while the target loaded"
    assert watcher.looks > 10

    assert active_jobs(fresh) == []
    planned = desk.run("release", "--to", fresh.url(), "--json", env={"DRY_RUN": "true"}).expect().json
    assert planned["result"] == "planned" and planned["jobs"] and active_jobs(fresh) == []
    assert desk.run("release", "--to", fresh.url(), "--dry-run").expect().out.count("would be") == 1
    assert active_jobs(fresh) == [] and not list(desk.repository.glob("journal/*-release"))
    released = desk.run("release", "--to", fresh.url(), "--json").expect().json
    assert active_jobs(fresh) == active_jobs(full) != []
    assert released["result"] == "ok"
    again = desk.run("verify", "latest", "--against", fresh.url(), "--json").expect().json
    assert again["proof"]["equal"] is True


def test_what_cannot_come_back_is_named_on_14(desk: Desk) -> None:
    """14 knows no GRANT SET ON PARAMETER: here `postgres` may not switch triggers off. Said; all else is back."""
    needs("PostgreSQL 14", binaries(14) is not None)
    with Standin.start(14) as full, Standin.start(14) as fresh:
        full.fill_customer()
        assert desk.run("backup", "--json", env={"DATABASE_URL": full.url()}).expect().json["result"] == "ok"
        plan = desk.run("restore", "latest", "--to", fresh.url(), "--dry-run", "--json").expect().json
        restored = desk.run("restore", "latest", "--to", fresh.url(), "--json").expect(3).json
        assert restored["result"] == "incomplete" and restored["proof"]["equal"] is False
        denied = {f["object"] for f in restored["skipped"] if f["class"] == "denied"}
        assert {'rows of "auth"."users"', 'rows of "storage"."objects"'} <= denied
        assert denied == {f["object"] for f in plan["skipped"] if f["class"] == "denied"}, "it was known before"
        unmet = {f["object"] for f in restored["skipped"] if f["class"] == "lost"}
        assert unmet and all(o.startswith("constraint ") and "_fkey" in o for o in unmet), unmet
        rows = r"rows: \"(auth|storage)\"\.|rows: \"private\"\.\"signups\""  # a view of users
        keys = r"(materials_object_id|messages_sender|profiles_id)_fkey"
        compare.assert_same(full.admin_url, fresh.admin_url, ignore=(*APART, rows, keys))


def test_dry_run_knows_what_the_role_may_not_do(projects: tuple[Standin, Standin], desk: Desk) -> None:
    """The plan names the platform's own things before the first write, and writes nothing."""
    full, fresh = projects
    desk.run("backup", env={"DATABASE_URL": full.url()}).expect()
    before = compare.schema_dump(fresh.admin_url)
    plan = desk.run("restore", "latest", "--to", fresh.url(), "--dry-run", "--json").expect().json
    assert compare.schema_dump(fresh.admin_url) == before
    assert plan["kind"] == "Supabase project" and plan["needs_confirmation"] is False
    assert {'rows of "storage"."migrations"'} <= {f["object"] for f in plan["skipped"]}
    assert plan["stages"][0]["stage"] == "extensions" and len(plan["stages"]) == 11


def test_reserved_roles_are_named_and_never_touched(desk: Desk) -> None:
    """PostgreSQL 15 would let `postgres` do it; a hosted project would not, so it is not even tried."""
    needs("PostgreSQL 15", binaries(15) is not None)
    with Standin.start(15) as full, Standin.start(15) as fresh:
        full.fill_customer()
        with psycopg.connect(full.url(), autocommit=True) as connection:
            connection.execute("GRANT lesson_readers TO supabase_etl_admin")
            connection.execute("ALTER ROLE supabase_etl_admin SET work_mem = '9MB'")
        with psycopg.connect(fresh.admin_url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET log_statement = 'all'")
            connection.execute("SELECT pg_reload_conf()")
        desk.run("backup", env={"DATABASE_URL": full.url()}).expect()
        restored = desk.run("restore", "latest", "--to", fresh.url(), "--json").expect(3).json
        counted = {f["object"]: f["class"] for f in restored["skipped"] if f["class"] in ("lost", "denied")}
        assert counted == {'membership of "supabase_etl_admin" in "lesson_readers"': "denied"}
        listed = {f["object"]: f["class"] for f in restored["skipped"]}
        assert listed['settings of role "supabase_etl_admin"'] == "managed"
        log = fresh.cluster.log()
        assert "ALTER ROLE anon SET" in log.replace('"', "")
        touched = [
            line
            for line in log.replace('"', "").splitlines()
            if re.search(r"(ALTER|CREATE|DROP|COMMENT ON) ROLE supabase_|GRANT \w+ TO supabase_", line)
        ]
        assert touched == []


def active_jobs(project: Standin) -> list[str]:
    """Names of the jobs that would run."""
    with psycopg.connect(project.admin_url) as connection:
        return [str(r[0]) for r in connection.execute("SELECT jobname FROM cron.job WHERE active ORDER BY 1")]
