"""The stand-in of a hosted project is as strict as the facts say, and naive tools fail on it as they do on hosted."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support import compare
from tests.support.psql import client, run_program
from tests.support.servers import versions
from tests.support.supabase import CUSTOMER_ROLES, Standin

VERSIONS = [v for v in (15, 17) if v in versions()] or versions()[-1:]

#: What the demoted postgres is denied, with the server's words.
DENIED = {
    "INSERT INTO auth.schema_migrations VALUES ('x')": "permission denied for table schema_migrations",
    "DELETE FROM storage.migrations": "permission denied for table migrations",
    "COPY storage.buckets_vectors FROM stdin": "permission denied for table buckets_vectors",
    "COPY storage.vector_indexes FROM stdin": "permission denied for table vector_indexes",
    "INSERT INTO realtime.schema_migrations VALUES (1)": "permission denied for table schema_migrations",
    "DELETE FROM storage.objects": "Direct deletion from storage tables is not allowed",
    "DELETE FROM storage.buckets": "Direct deletion from storage tables is not allowed",
    "INSERT INTO vault.secrets (secret) VALUES ('x')": "permission denied for table secrets",
    "SELECT vault._crypto_aead_det_noncegen()": "permission denied for function _crypto_aead_det_noncegen",
    "INSERT INTO cron.job (schedule, command) VALUES ('* * * * *', 'x')": "permission denied for table job",
    "CREATE TABLE auth.mine ()": "permission denied for schema auth",
    "CREATE FUNCTION storage.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'": "permission denied for schema storage",
    "ALTER TABLE auth.users ADD COLUMN mine integer": "must be owner of table users",
    "CREATE INDEX ON auth.users (email)": "must be owner of table users",
    "ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created": "must be owner of",
    "COMMENT ON TRIGGER on_auth_user_created ON auth.users IS 'x'": "must be owner of",
    "DROP TRIGGER on_auth_user_created ON auth.users": "must be owner of",
    "CREATE POLICY mine ON storage.objects USING (true)": "must be owner of table objects",
    "ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin GRANT SELECT ON TABLES TO anon": "",
    "CREATE PUBLICATION everything FOR ALL TABLES": "must be superuser to create FOR ALL TABLES publication",
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION extensions.pgrst_ddl_watch()": "permission denied",
    "ALTER EVENT TRIGGER pgrst_ddl_watch DISABLE": "must be owner of event trigger",
    "DROP EXTENSION plpgsql": "must be owner of extension plpgsql",
    "ALTER ROLE postgres SUPERUSER": "",
    "ALTER ROLE supabase_admin NOSUPERUSER": "",
    "ALTER DATABASE postgres SET app.x = 'y'": "permission denied to set parameter",
    "ALTER SYSTEM SET work_mem = '1GB'": "",
    "COPY auth.users TO '/tmp/x'": "",
    "SELECT pg_switch_wal()": "permission denied for function pg_switch_wal",
    "CREATE ROLE mine SUPERUSER": "",
}
ALLOWED = (
    "SELECT count(*) FROM auth.users",
    "SELECT decrypted_secret FROM vault.decrypted_secrets",
    "SELECT rolpassword FROM pg_authid WHERE rolname = 'lesson_worker' AND rolpassword LIKE 'SCRAM-SHA-256$%'",
    "SELECT * FROM storage.migrations",
    "SET session_replication_role = replica; TRUNCATE auth.users CASCADE",
    "INSERT INTO storage.s3_multipart_uploads (id, upload_signature, bucket_id, key, version) "
    "VALUES ('1', 's', 'avatars', 'k', 'v')",
    "CREATE TRIGGER second AFTER DELETE ON auth.users EXECUTE FUNCTION public.touch()",
    "CREATE TRIGGER second AFTER DELETE ON realtime.messages EXECUTE FUNCTION public.touch()",
    "SELECT cron.alter_job((SELECT max(jobid) FROM cron.job), active := true)",
    "DELETE FROM vault.secrets",
    "SET storage.allow_delete_query = 'true'; DELETE FROM public.materials; DELETE FROM storage.objects",
    "ALTER ROLE lesson_worker PASSWORD 'another'",
    "SELECT setval('auth.refresh_tokens_id_seq', 5000)",
    "ALTER PUBLICATION supabase_realtime DROP TABLE public.messages",
)


@pytest.fixture(scope="module", params=VERSIONS)
def project(request: pytest.FixtureRequest) -> Iterator[Standin]:
    """A project full of a customer's objects."""
    with Standin.start(request.param) as made:
        made.fill_customer()
        yield made


@pytest.mark.parametrize("statement", DENIED)
def test_postgres_is_denied(statement: str, project: Standin) -> None:
    """As on hosted without the hook: the words of the refusal are those users report."""
    with (
        psycopg.connect(project.url(), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege) as refused,
    ):
        if statement.startswith("COPY") and "stdin" in statement:
            with connection.cursor().copy(statement.encode()):
                pass
        else:
            connection.execute(statement.encode())
    assert DENIED[statement] in str(refused.value)


@pytest.mark.parametrize("statement", ALLOWED)
def test_postgres_may(statement: str, project: Standin) -> None:
    """What works on hosted works here; rolled back."""
    with psycopg.connect(project.url()) as connection:
        cursor = connection.execute(statement.encode())
        while cursor.nextset():
            pass
        assert cursor.description is None or cursor.fetchall()
        connection.rollback()


def test_replication_is_logical_only(project: Standin) -> None:
    """No line of pg_hba.conf lets a physical replication connection in; a logical slot can be made."""
    url = project.url()
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba.conf entry for replication connection"):
        psycopg.connect(url + "?replication=true")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('kura_try', 'pgoutput')")
        connection.execute("SELECT pg_drop_replication_slot('kura_try')")


def test_what_the_api_sees(project: Standin) -> None:
    """anon reads slots, cannot read the revoked table, and sees no row where RLS has no policy for it."""
    with psycopg.connect(project.api_url("anon"), autocommit=True) as anon:
        assert anon.execute("SELECT count(*) FROM public.lesson_slots").fetchone() == (100,)
        assert anon.execute("SELECT count(*) FROM public.reservations").fetchone() == (0,)
        for table in ("public.payments", "public.mentor_totals", "auth.users", "vault.secrets"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                anon.execute(f"SELECT * FROM {table}".encode())
    with psycopg.connect(project.api_url("authenticated"), autocommit=True) as user:
        user.execute(
            "SELECT set_config('request.jwt.claims', json_build_object('sub', md5('user 2')::uuid)::text, false)"
        )
        assert user.execute("SELECT count(*) FROM public.profiles").fetchone() == (1,)
        user.execute("UPDATE public.profiles SET display_name = display_name")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            user.execute("UPDATE public.profiles SET is_mentor = true")


def test_default_grants_old_and_new() -> None:
    """A new table of `public` is open to anon in an older project and closed in a new one."""
    for kind, open_to_anon in (("old", True), ("new", False)):
        with Standin.start(VERSIONS[-1], default_grants=kind) as project, psycopg.connect(project.url()) as connection:
            connection.execute("CREATE TABLE public.fresh ()")
            found = connection.execute("SELECT has_table_privilege('anon', 'public.fresh', 'SELECT')").fetchone()
            assert found == (open_to_anon,)


def test_with_the_rights_of_supautils() -> None:
    """Policies on managed tables can be made and are part of the customer's state."""
    with Standin.start(VERSIONS[-1], supautils=True) as project:
        project.fill_customer()
        with psycopg.connect(project.url()) as connection:
            found = connection.execute("SELECT count(*) FROM pg_policies WHERE schemaname IN ('storage', 'realtime')")
            assert found.fetchone() == (3,)


def test_two_fresh_projects_are_the_same() -> None:
    """So every difference after a restore is the restore's. Vault keys and the times of migrations differ."""
    with Standin.start(VERSIONS[-1]) as one, Standin.start(VERSIONS[-1]) as two:
        sections = [s for s in compare.SECTIONS if s != "roles"]
        compare.assert_same(
            one.admin_url, two.admin_url, sections=sections, ignore=["_keystream", "rows: .*migrations"]
        )
        assert compare.differences(one.admin_url, two.admin_url, sections=["roles"]), "passwords have their own salts"


def test_a_secret_of_one_project_is_noise_in_another(project: Standin) -> None:
    """Copying the ciphertext does not bring a vault secret over; create_secret does, under a new id."""
    with Standin.start(project.version) as other:
        with psycopg.connect(project.url()) as connection:
            rows = connection.execute("SELECT id, secret, nonce FROM vault.secrets LIMIT 1").fetchall()
        with psycopg.connect(other.admin_url, autocommit=True) as connection:
            connection.execute("INSERT INTO vault.secrets (id, secret, nonce) VALUES (%s, %s, %s)", rows[0])
            with pytest.raises(psycopg.errors.RaiseException, match="invalid ciphertext"):
                connection.execute("SELECT decrypted_secret FROM vault.decrypted_secrets")


def test_naive_restore_fails_as_reported(project: Standin, tmp_path: Path) -> None:
    """pg_dump | pg_restore as postgres into a fresh project: hundreds of errors, and identities stay empty."""
    archive = str(tmp_path / "archive")
    run_program([str(client("pg_dump", project.version)), "-Fc", "-f", archive, "-d", project.url()])
    with Standin.start(project.version) as fresh:
        restore = [str(client("pg_restore", project.version)), "-d", fresh.url(), archive]
        done = run_program(restore, expect_ok=False)
        errors = done.stderr.count("ERROR:")
        assert done.returncode == 1 and errors > 400, errors
        for message in (
            "must be owner of table", "grant options cannot be granted back to your own grantor",
            "permission denied for schema", "permission denied to create event trigger", "already exists",
            'violates foreign key constraint "identities_user_id_fkey"',
        ):  # fmt: skip
            assert message in done.stderr, message
        source, target = compare.checksums(project.admin_url), compare.checksums(fresh.admin_url)
        assert target['"auth"."users"'] == source['"auth"."users"']
        for lost in ("identities", "sessions", "refresh_tokens"):
            table = f'"auth"."{lost}"'
            assert source[table].count > 0 and target[table].count == 0
        assert target['"vault"."secrets"'].count == target['"cron"."job"'].count == 0


def test_customer_roles_can_log_in(project: Standin) -> None:
    """Their passwords are real: a restore that lost them would be seen."""
    for role, password in CUSTOMER_ROLES.items():
        if password:
            with psycopg.connect(project.url(role, password)) as connection:
                assert connection.execute("SELECT current_user").fetchone() == (role,)
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(project.url(role, "wrong"))
