"""What belongs to the platform and what to the user: plain data, filled by catalog.platform."""

from dataclasses import dataclass


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


PLAIN = Platform(name="plain")
