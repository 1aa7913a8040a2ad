"""Recognises a hosted Supabase project and knows what in it belongs to the platform.

Sources: the platform's public image (supabase/postgres migrations and expected test output) and its CLI's lists.
Hosted projects differ by age, so the lists name what may be there; nothing is assumed to be there.
"""

import re
from collections.abc import Iterable

from pgkura.core.platform import PLAIN, Platform

_SCHEMAS = frozenset({
    "auth", "storage", "realtime", "extensions", "graphql", "graphql_public", "vault", "net", "cron", "pgbouncer",
    "supabase_functions", "supabase_migrations", "pgsodium", "pgsodium_masks", "pgtle", "pgmq", "_realtime",
    "_analytics", "_supavisor", "etl", "repack", "dbdev", "tiger", "tiger_data", "topology",
})  # fmt: skip
# `extensions`, `supabase_migrations` and the like are made by the platform but may be filled by the user.
_RESERVED = re.compile(
    r"(?:anon|authenticated|authenticator|service_role|dashboard_user|pgbouncer|postgres|cli_login_.*|supabase_.*"
    r"|pgsodium_key.*|pgtle_admin|pg_.*)\Z"
)
_OWNERS = re.compile(r"(?:supabase_.*|pgbouncer|pgsodium_key.*|pgtle_admin|dashboard_user)\Z")
_SERVICE_TABLES = frozenset(
    {
        ("auth", "schema_migrations"),
        ("storage", "migrations"),
        ("realtime", "schema_migrations"),
        ("supabase_functions", "migrations"),
        ("_realtime", "schema_migrations"),
    }
)


def detect(roles: Iterable[str], schemas: Iterable[str]) -> Platform:
    """A Supabase project has the role supabase_admin and the schemas auth and storage; all else is plain."""
    names = frozenset(roles)
    present = frozenset(schemas)
    if "supabase_admin" not in names or not {"auth", "storage"} <= present:
        return PLAIN
    return Platform(
        name="supabase",
        managed_schemas=_SCHEMAS & present,
        managed_roles=frozenset(r for r in names if _RESERVED.match(r)),
        owners=frozenset(r for r in names if _OWNERS.match(r)),
        service_tables=_SERVICE_TABLES,
    )
