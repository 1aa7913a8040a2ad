"""Nothing of a tenant's runs with the backup's rights, whatever it is called and wherever it is planted."""

from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support.hostile import fill, forget, ran_as
from tests.support.servers import newest
from tests.support.snapshot_scene import make_scene

from pgkura.core.outcome import Result


def test_a_hostile_tenants_code_does_not_run(tmp_path: Path) -> None:
    host = newest()
    name = f"evil_{uuid4().hex[:12]}"
    url = fill(host, name)
    scene = make_scene(url, tmp_path / "repository")
    forget(url)
    taken = scene.take()
    assert ran_as(url) == []
    assert taken.counts["rows"] > 0
    host.drop_database(name)


def test_page_ranges_are_not_planned_where_planning_runs_a_tenants_code(tmp_path: Path) -> None:
    host = newest()
    name = f"evil_{uuid4().hex[:12]}"
    scene = make_scene(host.create_database(name), tmp_path / "repository")
    tables = ("own", "own_with_code", "tenants")
    scene.sql(
        "DROP ROLE IF EXISTS snap_tenant",
        "CREATE ROLE snap_tenant",
        "CREATE FUNCTION evil(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN "
        "IF current_setting('application_name') LIKE 'pgkura%' THEN RAISE EXCEPTION 'ran as %', current_user; END IF; "
        "RETURN i; END$$",
    )
    for table in tables:
        scene.sql(
            f"CREATE TABLE {table} (id int, v text)",
            f"ALTER TABLE {table} ALTER v SET STORAGE PLAIN",
            f"INSERT INTO {table} SELECT g, repeat('x', 7900) FROM generate_series(1, 9000) g",
        )
    scene.sql(
        "CREATE INDEX ON own_with_code ((evil(1) + id))",
        "CREATE INDEX ON own (lower(left(v, 3))) WHERE id > 10",
        "ALTER TABLE tenants OWNER TO snap_tenant",
    )
    with pytest.raises(psycopg.errors.RaiseException, match="ran as"), scene.connect() as connection:
        connection.execute("SET application_name = 'pgkura'")
        connection.execute("SELECT id FROM own_with_code WHERE ctid < '(5,0)'")
    taken = scene.take(chunk_bytes=4 * 1024 * 1024)
    assert taken.result is Result.OK
    rows = {t.name: [layer.rows for layer in t.layers] for t in scene.repo.chunk_list(taken.manifest)}
    # Every page holds one row, and a range of 4 MiB holds 512 pages; a whole table's stream is cut later.
    assert set(rows['"public"."own"'][:-1]) == {512}
    assert 512 not in rows['"public"."own_with_code"'] + rows['"public"."tenants"']
    assert all(sum(rows[f'"public"."{table}"']) == 9000 for table in tables)
    host.drop_database(name)


def test_look_alikes_of_vault_and_cron_are_not_read(tmp_path: Path) -> None:
    host = newest()
    name = f"evil_{uuid4().hex[:12]}"
    scene = make_scene(host.create_database(name), tmp_path / "repository")
    scene.sql(
        "DROP ROLE IF EXISTS snap_liar",
        "CREATE ROLE snap_liar",
        "CREATE SCHEMA vault AUTHORIZATION snap_liar",
        "CREATE SCHEMA cron AUTHORIZATION snap_liar",
        "CREATE FUNCTION vault.evil() RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'ran as %', "
        "current_user; END$$",
        "CREATE VIEW vault.decrypted_secrets AS SELECT vault.evil() AS name, '' AS description, "
        "'' AS decrypted_secret, now() AS created_at, 1 AS id",
        "CREATE VIEW cron.job AS SELECT 1 AS jobid, vault.evil() AS jobname, '' AS schedule, '' AS command, "
        "'' AS database, '' AS username, true AS active",
        "ALTER VIEW vault.decrypted_secrets OWNER TO snap_liar",
        "ALTER VIEW cron.job OWNER TO snap_liar",
    )
    assert scene.take().result is Result.OK
    host.drop_database(name)
