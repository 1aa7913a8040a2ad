"""Who did it, when, and how to get back before it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions

NEWEST = versions()[-1]


@pytest.fixture
def source() -> Iterator[str]:
    """A database to be watched."""
    yield ledger.make(server(NEWEST), "finding")
    ledger.drop_slots(server(NEWEST), "finding")


def test_an_update_without_where_is_found_and_undone(source: str, tmp_path: Path) -> None:
    """The story of the whole: the largest change, the moment before it, the rows as they were; a row's history."""
    desk = Desk(tmp_path)
    desk.run("init").expect()
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("UPDATE account SET balance = 7 WHERE id = 5")
        good = ledger.checksums(connection)
        connection.execute("UPDATE account SET balance = 0")
        connection.execute("DELETE FROM account WHERE id = 5")
        connection.execute("TRUNCATE scratch")
    desk.run("watch", "--once", env=env).expect()
    largest = desk.run("find", "--kind", "update", "--json").expect().json["transactions"]
    assert largest[0]["tables"] == {'"public"."account"': {"update": 60}}
    assert list(desk.run("find", "--json").expect().json["transactions"][0]["tables"]) == ['"public"."scratch"']
    history = desk.run("find", "--table", "account", "--where", "id=5", "--json").expect().json["transactions"]
    assert [(r["kind"], r["new"].get("balance")) for t in history for r in t["rows"]] == [
        ("update", "7"),
        ("update", "0"),
        ("delete", None),
    ]
    shown = desk.run("find", "--table", "public.account").expect().out
    assert f"restore --at '{largest[0]['restore_before']}'" in shown
    home = server(NEWEST)
    home.create_database("finding_back")
    with psycopg.connect(home.url("finding_back"), autocommit=True) as connection:
        connection.execute("ALTER DATABASE finding_back OWNER TO finding_owner")
        connection.execute("ALTER SCHEMA public OWNER TO finding_owner")
    back = home.url("finding_back", user="finding_owner")
    desk.run("restore", "--at", largest[0]["restore_before"], "--to", back).expect(3)
    with psycopg.connect(back) as connection:
        assert ledger.checksums(connection) == good
    desk.run("find", "--where", "nothing").expect(2)
    desk.run("find", "--kind", "drop").expect(2)


@pytest.mark.parametrize("version", sorted({versions()[0], NEWEST}))
def test_changes_of_definitions_are_found_where_event_triggers_tell_them(version: int, tmp_path: Path) -> None:
    """On demand only, by a role that may; they never make a change fail, and go without a trace."""
    home = server(version)
    owner = ledger.make(home, f"telling_{version}")
    admin = home.url(f"telling_{version}")
    desk = Desk(tmp_path)
    desk.run("init").expect()
    refused = desk.run("watch", "--once", "--event-triggers", env={"DATABASE_URL": owner}).expect(15)
    assert "event triggers" in refused.err
    env = {"DATABASE_URL": admin}
    try:
        desk.run("watch", "--once", "--event-triggers", env=env).expect()
        desk.run("watch", "--once", "--event-triggers", env=env).expect()
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("SET search_path = public, pg_catalog")
            connection.execute("ALTER TABLE item ADD COLUMN late int")
            connection.execute("CREATE TEMPORARY TABLE fleeting (v int)")
            connection.execute("ALTER TABLE account ALTER COLUMN note TYPE int USING length(note)")
            connection.execute("DO $$ BEGIN EXECUTE 'DROP TABLE scratch'; END $$")
            with connection.transaction(force_rollback=True):
                connection.execute("DROP TABLE auto")
        # Whatever goes wrong in the trigger is not the user's.
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(
                "DO $$ BEGIN EXECUTE (SELECT 'REVOKE ALL ON FUNCTION ' || oid::regprocedure || ' FROM PUBLIC' "
                "FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype); END $$"
            )
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("ALTER TABLE item ADD COLUMN unheard int")
        desk.run("watch", "--once", env=env).expect()
        found = desk.run("find", "--kind", "ddl", "--limit", "20", "--json").expect().json["transactions"]
        told = {name for t in found for name in t["tables"]}
        assert {"table public.item", "table public.account", "table public.scratch"} <= told
        assert not any("fleeting" in name or "auto" in name for name in told)
        assert not any("unheard" in said["query"] for t in found for said in t["ddl"])
        assert found[0]["ddl"][0]["query"].startswith("DO $$")  # a table that was dropped comes first
        assert {s["event"] for t in found for s in t["ddl"]} == {"ddl_command_end", "sql_drop", "table_rewrite"}
        (one,) = desk.run("find", "--kind", "ddl", "--table", "public.scratch", "--json").expect().json["transactions"]
        assert one["restore_before"] == f"before xid {one['xid']}"
        assert "DROP TABLE scratch" in desk.run("find", "--kind", "ddl", "--table", "scratch").expect().out
        desk.run("watch", "--once", "--no-event-triggers", env=env).expect()
        with psycopg.connect(admin) as connection:
            left = "SELECT count(*) FROM pg_event_trigger, (SELECT FROM pg_namespace WHERE nspname ~ '^pgkura') n"
            assert connection.execute(left.encode()).fetchone() == (0,)
            assert connection.execute("SELECT count(*) FROM pg_event_trigger").fetchone() == (0,)
    finally:
        ledger.drop_slots(home, f"telling_{version}")
