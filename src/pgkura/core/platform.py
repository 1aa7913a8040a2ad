"""What belongs to the platform and what to the user: plain data, filled by catalog.platform."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Who owns what on a hosted database.

    name             "plain" or "supabase"
    managed_schemas  schemas whose DDL the platform makes; their rows may be user state
    managed_roles    roles the platform makes; never created, altered or dropped by a restore
    service_tables   (schema, table) whose rows the platform alone writes (migration ledgers)
    """

    name: str
    managed_schemas: frozenset[str] = frozenset()
    managed_roles: frozenset[str] = frozenset()
    service_tables: frozenset[tuple[str, str]] = frozenset()


PLAIN = Platform(name="plain")
