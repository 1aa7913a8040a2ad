"""Roles, memberships and the database's own settings as statements for a target. Pure.

pg_dump does not carry them. Existing roles are changed only where they differ; roles of the platform never.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgkura.catalog.grants import grant_statements
from pgkura.core.facts import DatabaseFacts, MembershipFacts, RoleFacts
from pgkura.core.names import quote_ident, quote_literal
from pgkura.core.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """SQL that serves one named object; `forbidden` says in advance why this role may not run it."""

    object: str
    sql: str
    forbidden: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What the restoring role may do with roles."""

    superuser: bool
    createrole: bool
    replication: bool
    bypassrls: bool
    version: int


_ATTRIBUTES = (
    ("superuser", "SUPERUSER"),
    ("inherit", "INHERIT"),
    ("createrole", "CREATEROLE"),
    ("createdb", "CREATEDB"),
    ("login", "LOGIN"),
    ("replication", "REPLICATION"),
    ("bypassrls", "BYPASSRLS"),
)
# Attributes that only a superuser may even name (PostgreSQL ≤ 15; later ones ask for the attribute itself).
_SUPERUSER_ONLY = ("superuser", "replication", "bypassrls")


def role_statements(
    wanted: Iterable[RoleFacts], present: Iterable[RoleFacts], platform: Platform, may: Abilities
) -> list[Statement]:
    """CREATE or ALTER ROLE, settings and comments, for what is missing or differs."""
    there = {r.name: r for r in present}
    statements: list[Statement] = []
    for role in wanted:
        if role.managed or platform.is_managed_role(role.name):
            continue
        statements.extend(_role(role, there.get(role.name), may))
    return statements


def _role(role: RoleFacts, old: RoleFacts | None, may: Abilities) -> list[Statement]:
    name = quote_ident(role.name)
    title = f"role {name}"
    forbidden = "" if may.superuser or may.createrole else "this role may not create roles"
    options = _options(role, old, may)
    statements = []
    if old is None:
        statements.append(
            Statement(object=title, sql=f"CREATE ROLE {name} WITH {' '.join(options)}", forbidden=forbidden)
        )
    elif options:
        statements.append(
            Statement(object=title, sql=f"ALTER ROLE {name} WITH {' '.join(options)}", forbidden=forbidden)
        )
    old_settings = set(old.settings) if old else set()
    statements.extend(
        Statement(object=f"setting of role {name}", sql=f"ALTER ROLE {name} {set_clause(s)}", forbidden=forbidden)
        for s in role.settings
        if s not in old_settings
    )
    if role.comment and (old is None or old.comment != role.comment):
        sql = f"COMMENT ON ROLE {name} IS {quote_literal(role.comment)}"
        statements.append(Statement(object=f"comment on role {name}", sql=sql, forbidden=forbidden))
    if role.password and (old is None or old.password != role.password):
        # A statement of its own: where hashes may not be set, the role itself is still made.
        sql = f"ALTER ROLE {name} PASSWORD {quote_literal(role.password)}"
        statements.append(Statement(object=f"password of role {name}", sql=sql, forbidden=forbidden))
    return statements


def _options(role: RoleFacts, old: RoleFacts | None, may: Abilities) -> list[str]:
    options = []
    for field, word in _ATTRIBUTES:
        value = getattr(role, field)
        if old is not None and getattr(old, field) == value:
            continue
        if field in _SUPERUSER_ONLY and not may.superuser and not value:
            continue  # the default anyway; even its negative form needs a superuser
        options.append(word if value else f"NO{word}")
    if role.connection_limit != (old.connection_limit if old else -1):
        options.append(f"CONNECTION LIMIT {role.connection_limit}")
    if role.valid_until != (old.valid_until if old else ""):
        options.append(f"VALID UNTIL {quote_literal(role.valid_until or 'infinity')}")
    return options


def set_clause(setting: str) -> str:
    """`SET name TO value` for a stored "name=value"; list-valued settings keep their elements."""
    name, _, value = setting.partition("=")
    quoted = ".".join(quote_ident(part) for part in name.split("."))
    if name.lower() in _LISTS:
        parts = _split_list(value)
        return f"SET {quoted} TO " + (", ".join(quote_literal(p) for p in parts) if parts else "''")
    return f"SET {quoted} TO {quote_literal(value)}"


# GUC_LIST_QUOTE settings are stored already quoted (PostgreSQL source, variable_is_guc_list_quote).
_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)


_ELEMENT = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*))\s*(?:,|$)')


def _split_list(value: str) -> list[str]:
    """The elements of a stored identifier list such as `"$user", public`."""
    parts = []
    place = 0
    while place < len(value):
        found = _ELEMENT.match(value, place)
        if found is None or found.end() == place:
            return [value]
        parts.append(found[1].replace('""', '"') if found[1] is not None else found[2].strip())
        place = found.end()
    return parts


# The platform's roles that customers may grant to roles of their own.
_OPEN_ROLES = frozenset({"anon", "authenticated", "service_role"})


def membership_statements(
    wanted: Sequence[MembershipFacts],
    present: Iterable[MembershipFacts],
    platform: Platform,
    may: Abilities,
) -> list[Statement]:
    """GRANT role TO member, for what is missing."""
    there = {_grant_key(m, may.version) for m in present}
    statements: list[Statement] = []
    for grant in wanted:
        managed = platform.is_managed_role(grant.member) or grant.member.startswith("pg_")
        if managed or _grant_key(grant, may.version) in there:
            continue
        title = f"membership of {quote_ident(grant.member)} in {quote_ident(grant.role)}"
        forbidden = "" if may.superuser or may.createrole else "this role may not grant memberships"
        reserved = platform.is_managed_role(grant.role) and grant.role not in _OPEN_ROLES
        if reserved and not may.superuser:
            forbidden = "memberships in this role are reserved by the platform"
        by = (
            f" GRANTED BY {quote_ident(grant.grantor)}"
            if may.superuser and grant.grantor and may.version >= 160000
            else ""
        )
        statements.append(
            Statement(
                object=title,
                sql=f"GRANT {quote_ident(grant.role)} TO {quote_ident(grant.member)}{_grant_options(grant, may)}{by}",
                forbidden=forbidden,
            )
        )
    return statements


def _grant_key(m: MembershipFacts, version: int) -> tuple[object, ...]:
    if version < 160000 or m.inherit is None:
        return (m.role, m.member, m.admin)
    return (m.role, m.member, m.admin, m.inherit, m.set)


def _grant_options(grant: MembershipFacts, may: Abilities) -> str:
    if may.version >= 160000 and grant.inherit is not None:
        words = (("ADMIN", grant.admin), ("INHERIT", grant.inherit), ("SET", bool(grant.set)))
        return " WITH " + ", ".join(f"{word} {'TRUE' if on else 'FALSE'}" for word, on in words)
    return " WITH ADMIN OPTION" if grant.admin else ""


def database_statements(wanted: DatabaseFacts, present: DatabaseFacts, *, superuser: bool, me: str) -> list[Statement]:
    """Owner, settings, per-role settings, comment and connection limit of the target database."""
    name = quote_ident(present.name)
    statements: list[Statement] = []
    if wanted.owner != present.owner:
        statements.append(
            Statement(
                object="database owner",
                sql=f"ALTER DATABASE {name} OWNER TO {quote_ident(wanted.owner)}",
                forbidden="" if superuser else "only a superuser may give the database away",
            )
        )
    owner = superuser or present.owner == me
    not_mine = "" if owner else "this role does not own the database"
    if wanted.connection_limit != present.connection_limit:
        statements.append(
            Statement(
                object="database connection limit",
                sql=f"ALTER DATABASE {name} CONNECTION LIMIT {wanted.connection_limit}",
                forbidden=not_mine,
            )
        )
    statements.extend(
        Statement(
            object=f"database setting {s.partition('=')[0]}",
            sql=f"ALTER DATABASE {name} {set_clause(s)}",
            forbidden=not_mine,
        )
        for s in wanted.settings
        if s not in present.settings
    )
    statements.extend(
        Statement(
            object=f"setting {s.partition('=')[0]} of role {quote_ident(role)} in the database",
            sql=f"ALTER ROLE {quote_ident(role)} IN DATABASE {name} {set_clause(s)}",
        )
        for role, s in wanted.role_settings
        if (role, s) not in present.role_settings
    )
    if wanted.acl is not None and (present.acl is None or set(wanted.acl) != set(present.acl)):
        # Back to nothing, then what was there; the owner's own item is part of the list.
        clear = [f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"]
        sql = clear + grant_statements(f"DATABASE {name}", wanted.acl)
        statements.append(
            Statement(object="database privileges", sql=";\n".join(sql), forbidden="" if owner else not_mine)
        )
    if wanted.comment != present.comment:
        statements.append(
            Statement(
                object="database comment",
                sql=f"COMMENT ON DATABASE {name} IS {quote_literal(wanted.comment)}",
                forbidden=not_mine,
            )
        )
    return statements
