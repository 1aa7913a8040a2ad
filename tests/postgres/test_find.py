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
