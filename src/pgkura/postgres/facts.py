"""Reads what a snapshot knows about a database beyond its DDL, in the caller's transaction and as any role.

What the role may not read becomes a `denied` Finding; nothing here runs a tenant's function, cast or operator.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pgkura.core.facts import (
    Column,
    DatabaseFacts,
    LargeObjectFacts,
    MembershipFacts,
    RoleFacts,
    SequenceState,
    SourceFacts,
    TableFacts,
)
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.platform import Platform
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError

_BATCH = 400
_DENIED = ("42501", "42P01", "3F000")


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsRead:
    """The facts, and what this role may not read."""

    facts: SourceFacts
    denied: tuple[Finding, ...]


def read_platform_names(session: Session) -> tuple[list[str], list[str]]:
    """All role names and schema names, for catalog.platform.detect."""
    roles, schemas = session.one(query("facts", "names"))
    return roles, schemas


def read_facts(session: Session, platform: Platform) -> FactsRead:
    """Everything; call it inside the snapshot's transaction."""
    denied: list[Finding] = []
    tables = read_tables(session, platform)
    facts = SourceFacts(
        server_version_num=session.server_version,
        system_identifier=read_system_identifier(session),
        database=read_database(session),
        tables=tables,
        sequences=read_sequences(session, platform, denied),
        large_objects=read_large_objects(session, denied),
        roles=read_roles(session, platform, denied),
        memberships=read_memberships(session),
        extensions=tuple((n, v, s) for n, v, s in session.rows(query("facts", "extensions"))),
        secrets=_secrets(session, denied),
        cron_jobs=_cron_jobs(session),
    )
    denied.extend(
        _denied(f"table {t.qname}", "no right to read it") for t in tables if not t.readable and t.kind in "rm"
    )
    return FactsRead(facts=facts, denied=tuple(denied))


def _denied(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.DENIED, object=name, reason=reason)


def read_system_identifier(session: Session) -> str:
    """Of the cluster, the same on its standbys; '' where the role may not ask."""
    ask = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
    try:
        if not session.in_transaction:
            return str(session.one(ask)[0])
        with session.savepoint():
            return str(session.one(ask)[0])
    except SqlError as error:
        if error.sqlstate not in _DENIED:
            raise
        return ""


def read_tables(session: Session, platform: Platform) -> tuple[TableFacts, ...]:
    """Relations that may hold rows, with their columns."""
    columns: dict[int, list[Column]] = defaultdict(list)
    for oid, attnum, name, kind, not_null, generated, identity in session.rows(query("facts", "columns")):
        columns[oid].append(
            Column(attnum=attnum, name=name, type=kind, not_null=not_null, generated=generated, identity=identity)
        )
    roots = {oid: f"{schema}\0{name}" for oid, schema, name in session.rows(query("facts", "unstable_roots"))}
    return tuple(
        TableFacts(
            oid=oid,
            schema=schema,
            name=name,
            kind=kind,
            owner=owner,
            persistence=persistence,
            access_method=method,
            filenode=filenode,
            pages=pages,
            bytes=size,
            columns=tuple(columns[oid]),
            row_security=rls,
            force_row_security=force,
            is_partition=partition,
            populated=populated,
            managed=platform.owns(schema, owner),
            config_of=config_of,
            config_where=config_where,
            load_root=roots.get(oid, ""),
            readable=readable,
        )
        for (
            oid, schema, name, kind, owner, persistence, method, filenode, pages, size, rls, force, partition,
            populated, config_of, config_where, readable,
        ) in session.rows(query("facts", "tables"))
    )  # fmt: skip


def read_sequences(session: Session, platform: Platform, denied: list[Finding]) -> tuple[SequenceState, ...]:
    """Current values. Sequences are not transactional: read them after the data's snapshot, never before."""
    states: list[SequenceState] = []
    readable: list[tuple[QualifiedName, str]] = []
    for schema, name, owner, may, absent in session.rows(query("facts", "sequences")):
        if absent:
            reason = "its value cannot be read on a standby (the sequence is unlogged); back up the primary for it"
            denied.append(_denied(f"sequence {QualifiedName(schema, name)}", reason))
        elif may:
            readable.append((QualifiedName(schema, name), owner))
        else:
            denied.append(_denied(f"sequence {QualifiedName(schema, name)}", "no right to read it"))
    for start in range(0, len(readable), _BATCH):
        batch = readable[start : start + _BATCH]
        union = " UNION ALL ".join(
            f"SELECT {n}::int, last_value, is_called FROM {qname.sql}" for n, (qname, _) in enumerate(batch)
        )
        for n, last_value, is_called in session.rows(union):
            qname, owner = batch[n]
            states.append(
                SequenceState(
                    schema=qname.schema,
                    name=qname.name,
                    last_value=last_value,
                    is_called=is_called,
                    managed=platform.owns(qname.schema, owner),
                )
            )
    return tuple(sorted(states, key=lambda s: s.qname))


def read_large_objects(session: Session, denied: list[Finding]) -> tuple[LargeObjectFacts, ...]:
    """Metadata and sizes of the large objects this role may read."""
    rows = session.rows(query("facts", "large_objects"))
    readable = [row for row in rows if row[4]]
    denied.extend(_denied(f"large object {row[0]}", "no right to read it") for row in rows if not row[4])
    sizes: dict[int, int] = {}
    for start in range(0, len(readable), _BATCH):
        oids = [row[0] for row in readable[start : start + _BATCH]]
        sizes.update((o, s) for o, s, _ in session.rows(query("facts", "large_object_sizes"), (oids,)))
    return tuple(
        LargeObjectFacts(oid=oid, owner=owner, size=sizes[oid], acl=tuple(acl or ()), comment=comment)
        for oid, owner, acl, comment, _ in readable
    )


def read_roles(session: Session, platform: Platform, denied: list[Finding]) -> tuple[RoleFacts, ...]:
    """Roles; password hashes where pg_authid may be read, else one `denied` finding per login role."""
    may = session.one("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')")[0]
    sql = query("facts", "roles").format(
        password="COALESCE(r.rolpassword, '')" if may else "NULL::text",
        relation="pg_catalog.pg_authid" if may else "pg_catalog.pg_roles",
    )
    roles = tuple(
        RoleFacts(
            name=r[0], superuser=r[1], inherit=r[2], createrole=r[3], createdb=r[4], login=r[5], replication=r[6],
            bypassrls=r[7], connection_limit=r[8], valid_until=r[9], password=r[10], settings=tuple(r[11]),
            comment=r[12], managed=bool(r[13]) or platform.is_managed_role(r[0]),
        )
        for r in session.rows(sql)
    )  # fmt: skip
    denied.extend(
        _denied(f"password of role {r.name}", "only superusers and members of pg_read_all_data may read hashes")
        for r in roles
        if r.password is None and r.login and not r.managed
    )
    return roles


def read_memberships(session: Session) -> tuple[MembershipFacts, ...]:
    """Who is a member of what."""
    since16 = session.server_version >= 160000
    sql = query("facts", "memberships").format(
        inherit="a.inherit_option" if since16 else "NULL::boolean",
        set="a.set_option" if since16 else "NULL::boolean",
    )
    return tuple(
        MembershipFacts(role=r, member=m, grantor=g or "", admin=a, inherit=i, set=s)
        for r, m, g, a, i, s in session.rows(sql)
    )


def read_database(session: Session) -> DatabaseFacts:
    """The database's own properties."""
    version = session.server_version
    locale = "d.datlocale" if version >= 170000 else "d.daticulocale" if version >= 150000 else "''"
    sql = query("facts", "database").format(
        provider="d.datlocprovider::text" if version >= 150000 else "'c'", locale=f"COALESCE({locale}, '')"
    )
    name, owner, encoding, collate, ctype, provider, icu, acl, comment, settings, limit = session.one(sql)
    return DatabaseFacts(
        name=name,
        owner=owner,
        encoding=encoding,
        collate=collate,
        ctype=ctype,
        locale_provider=provider,
        locale=icu,
        acl=None if acl is None else tuple(acl),
        comment=comment,
        settings=tuple(settings),
        role_settings=tuple((r, s) for r, s in session.rows(query("facts", "database_role_settings"))),
        connection_limit=limit,
    )


def _readable(session: Session, schema: str, name: str) -> bool | None:
    rows = session.rows(query("facts", "relation_readable"), (schema, name))
    return bool(rows[0][0]) if rows else None


def _secrets(session: Session, denied: list[Finding]) -> tuple[tuple[str, str, str], ...]:
    """Vault secrets, decrypted by the server."""
    may = _readable(session, "vault", "decrypted_secrets")
    if may is None:
        return ()
    try:
        if not may:
            raise SqlError("no right to read vault.decrypted_secrets", sqlstate="42501")
        with session.savepoint():
            return tuple((n, d, s or "") for n, d, s in session.rows(query("facts", "secrets")))
    except SqlError as error:
        if error.sqlstate not in _DENIED:
            raise
        denied.append(_denied("vault secrets", "the role may not decrypt them"))
        return ()


def _cron_jobs(session: Session) -> tuple[tuple[str, str, str, str, str, bool], ...]:
    if not _readable(session, "cron", "job"):
        return ()
    names = {row[0] for row in session.rows(query("facts", "cron_columns"))}
    # Before pg_cron 1.3 jobs had no name.
    sql = query("facts", "cron_jobs").format(jobname="jobname" if "jobname" in names else "command")
    return tuple((n, s, c, d, u, a) for n, s, c, d, u, a in session.rows(sql))


def blobs_sql(oids: Sequence[int], piece: int = 262144) -> str:
    """A COPY-able SELECT of (oid, offset, bytes) for these large objects, read in this transaction's snapshot."""
    numbers = ",".join(str(int(oid)) for oid in oids)
    return (
        "SELECT m.oid, g.start, pg_catalog.lo_get(m.oid, g.start, "
        f"{piece}) FROM pg_catalog.unnest('{{{numbers}}}'::oid[]) WITH ORDINALITY AS m(oid, place) "
        "CROSS JOIN LATERAL (SELECT pg_catalog.lo_open(m.oid, 262144) AS fd OFFSET 0) f "
        "CROSS JOIN LATERAL (SELECT pg_catalog.lo_lseek64(f.fd, 0, 2) AS size OFFSET 0) s "
        "CROSS JOIN LATERAL (SELECT pg_catalog.lo_close(f.fd) AS closed, s.size AS size OFFSET 0) c "
        f"CROSS JOIN LATERAL pg_catalog.generate_series(0::bigint, c.size - 1, {piece}::bigint) AS g(start) "
        "ORDER BY m.place, g.start"
    )
