"""Roles, memberships and the database's own settings as statements for a target. Pure.

pg_dump does not carry them. Existing roles are changed only where they differ. Of a platform's roles only the settings
that its customers may make are brought back; where there is no such platform, the roles themselves are made.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgkura.catalog.grants import grant_statements, parse_acl
from pgkura.core.facts import DatabaseFacts, MembershipFacts, RoleFacts
from pgkura.core.names import quote_ident, quote_literal
from pgkura.core.platform import GrantKind, Platform


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
_SINCE_ATTRIBUTES_OF_ONES_OWN = 160000


def role_statements(
    wanted: Iterable[RoleFacts], present: Iterable[RoleFacts], platform: Platform, may: Abilities
) -> list[Statement]:
    """CREATE or ALTER ROLE, settings and comments, for what is missing or differs. `platform` is the target's."""
    there = {r.name: r for r in present}
    statements: list[Statement] = []
    for role in wanted:
        if platform.is_managed_role(role.name):
            continue
        if not role.managed:
            statements.extend(_role(role, there.get(role.name), may))
        elif platform.name == "plain" and role.name not in there:
            statements.extend(_without_platform(role, may))
    return statements


def _without_platform(role: RoleFacts, may: Abilities) -> list[Statement]:
    """A role that a platform (or another server's first superuser) had, so that its objects have their owner again.

    Nobody logs in as one of them here: no LOGIN, no password.
    """
    own = may.version >= _SINCE_ATTRIBUTES_OF_ONES_OWN
    allowed = {"superuser": False, "replication": own and may.replication, "bypassrls": own and may.bypassrls}
    given: dict[str, Any] = {
        field: getattr(role, field) and (may.superuser or allowed.get(field, True))
        for field, _ in _ATTRIBUTES
        if field != "login"
    }
    statements = _role(replace(role, **given, login=False, password=None, settings=()), None, may)
    refused = [word for field, word in _ATTRIBUTES if getattr(role, field) and field != "login" and not given[field]]
    if refused:
        reason = f"only a superuser may give {' and '.join(refused)}"
        statements.append(Statement(object=f"role {quote_ident(role.name)}", sql="", forbidden=reason))
    return statements


def managed_settings(
    wanted: Iterable[RoleFacts], present: Iterable[RoleFacts], platform: Platform, may: Abilities, me: str = ""
) -> list[Statement]:
    """Settings and comments of roles that a platform or the server made: the user's where the target's differ.

    To be run at the end, since they may change how our own sessions behave. On a platform what the user had reset is
    reset too; elsewhere the role is also other databases' and keeps what it has.
    """
    there = {r.name: r for r in present}
    statements: list[Statement] = []
    for role in wanted:
        managed = platform.is_managed_role(role.name)
        old = there.get(role.name)
        if not (managed or role.managed) or not platform.settings_are_users(role.name):
            continue
        if old is None:
            if managed or platform.name != "plain":
                continue
            old = replace(role, settings=(), comment=role.comment)  # made by role_statements, with its comment
        free = may.superuser or may.createrole or role.name == me
        statements += _managed_settings(role, old, platform, "" if free else "this role may not change other roles")
    return statements


def _managed_settings(role: RoleFacts, old: RoleFacts, platform: Platform, forbidden: str) -> list[Statement]:
    name = quote_ident(role.name)
    new = [s for s in role.settings if s not in old.settings and not platform.is_platform_setting(s)]
    clauses = [set_clause(s) for s in new]
    if platform.name != "plain":
        names = {s.partition("=")[0] for s in role.settings}
        gone = [s.partition("=")[0] for s in old.settings if not platform.is_platform_setting(s)]
        clauses += [reset_clause(n) for n in gone if n not in names]
    statements = [
        Statement(object=f"settings of role {name}", sql=f"ALTER ROLE {name} {clause}", forbidden=forbidden)
        for clause in clauses
    ]
    if role.comment != old.comment and (role.comment or platform.name != "plain"):
        sql = f"COMMENT ON ROLE {name} IS {quote_literal(role.comment) if role.comment else 'NULL'}"
        statements.append(Statement(object=f"comment on role {name}", sql=sql, forbidden=forbidden))
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
        Statement(object=f"settings of role {name}", sql=f"ALTER ROLE {name} {set_clause(s)}", forbidden=forbidden)
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
    quoted = _parameter(name)
    if name.lower() in _LISTS:
        parts = _split_list(value)
        return f"SET {quoted} TO " + (", ".join(quote_literal(p) for p in parts) if parts else "''")
    return f"SET {quoted} TO {quote_literal(value)}"


def reset_clause(name: str) -> str:
    """`RESET name`."""
    return f"RESET {_parameter(name)}"


def _parameter(name: str) -> str:
    return ".".join(quote_ident(part) for part in name.split("."))


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


def membership_statements(
    wanted: Sequence[MembershipFacts],
    present: Iterable[MembershipFacts],
    platform: Platform,
    may: Abilities,
    me: str = "",
) -> list[Statement]:
    """GRANT role TO member, for what is missing. `platform` is the target's, `me` the role that restores there."""
    there = {_grant_key(m, may.version) for m in present}
    statements: list[Statement] = []
    for grant in wanted:
        kind = platform.kind_of_grant(grant.role, grant.member)
        if kind is GrantKind.PLATFORM or _grant_key(grant, may.version) in there or _is_implicit(grant, may, me):
            continue
        title = f"membership of {quote_ident(grant.member)} in {quote_ident(grant.role)}"
        forbidden = "" if may.superuser or may.createrole else "this role may not grant memberships"
        if kind is GrantKind.RESERVED:
            # Not even tried: a hosted project refuses to touch them, and what merely happens to allow it must not.
            forbidden = "the platform reserves one of the two roles"
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


def _is_implicit(grant: MembershipFacts, may: Abilities, me: str) -> bool:
    """What CREATE ROLE itself gives its maker since 16, and nobody can give by hand."""
    own = grant.member == me and grant.grantor != me and grant.admin
    return own and may.version >= 160000 and not may.superuser and not grant.inherit and not grant.set


def _grant_key(m: MembershipFacts, version: int) -> tuple[object, ...]:
    if version < 160000 or m.inherit is None:
        return (m.role, m.member, m.admin)
    return (m.role, m.member, m.admin, m.inherit, m.set)


def _grant_options(grant: MembershipFacts, may: Abilities) -> str:
    if may.version >= 160000 and grant.inherit is not None:
        words = (("ADMIN", grant.admin), ("INHERIT", grant.inherit), ("SET", bool(grant.set)))
        return " WITH " + ", ".join(f"{word} {'TRUE' if on else 'FALSE'}" for word, on in words)
    return " WITH ADMIN OPTION" if grant.admin else ""


def database_statements(
    wanted: DatabaseFacts, present: DatabaseFacts, platform: Platform, *, superuser: bool, me: str
) -> list[Statement]:
    """Owner, settings, per-role settings, privileges, comment and connection limit of the target database."""
    name = quote_ident(present.name)
    not_mine = "" if superuser or present.owner == me else "this role does not own the database"

    def on_database(what: str, sql: str, forbidden: str = not_mine) -> Statement:
        return Statement(object=what, sql=sql, forbidden=forbidden)

    statements: list[Statement] = []
    if wanted.owner != present.owner and platform.name == "plain":  # a platform's database is the platform's
        refused = "" if superuser else "only a superuser may give the database away"
        statements.append(
            on_database("database owner", f"ALTER DATABASE {name} OWNER TO {quote_ident(wanted.owner)}", refused)
        )
    if wanted.connection_limit != present.connection_limit:
        sql = f"ALTER DATABASE {name} CONNECTION LIMIT {wanted.connection_limit}"
        statements.append(on_database("database connection limit", sql))
    statements += [
        on_database(f"database setting {setting}", f"ALTER DATABASE {name} {clause}")
        for setting, clause in _setting_clauses(wanted.settings, present.settings, platform)
    ]
    for role in dict.fromkeys(r for r, _ in (*wanted.role_settings, *present.role_settings)):
        if not platform.settings_are_users(role):
            continue
        ours, theirs = ([s for r, s in side if r == role] for side in (wanted.role_settings, present.role_settings))
        statements += [
            on_database(
                f"setting {setting} of role {quote_ident(role)} in the database",
                f"ALTER ROLE {quote_ident(role)} IN DATABASE {name} {clause}",
                "",
            )
            for setting, clause in _setting_clauses(ours, theirs, platform)
        ]
    if privileges := _database_privileges(wanted, present, platform):
        statements.append(on_database("database privileges", ";\n".join(privileges)))
    if wanted.comment != present.comment:
        sql = f"COMMENT ON DATABASE {name} IS {quote_literal(wanted.comment) if wanted.comment else 'NULL'}"
        statements.append(on_database("database comment", sql))
    return statements


def _setting_clauses(wanted: Sequence[str], present: Sequence[str], platform: Platform) -> Iterator[tuple[str, str]]:
    """(name, clause) of what to set, and on a platform of what its user had reset."""
    names = {s.partition("=")[0] for s in wanted}
    for setting in wanted:
        if setting not in present and not platform.is_platform_setting(setting):
            yield setting.partition("=")[0], set_clause(setting)
    for setting in present if platform.name != "plain" else ():
        name = setting.partition("=")[0]
        if name not in names and not platform.is_platform_setting(name):
            yield name, reset_clause(name)


def _database_privileges(wanted: DatabaseFacts, present: DatabaseFacts, platform: Platform) -> list[str]:
    """Back to nothing, then what was there; grants to a platform's own roles are the platform's."""

    def items(facts: DatabaseFacts) -> list[str]:
        acl = effective_acl(facts.acl, facts.owner)
        return sorted(i for i in acl if parse_acl([i])[0].grantee not in platform.owners)

    ours, theirs = items(wanted), items(present)
    if owner_neutral(ours, wanted.owner) == owner_neutral(theirs, present.owner):
        return []
    target = f"DATABASE {quote_ident(present.name)}"
    grantees = dict.fromkeys(["", *(g.grantee for g in parse_acl(theirs))])
    clear = [f"REVOKE ALL ON {target} FROM {quote_ident(g) if g else 'PUBLIC'}" for g in grantees]
    return clear + grant_statements(target, ours)


def owner_neutral(items: Iterable[str], owner: str) -> frozenset[str]:
    """Privileges with the owner's name left out, so that those of two owners can be compared."""
    name = acl_name(owner)
    short = (item.removesuffix(f"/{name}") for item in items)
    return frozenset(f"/={i.removeprefix(f'{name}=')}" if i.startswith(f"{name}=") else i for i in short)


_SAFE = re.compile(r"[A-Za-z0-9_]+\Z")


def acl_name(role: str) -> str:
    """A role as aclitem prints it."""
    doubled = role.replace('"', '""')
    return role if _SAFE.match(role) else f'"{doubled}"'


def effective_acl(acl: tuple[str, ...] | None, owner: str) -> frozenset[str]:
    """A database's privileges; None stands for what PostgreSQL gives a new one (acldefault)."""
    if acl is not None:
        return frozenset(acl)
    name = acl_name(owner)
    return frozenset({f"=Tc/{name}", f"{name}=CTc/{name}"})
