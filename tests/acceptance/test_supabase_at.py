"""A hosted project's change log, as the demoted role `postgres`: its own tables; the platform's by name."""

from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.support.cli import Desk
from tests.support.servers import binaries, needs
from tests.support.supabase import Standin


@pytest.mark.parametrize("version", [15, 17])
def test_project_comes_back_to_a_moment(version: int, tmp_path: Path) -> None:
    """Without any superuser's help the platform's tables are as of the base, and each is named."""
    needs(f"PostgreSQL {version}", binaries(version) is not None)
    desk = Desk(tmp_path)
    desk.run("init").expect()
    with Standin.start(version) as full, Standin.start(version) as fresh:
        full.fill_customer()
        env = {"DATABASE_URL": full.url()}
        desk.run("watch", "--once", env=env).expect()
        desk.run("backup", env=env).expect()
        with psycopg.connect(full.url(), autocommit=True) as connection:
            ours = connection.execute(
                "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname LIKE 'pgkura%' ORDER BY 1, 2"
            ).fetchall()
            assert {s for s, _ in ours} >= {"public"} and not {s for s, _ in ours} & {"auth", "storage"}
            counts = {
                (s, t): connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(s, t))).fetchone()
                for s, t in ours
            }
            assert counts["public", "payments"] == (100,)
            connection.execute("DELETE FROM public.payments")
        desk.run("watch", "--once", env=env).expect()
        found = desk.run("find", "--kind", "delete", "--json").expect().json["transactions"][0]
        told = desk.run("restore", "--at", found["restore_before"], "--to", fresh.url(), "--json").expect(3).json
        named = {f["object"] for f in told["skipped"] if f["class"] == "denied"}
        assert {'rows of "auth"."users"', "large objects"} <= named
        assert [f for f in told["skipped"] if f["class"] == "lost"] == []
        with psycopg.connect(fresh.url()) as connection:
            assert {
                (s, t): connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(s, t))).fetchone()
                for s, t in ours
            } == counts
