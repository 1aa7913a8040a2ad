"""`diff` shows every kind of change, also those that no archive holds; and nothing where nothing changed."""

from collections.abc import Iterator

import psycopg
import pytest
from tests.postgres.test_verify_mutations import CHANGES as MUTATIONS
from tests.postgres.test_verify_mutations import EVENT_TRIGGERS
from tests.support import nasty
from tests.support.cli import Desk
from tests.support.servers import server, versions

VERSION = next((v for v in versions() if v == 15), versions()[-1])

# (change, what undoes it, a line of the diff)
CHANGES = (
    (
        "ALTER ROLE nasty_app CREATEROLE",
        "ALTER ROLE nasty_app NOCREATEROLE",
        '+CREATE ROLE "nasty_app" WITH NOSUPERUSER INHERIT CREATEROLE ',
    ),
    (
        "GRANT nasty_bypass TO nasty_owner",
        "REVOKE nasty_bypass FROM nasty_owner",
        '+GRANT "nasty_bypass" TO "nasty_owner";',
    ),
    (
        "ALTER ROLE postgres SET work_mem = '9MB'",
        "ALTER ROLE postgres RESET work_mem",
        '+ALTER ROLE "postgres" SET "work_mem" TO ',
    ),
    (
        "ALTER DATABASE diffed OWNER TO nasty_bypass",
        "ALTER DATABASE diffed OWNER TO {owner}",
        '+ALTER DATABASE "diffed" OWNER TO "nasty_bypass";',
    ),
    (
        "ALTER DATABASE diffed SET work_mem = '5MB'",
        "ALTER DATABASE diffed RESET work_mem",
        '+ALTER DATABASE "diffed" SET "work_mem" TO \'5MB\';',
    ),
    (
        "GRANT CREATE ON DATABASE diffed TO nasty_writer",
        "REVOKE CREATE ON DATABASE diffed FROM nasty_writer",
        '+GRANT CREATE ON DATABASE "diffed" TO "nasty_writer";',
    ),
    (
        "ALTER LARGE OBJECT 700002 OWNER TO nasty_app",
        "ALTER LARGE OBJECT 700002 OWNER TO postgres",
        '+ALTER LARGE OBJECT 700002 OWNER TO "nasty_app";',
    ),
    (
        "REFRESH MATERIALIZED VIEW nasty.unfilled",
        "REFRESH MATERIALIZED VIEW nasty.unfilled WITH NO DATA",
        "+populated: true",
    ),
    ("ALTER ROLE nasty_app PASSWORD 'other'", "ALTER ROLE nasty_app PASSWORD '{hash}'", "+-- a password, number"),
)


@pytest.fixture(scope="module")
def diffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Desk]]:
    """The nasty database without the triggers that write at each DDL, and its snapshot."""
    home = server(VERSION)
    home.create_database("diffed")
    filled = nasty.fill(home, "diffed")
    with psycopg.connect(filled.url, autocommit=True) as connection:
        for name in EVENT_TRIGGERS:
            connection.execute(f"DROP EVENT TRIGGER IF EXISTS {name}".encode())
        connection.execute("CREATE MATERIALIZED VIEW nasty.unfilled AS SELECT 1 AS one WITH NO DATA")
    desk = Desk(tmp_path_factory.mktemp("diff"))
    desk.environment["DATABASE_URL"] = filled.url
    desk.run("init").expect()
    desk.run("backup").expect()
    yield filled.url, desk
    nasty.remove_subscriptions(filled.url)
    home.drop_database("diffed")


def test_nothing_differs_from_ones_own_snapshot(diffed: tuple[str, Desk]) -> None:
    """In either direction."""
    _, desk = diffed
    assert desk.run("diff", "latest", "database").expect().out.strip() == "no difference"
    assert desk.run("diff", "database", "latest", "--json").expect().json["changes"] == []


@pytest.mark.parametrize(("change", "undo", "line"), CHANGES, ids=[c[0][:40] for c in CHANGES])
def test_what_no_archive_holds_is_shown(diffed: tuple[str, Desk], change: str, undo: str, line: str) -> None:
    """One change, one object, as the statement that makes it."""
    url, desk = diffed
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT quote_ident(pg_get_userbyid(datdba)), rolpassword FROM pg_database, pg_authid "
            "WHERE rolname = 'nasty_app' AND datname = current_database()"
        ).fetchone()
        assert found is not None
        connection.execute(change.encode())
        try:
            text = desk.run("diff", "latest", "database").expect().out
        finally:
            connection.execute(undo.replace("{owner}", found[0]).replace("{hash}", found[1]).encode())
    assert line in text, text
    assert text.count("# ") == 1, text
    assert "SCRAM-SHA-256$" not in text


def test_no_change_of_the_catalog_goes_unseen(diffed: tuple[str, Desk]) -> None:
    """All that a proof must find of definitions, at once: as many objects are shown; undone, none is."""
    url, desk = diffed
    groups = ("catalog", "since 15") if VERSION >= 15 else ("catalog",)
    changes = [c for group in groups for c in MUTATIONS[group]]
    undo: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        for (name,) in connection.execute("SELECT quote_ident(pubname) FROM pg_publication").fetchall():
            connection.execute(f"ALTER PUBLICATION {name} SET (publish = 'insert')".encode())
        desk.run("backup").expect()
        try:
            for change in changes:
                connection.execute(change.done.encode())
                undo.insert(0, change.undone)
            shown = desk.run("diff", "latest", "database", "--json").expect().json["changes"]
        finally:
            for statement in undo:
                connection.execute(statement.encode())
    assert len(shown) >= len({c.name for c in changes}), [c["object"] for c in shown]
    assert desk.run("diff", "latest", "database", "--json").expect().json["changes"] == []
