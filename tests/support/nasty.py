"""The nasty database: every kind of object, every value that prints oddly, for what server and role allow.

`fill` loads sql/nasty_*.sql. What a server lacks (contrib, ICU, XML) and what a plain owner may not create is left out
and named in the result, so that a test can say what it did not cover. Contrib ships no extension with a configuration
table; extension/ holds one of our own, put into the servers that the tests unpacked for themselves.
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, LiteralString, Protocol

import psycopg
from tests.support.psql import run_sql_file, with_user

CONTRIB = ("pgcrypto", "hstore", "citext", "btree_gist", "uuid-ossp", "pg_trgm", "ltree", "postgres_fdw")
EXTENSION = Path(__file__).parent / "extension"
PARTS = Path(__file__).resolve().parents[2] / ".parts"
OWNER = "nasty_owner"
OWNER_PASSWORD = "owner-secret"
PIECES = ("nasty_types.sql", "nasty_tables.sql", "nasty_code.sql", "nasty_rights.sql")
MAJORS = (15, 16, 17, 18)

#: Kinds that only a superuser can create: absent from a fill as plain owner.
SUPERUSER_ONLY = (
    "base type and shell type", "operator class and family", "table access method", "language", "transform",
    "text search parser and template", "window function in C", "leakproof function", "aggregate over internal",
    "event trigger", "publication of all tables or of a schema", "subscription", "foreign data wrapper and its kin",
    "grants by other grantors", "objects of other owners", "default privileges of other roles",
    "per-database role settings", "custom database setting", "parameter grant",
)  # fmt: skip


class ServerLike(Protocol):
    """What `fill` asks of a server of tests.support.servers."""

    def url(self, database: str = ..., user: str = ...) -> str:
        """A connection URL."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A loaded nasty database.

    url         as the superuser
    owner_url   as the database's plain owner (role="owner") or as the superuser
    left_out    what this server or role cannot have, in words
    """

    url: str
    owner_url: str
    major: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Abilities:
    major: int
    contrib: bool
    config: bool
    icu: bool
    xml: bool


def fill(
    server: ServerLike,
    database: str,
    *,
    role: str = "superuser",
    scale: int = 1,
    big_value_mb: int = 0,
    force_rls: bool | None = None,
    bound_for: ServerLike | None = None,
) -> Filled:
    """Fill `database` on `server`, making it if it is not there; `role` is "superuser" or "owner".

    scale         multiplies the bulk rows (5,000 narrow, 20 wide ones)
    big_value_mb  adds one text value of that many megabytes
    force_rls     tables with FORCE ROW LEVEL SECURITY, which their plain owner cannot back up; default: superuser only
    bound_for     the server it will be restored into: what that one does not offer is left out
    """
    plain_owner = role == "owner"
    admin_url = server.url("postgres", "postgres")
    url = server.url(database, "postgres")
    _install_extension()
    abilities = _probe(admin_url)
    if bound_for is not None:
        abilities = _both(abilities, _probe(bound_for.url("postgres", "postgres")))
    with psycopg.connect(admin_url, autocommit=True) as connection:
        known = connection.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (database,)).fetchone()
        if known is None:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(database)))
    variables: dict[str, bool | int | str] = {
        "super": not plain_owner,
        "force_rls": (not plain_owner) if force_rls is None else force_rls,
        "contrib": abilities.contrib,
        "icu": abilities.icu,
        "xml": abilities.xml,
        "ge16": abilities.major >= 16,
        "scale": scale,
    }
    run_sql_file(url, "nasty_roles.sql", variables)
    load_url = _hand_over(url, database, abilities.major) if plain_owner else url
    pieces = [*PIECES, *(f"nasty_{n}.sql" for n in MAJORS if n <= abilities.major), "nasty_last.sql"]
    for piece in [*pieces, "nasty_config.sql"] if abilities.config else pieces:
        run_sql_file(load_url, piece, variables)
    if big_value_mb:
        _add_big_value(load_url, big_value_mb)
    return Filled(url=url, owner_url=load_url, major=abilities.major, left_out=_left_out(abilities, plain_owner))


def remove_subscriptions(url: str) -> None:
    """A database with a subscription cannot be dropped: call this first."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = ''")
        found = connection.execute(
            "SELECT subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid "
            "WHERE d.datname = pg_catalog.current_database()"
        ).fetchall()
        for (name,) in found:
            connection.execute(psycopg.sql.SQL("DROP SUBSCRIPTION {}").format(psycopg.sql.Identifier(name)))


def _probe(url: str) -> _Abilities:
    with psycopg.connect(url, autocommit=True) as connection:
        major = connection.info.server_version // 10000
        available = {row[0] for row in connection.execute("SELECT name FROM pg_catalog.pg_available_extensions")}
        icu = _works(connection, "SELECT 'a' < 'b' COLLATE \"und-x-icu\"")
        xml = _works(connection, "SELECT '<a/>'::pg_catalog.xml")
    contrib, config = available.issuperset(CONTRIB), "kura_config" in available
    return _Abilities(major=major, contrib=contrib, config=config, icu=icu, xml=xml)


def _both(source: _Abilities, target: _Abilities) -> _Abilities:
    return replace(
        source,
        contrib=source.contrib and target.contrib,
        config=source.config and target.config,
        icu=source.icu and target.icu,
        xml=source.xml and target.xml,
    )


def _install_extension() -> None:
    """Into every server the tests unpacked; one copied elsewhere before, or of the system, goes without."""
    for folder in PARTS.glob("pg*/package/native/share/postgresql/extension"):
        for file in EXTENSION.iterdir():
            there = folder / file.name
            if os.access(folder, os.W_OK) and not (there.exists() and there.read_bytes() == file.read_bytes()):
                shutil.copy(file, there)


def _works(connection: psycopg.Connection[tuple[Any, ...]], query: LiteralString) -> bool:
    try:
        connection.execute(query)
    except psycopg.DatabaseError:
        return False
    return True


def _hand_over(url: str, database: str, major: int) -> str:
    """Make the plain owner own the database (and `public`, which 15 gives to a database's owner by itself)."""
    with psycopg.connect(url, autocommit=True) as connection:
        name, owner = psycopg.sql.Identifier(database), psycopg.sql.Identifier(OWNER)
        connection.execute(psycopg.sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, owner))
        if major < 15:
            connection.execute(psycopg.sql.SQL("ALTER SCHEMA public OWNER TO {}").format(owner))
    return with_user(url, OWNER, OWNER_PASSWORD)


def _add_big_value(url: str, megabytes: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE nasty.big_value (id integer PRIMARY KEY, v text)")
        connection.execute("ALTER TABLE nasty.big_value ALTER v SET STORAGE EXTERNAL")
        connection.execute(
            "INSERT INTO nasty.big_value SELECT 1, string_agg(md5(g::text), '') FROM generate_series(1, %s) g",
            (megabytes * 1024 * 1024 // 32,),
        )


def _left_out(abilities: _Abilities, plain_owner: bool) -> tuple[str, ...]:
    found = []
    if not abilities.contrib:
        found.append("contrib: " + ", ".join(CONTRIB))
    if not abilities.config:
        found.append("an extension with configuration tables")
    if not abilities.icu:
        found.append("ICU collations")
    if not abilities.xml:
        found.append("XML values")
    found += [f"what PostgreSQL {n} added" for n in MAJORS if n > abilities.major]
    return (*found, *SUPERUSER_ONLY) if plain_owner else tuple(found)
