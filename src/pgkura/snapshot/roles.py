"""Roles as text: the history kind that no archive holds, and the beginning of the Python-free script. Pure."""

from dataclasses import replace

from pgkura.catalog.roles import Abilities, Statement, managed_settings, membership_statements, role_statements
from pgkura.core.facts import MembershipFacts, RoleFacts, SourceFacts
from pgkura.core.platform import Platform

SCRIPT_VERSION = 160000
OLD_VERSION = 150000


def statements_of_role(role: RoleFacts, platform: Platform) -> list[Statement]:
    """What makes this role from nothing, for a superuser."""
    return role_statements([role], [], platform, _all_abilities(SCRIPT_VERSION))


def settings_of_managed(role: RoleFacts, platform: Platform) -> list[Statement]:
    """What sets all that a user set on a role that the platform or the server made."""
    return managed_settings([role], [replace(role, settings=(), comment="")], platform, _all_abilities(SCRIPT_VERSION))


def statement_of_membership(grant: MembershipFacts, platform: Platform, version: int) -> str:
    """What grants it on a server of this version; '' where the platform itself does."""
    made = membership_statements([grant], [], platform, _all_abilities(version))
    return made[0].sql if made else ""


def roles_text(facts: SourceFacts, platform: Platform) -> str:
    """Canonical text of the user's roles and memberships: equal text means equal roles."""
    lines = [
        f"-- {r.name!r}\n" + _lines([*statements_of_role(r, platform), *settings_of_managed(r, platform)])
        for r in facts.roles
    ]
    grants = [statement_of_membership(m, platform, facts.server_version_num) for m in facts.memberships]
    return "".join(sorted(line for line in lines if "\n" in line.rstrip("\n"))) + "".join(
        sorted(f"{sql};\n" for sql in grants if sql)
    )


def _lines(statements: list[Statement]) -> str:
    return "".join(f"{s.sql};\n" for s in statements)


def _all_abilities(version: int) -> Abilities:
    return Abilities(superuser=True, createrole=True, replication=True, bypassrls=True, version=version)
