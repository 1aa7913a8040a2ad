"""A hostile tenant's database, and how to see afterwards whether its code ever ran as a superuser.

Each trap writes a file into the server's data directory, which works only with a superuser's rights, also inside a
read-only transaction, and tries to make its owner a superuser. The database itself is left unchanged, so that it can
still be compared after a restore.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from tests.support.nasty import ServerLike
from tests.support.psql import run_sql_file, with_user

TENANT = "hostile_tenant"
TENANT_PASSWORD = "let-me-in"
#: A file of this name in the working directory of a program means that it ran a command out of a dump.
CANARY = "hostile-canary"


@dataclass(frozen=True, slots=True)
class Ran:
    """A trap that ran as a superuser: which, and as whom."""

    what: str
    current_user: str
    session_user: str


def fill(server: ServerLike, database: str, *, event_trigger: bool = False) -> str:
    """Make the tenant's database on `server` and return its URL as superuser.

    event_trigger  also install the tenant's event trigger (which only a superuser, or a hosting platform, does)
    """
    admin_url = server.url("postgres", "postgres")
    with psycopg.connect(admin_url, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", (TENANT,)).fetchone() is None:
            connection.execute(SQL("CREATE ROLE {}").format(Identifier(TENANT)))
        connection.execute(
            SQL("ALTER ROLE {} LOGIN NOSUPERUSER PASSWORD {}").format(Identifier(TENANT), TENANT_PASSWORD)
        )
        if connection.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (database,)).fetchone() is None:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(database)))
        connection.execute(SQL("ALTER DATABASE {} OWNER TO {}").format(Identifier(database), Identifier(TENANT)))
    url = server.url(database, "postgres")
    if _major(url) < 15:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SQL("ALTER SCHEMA public OWNER TO {}").format(Identifier(TENANT)))
    run_sql_file(with_user(url, TENANT, TENANT_PASSWORD), "hostile.sql")
    if event_trigger:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET search_path = ''")
            connection.execute("CREATE EVENT TRIGGER sprung ON ddl_command_end EXECUTE FUNCTION tenant.on_ddl()")
    forget(url)
    return url


def ran_as(url: str) -> list[Ran]:
    """Every trap of any database of the server that ran as a superuser since the last `forget`; `url` is a superuser's.

    The tenant being a superuser now is the gravest of them.
    """
    found = []
    with _careful(url) as connection:
        for (text,) in connection.execute(
            "SELECT pg_catalog.pg_read_file(f) FROM pg_catalog.pg_ls_dir('.') f WHERE f ~ '^hostile-[0-9a-f]{32}$'"
        ):
            found += [Ran(*line.split("\t")) for line in str(text).splitlines()]
        stolen = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = %s AND rolsuper"
        if connection.execute(stolen, (TENANT,)).fetchone():
            found.append(Ran("the tenant is a superuser", TENANT, TENANT))
    return sorted(found, key=lambda r: (r.what, r.current_user))


def forget(url: str) -> None:
    """Remove the evidence and take the tenant's stolen rights away."""
    with _careful(url) as connection:
        row = connection.execute("SELECT pg_catalog.current_setting('data_directory')").fetchone()
        assert row is not None
        connection.execute(SQL("ALTER ROLE {} NOSUPERUSER").format(Identifier(TENANT)))
    for file in Path(row[0]).glob("hostile-*"):
        file.unlink()


def _careful(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Looking must not spring a trap: the database's own settings do not count."""
    return psycopg.connect(url, autocommit=True, options="-c search_path=pg_catalog -c row_security=off")


def _major(url: str) -> int:
    with psycopg.connect(url) as connection:
        return connection.info.server_version // 10000
