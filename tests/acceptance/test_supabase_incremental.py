"""A hosted project as its role `postgres`: the second backup reads what changed, in auth too, and restores equal."""

from pathlib import Path

import psycopg
from tests.support.cli import Desk
from tests.support.servers import binaries, needs
from tests.support.supabase import Standin

VERSION = 15


def test_users_of_a_project_are_followed(tmp_path: Path) -> None:
    """No superuser, no slot, no trigger; the tables are another role's."""
    needs(f"PostgreSQL {VERSION}", binaries(VERSION) is not None)
    desk = Desk(tmp_path)
    desk.run("init").expect()
    with Standin.start(VERSION) as full, Standin.start(VERSION) as fresh:
        full.fill_customer(scale=60)
        back_up = ("backup", "--json")
        first = desk.run(*back_up, env={"DATABASE_URL": full.url()}).expect().json
        with psycopg.connect(full.admin_url, autocommit=True) as connection:
            connection.execute("UPDATE auth.users SET last_sign_in_at = now() WHERE email LIKE 'user10%'")
            connection.execute("DELETE FROM auth.identities WHERE user_id IN (SELECT id FROM auth.users LIMIT 3)")
        second = desk.run(*back_up, env={"DATABASE_URL": full.url()}).expect().json
        assert first["result"] == second["result"] == "ok"
        assert second["chunks_unchanged"] > 0.8 * second["chunks"]
        assert 0 < second["bytes_read"] < 0.3 * first["bytes_read"], (first, second)
        restored = desk.run("restore", "latest", "--to", fresh.url(), "--json").expect().json
        assert restored["result"] == "ok" and restored["proof"]["equal"] is True, restored["skipped"]
