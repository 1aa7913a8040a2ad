"""The hosted account is gone: its snapshot goes into a plain PostgreSQL, and everything is there."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support import compare
from tests.support.cli import Desk, command
from tests.support.cluster import start_cluster
from tests.support.psql import client, with_database, with_user
from tests.support.servers import PASSWORD, SETTINGS, binaries, needs
from tests.support.supabase import CUSTOMER_ROLES, Standin

# New ids by design; the platform's logins may not log in; the superuser here is another one, and extensions are his.
APART = (
    r"Type: ACL; Schema: extensions; Owner: (postgres|supabase_admin)",
    r"rows: \"vault\".\"secrets\"",
    r"rows: \"cron\".\"job\"",
    r"roles\n.*ALTER ROLE (postgres|authenticator|pgbouncer|supabase_\w+) WITH ",
    r"roles\n.* GRANTED BY (supabase_admin|postgres);",
    r"roles\n.*GRANT SET ON PARAMETER \w+ TO postgres;",
)
MEMBERS = "SELECT roleid::regrole::text, member::regrole::text, admin_option FROM pg_auth_members ORDER BY 1, 2"


@pytest.fixture(params=[14, 15, 18])
def full(request: pytest.FixtureRequest) -> Iterator[Standin]:
    """A hosted project."""
    needs(f"PostgreSQL {request.param}", binaries(request.param) is not None)
    with Standin.start(request.param) as project:
        project.fill_customer()
        yield project


@pytest.fixture
def plain(full: Standin) -> Iterator[str]:
    """The URL of a new database on a server of the same version that has never seen a platform."""
    home = binaries(full.version)
    assert home is not None
    cluster = start_cluster(home, superuser="postgres", password=PASSWORD, settings=SETTINGS)
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{cluster.port}/rescued"
    try:
        with psycopg.connect(with_database(url, "postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE rescued TEMPLATE template0")
        yield url
    finally:
        cluster.stop()


@pytest.fixture
def desk(tmp_path: Path, full: Standin) -> Desk:
    """A desk with a snapshot of the project."""
    made = Desk(tmp_path)
    made.run("init").expect()
    made.run("backup", env={"DATABASE_URL": full.url()}).expect()
    return made


def test_into_a_plain_database_as_superuser(full: Standin, plain: str, desk: Desk) -> None:
    """Users, storage rows, policies, roles, grants, secrets; jobs held; nobody can log in as the platform."""
    restored = desk.run("restore", "latest", "--to", plain, "--json").expect().json
    assert restored["result"] == "ok" and restored["proof"]["equal"] is True, restored["skipped"]
    listed = {(f["object"], f.get("rule")) for f in restored["skipped"] if f["class"] == "by_design"}
    assert ('role "supabase_auth_admin"', "platform-login") in listed
    same_but_for_the_platform(full, plain)
    with psycopg.connect(plain, autocommit=True) as connection:
        logins = connection.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin ORDER BY 1").fetchall()
        assert {r for (r,) in logins} == {"postgres"} | {r for r, password in CUSTOMER_ROLES.items() if password}
        hashes = connection.execute("SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL").fetchall()
        assert {r for (r,) in hashes} == {r for (r,) in logins}
        assert connection.execute("SELECT count(*) FROM cron.job WHERE active").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM auth.identities").fetchone() == (30,)
        secrets = connection.execute("SELECT decrypted_secret FROM vault.decrypted_secrets ORDER BY 1").fetchall()
        assert secrets == [("hook",), ('sk_live_日本語 "quoted"',), ("without a name",)]
        connection.execute("SET ROLE anon")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT note FROM public.payments")
        assert connection.execute("SELECT count(*) > 0 FROM public.lesson_slots").fetchone() == (True,)


def test_by_the_repositorys_own_script(full: Standin, plain: str, desk: Desk) -> None:
    """restore.sh makes the roles too; vault and cron rows come as they were."""
    clients = {"PATH": f"{client('pg_restore', full.version).parent}:{desk.environment['PATH']}"}
    script = ["bash", str(desk.repository / "restore.sh"), str(desk.identity), plain]
    done = command(script, desk.environment | clients).expect()
    assert done.out.splitlines()[-1].startswith("done: ")
    same_but_for_the_platform(full, plain)


def test_its_own_backup_is_a_plain_one(plain: str, desk: Desk) -> None:
    """What was rescued is backed up and restored like any other database."""
    desk.run("restore", "latest", "--to", plain).expect()
    desk.run("backup", env={"DATABASE_URL": plain}).expect()
    with psycopg.connect(with_database(plain, "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE again TEMPLATE template0")
    restored = desk.run("restore", "latest", "--to", with_database(plain, "again"), "--json").expect().json
    assert restored["proof"]["equal"] is True
    compare.assert_same(plain, with_database(plain, "again"), ignore=APART)


def same_but_for_the_platform(full: Standin, plain: str) -> None:
    """The independent comparison, and memberships whoever granted them."""
    compare.assert_same(full.admin_url, plain, ignore=APART)
    with psycopg.connect(full.admin_url) as ours, psycopg.connect(plain) as theirs:
        assert ours.execute(MEMBERS).fetchall() == theirs.execute(MEMBERS).fetchall()


def test_as_an_owner_who_may_make_roles(plain: str, desk: Desk) -> None:
    """The roles are made; what only a superuser may do is named, and all rows of the user's schemas are there."""
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("CREATE ROLE rescuer LOGIN CREATEROLE PASSWORD 'rescuer'")
        connection.execute("ALTER DATABASE rescued OWNER TO rescuer")
    url = with_user(plain, "rescuer", "rescuer")
    restored = desk.run("restore", "latest", "--to", url, "--json").expect(3).json
    named = {f["object"]: f for f in restored["skipped"] if f["class"] == "denied"}
    assert "only a superuser may give SUPERUSER" in named['role "supabase_admin"']["reason"]
    with psycopg.connect(plain) as connection:
        roles = {r for (r,) in connection.execute("SELECT rolname FROM pg_roles")}
        assert {"anon", "authenticated", "service_role", "supabase_auth_admin", "lesson_worker"} <= roles
        assert connection.execute("SELECT count(*) FROM public.reservations").fetchone() == (500,)
        assert connection.execute("SELECT count(*) FROM auth.users").fetchone() == (30,)
