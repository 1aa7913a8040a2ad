"""A stand-in of a hosted Supabase project on plain PostgreSQL, and a customer's learning platform in it.

Built by the recipe in words of its docs: bootstrap superuser supabase_admin, a demoted `postgres`, services that own
their schemas, platform event triggers, default privileges, look-alikes of vault, cron and net. It differs from hosted:

* stricter: without the supautils hook, policies and DROP TRIGGER on managed tables, event triggers, FOR ALL TABLES
  publications, foreign data wrappers and BYPASSRLS / REPLICATION attributes all fail. `supautils=True` gives
  `postgres` membership in the services' roles, as older projects have, so that policies on managed tables work.
* looser: on 15, CREATEROLE may alter the platform's roles (closed since 16); set_config and start-up options may set
  session_replication_role (hosted lets only the SET statement pass).
* vault, cron and net are plain schemas, so pg_dump shows their DDL; cron takes the session's user for the caller.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Self
from urllib.parse import quote

import psycopg
from tests.support.cluster import Cluster, start_cluster
from tests.support.psql import FixtureError, run_sql_file
from tests.support.servers import binaries, needs

PASSWORD = "stand-in"
STEPS = ("roles", "auth", "storage", "realtime", "platform", "demote")
SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "5",
    "max_wal_senders": "10",
    "max_slot_wal_keep_size": "4096",
    "max_connections": "60",
    "statement_timeout": "120000",
    "jit": "off",
}

#: What two projects can never share: service passwords, the vault's own key and ids, migration times, job numbers.
APART = (
    r"roles\n.*ALTER ROLE (postgres|authenticator|pgbouncer|supabase_\w+) WITH .* PASSWORD ",
    r"_keystream",
    r"rows: \"storage\".\"migrations\"",
    r"rows: \"vault\".\"secrets\"",
    r"rows: \"cron\".\"job\"",
    r"Owner: supabase_admin",
)

#: Roles of the customer, with the password of those that log in.
CUSTOMER_ROLES = {"lesson_worker": "worker-secret", "lesson_readers": "", "報告 reader": "report-secret"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standin:
    """A running stand-in; stop it, or use it as a context manager."""

    cluster: Cluster
    version: int
    supautils: bool

    @classmethod
    def start(
        cls,
        version: int = 15,
        *,
        supautils: bool = False,
        default_grants: str = "old",
        today: date | None = None,
    ) -> Self:
        """A fresh project: "old" default privileges expose new tables of `public` to anon, "new" ones do not."""
        if default_grants not in ("old", "new"):
            raise FixtureError(f"default_grants: {default_grants}")
        home = binaries(version)
        needs(f"PostgreSQL {version}", home is not None)
        assert home is not None
        cluster = start_cluster(home, superuser="supabase_admin", password=PASSWORD, settings=SETTINGS)
        made = cls(cluster=cluster, version=version, supautils=supautils)
        variables: dict[str, bool | int | str] = {
            "password": PASSWORD,
            "contrib": made._has_contrib(),
            "old_grants": default_grants == "old",
            "today": str(today or datetime.now(UTC).date()),
            "root_key": secrets.token_hex(16),
            "owner_rights": supautils,
            "ge15": version >= 15,
            "ge16": version >= 16,
            "ge17": version >= 17,
        }
        for step in STEPS:
            run_sql_file(made.admin_url, f"supabase_{step}.sql", variables)
        return made

    def url(self, user: str = "postgres", password: str = PASSWORD, *, role: str = "") -> str:
        """The project's database, as `postgres` by default; `role` is set at the start of the session."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        options = f"?options={quote(f'-c role={role}')}" if role else ""
        return f"postgresql://{login}@127.0.0.1:{self.cluster.port}/postgres{options}"

    @property
    def admin_url(self) -> str:
        """As supabase_admin, the superuser no customer has: for looking, never for the product."""
        return self.url("supabase_admin")

    def api_url(self, role: str = "anon") -> str:
        """As the data API comes in: authenticator, then SET ROLE anon, authenticated or service_role."""
        return self.url("authenticator", role=role)

    def fill_customer(self, scale: int = 1) -> None:
        """Load the customer's platform, as `postgres`."""
        fill_customer(self.url(), scale)

    def stop(self) -> None:
        """Stop the server and remove its files."""
        self.cluster.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def _has_contrib(self) -> bool:
        with psycopg.connect(self.admin_url) as connection:
            known = connection.execute(
                "SELECT count(*) FROM pg_available_extensions "
                "WHERE name IN ('pgcrypto', 'uuid-ossp', 'pg_stat_statements')"
            ).fetchone()
        return known == (3,)


def fill_customer(url: str, scale: int = 1) -> None:
    """A learning platform with every kind of user state a hosted project holds, made by the role of `url`."""
    with psycopg.connect(url) as connection:
        owns = connection.execute("SELECT pg_has_role(current_user, 'supabase_storage_admin', 'USAGE')").fetchone()
        major = connection.info.server_version // 10000
    variables: dict[str, bool | int | str] = {
        "scale": scale,
        "owner_rights": owns == (True,),
        "ge15": major >= 15,
        "ge16": major >= 16,
    }
    run_sql_file(url, "supabase_customer.sql", variables)
