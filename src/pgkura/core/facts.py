"""What a snapshot knows about a database beyond its DDL. Filled by the postgres room, stored by the
repository as canonical JSON, read by snapshot, restore and verify. Every class has explicit
`as_json` / `from_json` with the field names of docs/formats/repository.md; unknown fields are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from pgkura.core.errors import Tampered
from pgkura.core.names import QualifiedName, quote_ident


class _Record:
    """Flat JSON for frozen dataclasses whose fields are JSON values or tuples of records."""

    __slots__ = ()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values only. By hand: `asdict` copies each value, which took a second for 10,000 tables."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError for missing or unknown fields."""
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        unknown = set(data) - names
        if unknown:
            raise TypeError(f"unknown fields in {cls.__name__}: {sorted(unknown)}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(_Record):
    """One live column. `type` is `format_type()` text with an empty search_path.

    `generated` is '' (ordinary), 's' (stored) or 'v' (virtual); `identity` '', 'a' (ALWAYS) or 'd'.
    """

    attnum: int
    name: str
    type: str
    not_null: bool
    generated: str = ""
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts(_Record):
    """A relation that may hold rows (relkind r, p, m) or a foreign table (f).

    oid, filenode  valid on the source only, under the snapshot that read them
    columns        live columns in attnum order
    bytes          heap + TOAST bytes on disk, an estimate of the work
    pages          heap pages, for page-range chunks
    managed        owned by the platform (Supabase's auth, storage …): data only, never DDL
    config_of      extension whose configuration table this is, else ''
    config_where   its `extcondition` ('' = all rows), a WHERE clause given by the extension
    load_root      "schema\\0name" of the partition root that must take the rows ('' = the table itself):
                   hash partitions whose key hashes differently on another server
    populated      for matviews
    """

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    persistence: str
    access_method: str
    filenode: int
    pages: int
    bytes: int
    columns: tuple[Column, ...]
    row_security: bool = False
    force_row_security: bool = False
    is_partition: bool = False
    populated: bool = True
    managed: bool = False
    config_of: str = ""
    config_where: str = ""
    load_root: str = ""
    readable: bool = True

    @property
    def qname(self) -> QualifiedName:
        """Schema and name."""
        return QualifiedName(self.schema, self.name)

    @property
    def data_columns(self) -> tuple[Column, ...]:
        """The columns that travel: all but generated ones."""
        return tuple(c for c in self.columns if not c.generated)

    @property
    def column_list(self) -> str:
        """`("a", "b")` of the data columns; '' for a table without columns."""
        names = ", ".join(quote_ident(c.name) for c in self.data_columns)
        return f"({names})" if names else ""

    def listed(self, column_list: str) -> tuple[Column, ...]:
        """The data columns that a chunk list names: not all where the table was altered while it was backed up.

        Raises Tampered unless they are columns of this table, in its order.
        """
        if column_list == self.column_list:
            return self.data_columns
        found, rest = [], column_list.removeprefix("(").removesuffix(")")
        for column in self.data_columns:
            name = quote_ident(column.name)
            if rest == name or rest.startswith(f"{name}, "):
                found.append(column)
                rest = rest[len(name) + 2 :]
        if rest or not found:
            raise Tampered("the chunk list is damaged", detail=f"{self.qname} has other columns than {column_list!r}")
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values only."""
        return _Record.as_json(self) | {"columns": [c.as_json() for c in self.columns]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError for missing or unknown fields."""
        plain = dict(data)
        plain["columns"] = tuple(Column.from_json(c) for c in data["columns"])
        return cls(**plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceState(_Record):
    """`setval(name, last_value, is_called)` as read after the data snapshot."""

    schema: str
    name: str
    last_value: int
    is_called: bool
    managed: bool = False

    @property
    def qname(self) -> QualifiedName:
        """Schema and name."""
        return QualifiedName(self.schema, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeObjectFacts(_Record):
    """A large object's metadata; `acl` is `lomacl::text[]` (empty = default), contents travel as rows."""

    oid: int
    owner: str
    size: int
    acl: tuple[str, ...] = ()
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts(_Record):
    """A role. `password` is the stored hash ('' = none), or None where the role may not read it.

    `settings` are `setdatabase = 0` entries of pg_db_role_setting, as "name=value".
    """

    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: int
    valid_until: str
    password: str | None
    settings: tuple[str, ...]
    comment: str
    managed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipFacts(_Record):
    """`GRANT role TO member`; inherit/set options are None before PostgreSQL 16."""

    role: str
    member: str
    grantor: str
    admin: bool
    inherit: bool | None
    set: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts(_Record):
    """The database itself: what only `pg_dump -C` would carry.

    `acl` is `datacl::text[]` or None for the default; `settings` database-wide "name=value";
    `role_settings` entries of [role, "name=value"] for this database.
    """

    name: str
    owner: str
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    locale: str
    acl: tuple[str, ...] | None
    comment: str
    settings: tuple[str, ...]
    role_settings: tuple[tuple[str, str], ...]
    connection_limit: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError for missing or unknown fields."""
        plain = dict(data)
        plain["acl"] = None if data["acl"] is None else tuple(data["acl"])
        plain["settings"] = tuple(data["settings"])
        plain["role_settings"] = tuple((r, s) for r, s in data["role_settings"])
        return cls(**plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """Everything read from catalogs in the snapshot's transaction, apart from DDL and rows."""

    server_version_num: int
    system_identifier: str
    database: DatabaseFacts
    tables: tuple[TableFacts, ...]
    sequences: tuple[SequenceState, ...]
    large_objects: tuple[LargeObjectFacts, ...]
    roles: tuple[RoleFacts, ...]
    memberships: tuple[MembershipFacts, ...]
    extensions: tuple[tuple[str, str, str], ...]  # name, version, schema
    secrets: tuple[tuple[str, str, str], ...] = ()  # vault: name, description, clear text (sealed bytes only)
    cron_jobs: tuple[tuple[str, str, str, str, str, bool], ...] = ()  # name, schedule, command, db, user, active

    @property
    def by_function(self) -> frozenset[tuple[str, str]]:
        """Tables that no target takes as rows: sealed for another server, or running as soon as they are there."""
        secrets = {("vault", "secrets")} if self.secrets else set[tuple[str, str]]()
        return frozenset(secrets | ({("cron", "job")} if self.cron_jobs else set()))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values only; what may be many as iterators."""
        return {
            "server_version_num": self.server_version_num,
            "system_identifier": self.system_identifier,
            "database": self.database.as_json(),
            "tables": (t.as_json() for t in self.tables),
            "sequences": (s.as_json() for s in self.sequences),
            "large_objects": (o.as_json() for o in self.large_objects),
            "roles": [r.as_json() for r in self.roles],
            "memberships": [m.as_json() for m in self.memberships],
            "extensions": [list(e) for e in self.extensions],
            "secrets": [list(s) for s in self.secrets],
            "cron_jobs": [list(j) for j in self.cron_jobs],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError or KeyError for missing or unknown fields."""
        return cls(
            server_version_num=data["server_version_num"],
            system_identifier=data["system_identifier"],
            database=DatabaseFacts.from_json(data["database"]),
            tables=tuple(TableFacts.from_json(t) for t in data["tables"]),
            sequences=tuple(SequenceState.from_json(s) for s in data["sequences"]),
            large_objects=tuple(LargeObjectFacts.from_json(o) for o in data["large_objects"]),
            roles=tuple(RoleFacts.from_json(r) for r in data["roles"]),
            memberships=tuple(MembershipFacts.from_json(m) for m in data["memberships"]),
            extensions=tuple((n, v, s) for n, v, s in data["extensions"]),
            secrets=tuple((n, d, c) for n, d, c in data["secrets"]),
            cron_jobs=tuple((n, s, c, d, u, a) for n, s, c, d, u, a in data["cron_jobs"]),
        )
