"""What a restore finds at its target, read before anything is written."""

from dataclasses import dataclass

from pgkura.catalog.platform import detect
from pgkura.catalog.roles import Abilities
from pgkura.catalog.toc import Entry, Toc, read_archive
from pgkura.core.facts import DatabaseFacts, MembershipFacts, RoleFacts, TableFacts
from pgkura.core.names import QualifiedName
from pgkura.core.platform import Platform
from pgkura.core.scratch import new_scratch
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.facts import read_database, read_memberships, read_platform_names, read_roles, read_tables
from pgkura.postgres.queries import query
from pgkura.postgres.relay import client_environment
from pgkura.postgres.session import Session, SqlError
from pgkura.programs.pgtools import dump_schema, find_client
from pgkura.restore.marker import Mark, is_marker, read_mark

_SETTINGS = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRights:
    """What the restoring role may do with a table that exists already."""

    insert: bool
    truncate: bool
    delete: bool
    trigger: bool
    owner: bool
    rows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Everything the planner needs to know.

    present     definitions that are there (an empty database has hardly any)
    mark        what a restore of ours left that did not end
    replica     `SET session_replication_role = replica` is allowed
    supautils   the hosted platform's hook that lets `postgres` make policies on managed tables
    """

    display: str
    role: str
    may: Abilities
    bypass_rls: bool
    can_create: bool
    supautils: bool
    member_of: frozenset[str]
    platform: Platform
    present: Toc
    schemas: dict[str, bool]
    tables: dict[QualifiedName, TableFacts]
    rights: dict[QualifiedName, TableRights]
    roles: tuple[RoleFacts, ...]
    memberships: tuple[MembershipFacts, ...]
    database: DatabaseFacts
    extensions: frozenset[str]
    large_objects: frozenset[int]
    replica: bool
    mark: Mark | None

    @property
    def kind(self) -> str:
        """The target's kind in words."""
        if self.platform.name == "supabase":
            return "Supabase project"
        return "database, as superuser" if self.may.superuser else "database, as plain owner"

    @property
    def standing(self) -> tuple[Entry, ...]:
        """What is there apart from our own half-done work."""
        mark = self.mark
        if mark is None:
            return self.present.entries
        return tuple(e for e in self.present.entries if not mark.made(e) and not is_marker(e))

    @property
    def standing_large_objects(self) -> frozenset[int]:
        """Large objects apart from our own half-done work."""
        made = self.mark.made_large_objects(self.large_objects) if self.mark is not None else frozenset[int]()
        return self.large_objects - made

    @property
    def foreign(self) -> tuple[Entry, ...]:
        """Objects that are neither the platform's, nor an empty database's own, nor our half-done work."""
        return tuple(e for e in self.standing if is_user_state(e, self.platform))


def is_user_state(entry: Entry, platform: Platform) -> bool:
    """Whether an object found in a target was put there by its user."""
    if entry.desc in _SETTINGS or entry.subject in ("DATABASE", "SCHEMA", "EXTENSION"):
        return False
    if entry.desc in ("ACL", "DEFAULT ACL", "COMMENT", "EXTENSION", "ROW SECURITY", "SECURITY LABEL"):
        return False
    if platform.name == "plain":
        return not (entry.desc == "SCHEMA" and entry.tag == "public")
    if entry.desc == "SCHEMA":
        return entry.tag != "public" and entry.tag not in platform.managed_schemas
    if entry.desc in ("EVENT TRIGGER", "PUBLICATION", "PUBLICATION TABLE"):
        return False
    return entry.schema not in platform.managed_schemas


def inspect_target(endpoint: Endpoint, session: Session) -> Target:
    """Reads only; the one probe that writes is rolled back. Raises ToolError, SqlError."""
    name, superuser, createrole, replication, bypass, create, supautils, member_of = session.one(
        query("target", "role")
    )
    mark = read_mark(session)
    present = dump_definitions(endpoint, session.server_version)
    platform = _platform(session, present, mark)
    tables = {t.qname: t for t in read_tables(session, platform)}
    return Target(
        display=endpoint.display,
        role=name,
        may=Abilities(
            superuser=superuser,
            createrole=createrole,
            replication=replication,
            bypassrls=bypass,
            version=session.server_version,
        ),
        bypass_rls=superuser or bypass,
        can_create=create,
        supautils=supautils,
        member_of=frozenset(member_of),
        platform=platform,
        present=present,
        schemas=dict(session.rows(query("target", "schemas"))),
        tables=tables,
        rights=_rights(session, platform),
        roles=read_roles(session, platform, []),
        memberships=read_memberships(session),
        database=read_database(session),
        extensions=frozenset(n for (n,) in session.rows(query("target", "available_extensions"))),
        large_objects=frozenset(o for (o,) in session.rows(query("target", "large_objects"))),
        replica=_may_be_replica(session),
        mark=mark,
    )


def _platform(session: Session, present: Toc, mark: Mark | None) -> Platform:
    """As it was before a restore that was cut short: a schema which that one made is not the platform's."""
    roles, schemas = read_platform_names(session)
    made = {e.tag for e in present.entries if e.desc == "SCHEMA" and mark is not None and mark.made(e)}
    return detect(roles, [s for s in schemas if s not in made])


def _rights(session: Session, platform: Platform) -> dict[QualifiedName, TableRights]:
    found: dict[QualifiedName, TableRights] = {}
    for schema, table, insert, truncate, delete, trigger, owner in session.rows(query("target", "table_rights")):
        qname = QualifiedName(schema, table)
        rows = False
        if schema in platform.managed_schemas:
            try:
                rows = bool(session.one(query("target", "has_rows").format(table=qname.sql))[0])
            except SqlError as error:
                if error.sqlstate != "42501":
                    raise
        found[qname] = TableRights(
            insert=insert, truncate=truncate, delete=delete, trigger=trigger, owner=owner, rows=rows
        )
    return found


def _may_be_replica(session: Session) -> bool:
    session.begin(read_only=True)
    try:
        session.replica_role()
    except SqlError:
        return False
    finally:
        session.rollback()
    return True


def dump_definitions(
    endpoint: Endpoint, server_version: int, *, snapshot: str = "", name: str = "pgkura restore"
) -> Toc:
    """The definitions of a database as they are, through pg_dump."""
    tool = find_client("pg_dump", server_version // 10000)
    with new_scratch() as out, client_environment(endpoint, has_tls=tool.has_tls) as environment:
        dump_schema(tool, environment | {"PGAPPNAME": name}, out, snapshot=snapshot)
        return read_archive(out)
