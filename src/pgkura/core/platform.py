"""What belongs to the platform and what to the user: plain data, filled by catalog.platform."""

import re
from dataclasses import dataclass
from enum import StrEnum

# Roles of the platform that its customers may change the settings of, and those they may grant to each other's roles.
_SETTABLE = frozenset({"anon", "authenticated", "service_role", "authenticator", "postgres"})
_GRANTED = frozenset({"anon", "authenticated", "service_role"})
# Parameters that only the platform's superuser sets; a pattern that means the same to Python and PostgreSQL.
PLATFORM_SETTINGS = r"^(session_preload_libraries=|local_preload_libraries=|app[.]settings[.])"
# Predefined roles that give away the server's files and programs.
_FILE_ROLES = frozenset({"pg_read_server_files", "pg_write_server_files", "pg_execute_server_program"})


class GrantKind(StrEnum):
    """Whose a membership is: the user's, the user's where only the platform may grant it, or the platform's own."""

    USER = "user"
    RESERVED = "reserved"
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Who owns what on a hosted database.

    name             "plain" or "supabase"
    managed_schemas  schemas whose DDL the platform makes; their rows may be user state
    managed_roles    roles the platform makes; never created, altered or dropped by a restore
    owners           the managed roles that own platform objects
    service_tables   (schema, table) whose rows the platform alone writes (migration ledgers)
    """

    name: str
    managed_schemas: frozenset[str] = frozenset()
    managed_roles: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()
    service_tables: frozenset[tuple[str, str]] = frozenset()

    def is_managed_schema(self, schema: str) -> bool:
        """Whether the platform makes what lies in it."""
        return schema in self.managed_schemas

    def is_managed_role(self, role: str) -> bool:
        """Whether the platform makes this role."""
        return role in self.managed_roles

    def owns(self, schema: str, owner: str) -> bool:
        """Whether an object is the platform's: in a managed schema and owned by one of its roles.

        A user's own table inside `auth` is the user's.
        """
        return schema in self.managed_schemas and owner in self.owners

    def settings_are_users(self, role: str) -> bool:
        """Whether settings of this role may be the user's; those of reserved roles are never touched."""
        return role not in self.managed_roles or role in _SETTABLE

    def is_platform_setting(self, setting: str) -> bool:
        """Whether only the platform itself can have made this setting ("name=value" or the name alone)."""
        return self.name != "plain" and re.match(PLATFORM_SETTINGS, f"{setting}=") is not None

    def kind_of_grant(self, role: str, member: str) -> GrantKind:
        """Whose `GRANT role TO member` is."""
        if role.startswith("pg_") and member.startswith("pg_"):
            return GrantKind.PLATFORM
        if self.name == "plain":
            return GrantKind.USER
        of_platform, to_platform = self.is_managed_role(role), self.is_managed_role(member)
        if of_platform and to_platform:
            return GrantKind.USER if {role, member} <= _GRANTED else GrantKind.PLATFORM
        if of_platform:
            free = role in _GRANTED or (role.startswith("pg_") and role not in _FILE_ROLES)
        else:
            free = not to_platform or member in _SETTABLE or member.startswith("pg_")
        return GrantKind.USER if free else GrantKind.RESERVED


PLAIN = Platform(name="plain")
