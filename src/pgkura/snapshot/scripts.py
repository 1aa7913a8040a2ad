"""The two SQL files of the Python-free way back: `before.sql` runs before the archive, `after.sql` after the rows.

psql runs them, so nothing of a tenant's may stand outside quotes: every block is one quoted literal. What a role may
not do becomes a warning and the rest goes on, since rows matter more than an attribute; the last statement then fails,
so that the whole is never taken for complete. Pure.
"""

import json
from collections.abc import Iterable, Sequence

from pgkura.catalog.grants import Grant, parse_acl
from pgkura.catalog.roles import Statement, set_clause
from pgkura.core.facts import DatabaseFacts, LargeObjectFacts, MembershipFacts, RoleFacts, SequenceState, SourceFacts
from pgkura.core.names import QualifiedName, quote_ident, quote_literal
from pgkura.core.platform import PLAIN, PLATFORM_SETTINGS, Platform
from pgkura.snapshot.roles import (
    OLD_VERSION,
    SCRIPT_VERSION,
    settings_of_managed,
    statement_of_membership,
    statements_of_role,
)

# Pinned as the backup's own connections were, so that every value reads back as it was printed.
HEADER = """SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = off;
SET search_path = '';
SET row_security = off;
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET TimeZone = 'UTC';
SET bytea_output = 'hex';
SET xmloption = 'content';
SET client_min_messages = warning;
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET default_transaction_read_only = off;
"""
_VERDICT = (
    "DO 'BEGIN IF pg_catalog.current_setting(''pgkura.refused'', true) = ''yes'' THEN RAISE EXCEPTION "
    "''not everything was restored: see the warnings above''; END IF; END';\n"
)
# Without its platform a scheduler of the same name may be there: jobs stay off until somebody says go.
_HOLD_JOBS = (
    "DO 'BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = ''pg_cron'') THEN "
    "UPDATE cron.job SET active = false; END IF; END';\n"
)


def before_script(facts: SourceFacts, platform: Platform) -> str:
    """Roles that do not exist yet, and their memberships; for a server without the source's platform."""
    blocks = [_missing_role(r) if r.managed else _role(r, platform) for r in facts.roles]
    blocks += [_membership(grant, PLAIN) for grant in facts.memberships]
    return HEADER + "".join(b for b in blocks if b) + _VERDICT


def after_script(
    facts: SourceFacts,
    platform: Platform,
    matviews: Sequence[QualifiedName],
    public: Sequence[str | None],
    unstated: Iterable[Statement] = (),
) -> str:
    """Sequences, large objects, materialized views in order, the database's own properties.

    `public`: what everybody may do in the schema of that name (queries/public_privileges.sql); `unstated`: privileges
    that the archive does not hold.
    """
    parts = (
        sequence_blocks(facts),
        large_object_blocks(facts),
        view_blocks(facts, matviews, with_managed=True),
        database_blocks(facts),
        setting_blocks(facts, PLAIN),
        public_blocks(public),
        "".join(guarded(s.sql, f"privileges on {s.object}") for s in unstated),
        _HOLD_JOBS if facts.cron_jobs and platform.name != "plain" else "",
    )
    return as_script("".join(parts))


def as_script(blocks: str) -> str:
    """A file of its own: settings before, the verdict behind."""
    return HEADER + blocks + _VERDICT


def sequence_blocks(facts: SourceFacts) -> str:
    """Values of sequences."""
    return "".join(_sequence(s) for s in facts.sequences)


def large_object_blocks(facts: SourceFacts) -> str:
    """Large objects that have no contents, then everybody's owner, comment and privileges."""
    return "".join(text for item in facts.large_objects for text in _large_object(item))


def view_blocks(facts: SourceFacts, matviews: Sequence[QualifiedName], *, with_managed: bool = False) -> str:
    """Materialized views that were populated, in this order; a platform fills its own."""
    populated = {t.qname for t in facts.tables if t.kind == "m" and t.populated and (with_managed or not t.managed)}
    return "".join(block(f"REFRESH MATERIALIZED VIEW {m.sql};", f"view {m}") for m in matviews if m in populated)


def role_blocks(facts: SourceFacts, platform: Platform) -> str:
    """The user's own roles, and memberships that are not the platform's, on a server that has the platform."""
    blocks = [_role(r, platform) for r in facts.roles if not r.managed]
    blocks += [_membership(grant, platform) for grant in facts.memberships]
    return "".join(b for b in blocks if b)


def database_blocks(facts: SourceFacts) -> str:
    """The database's own properties."""
    return "".join(_database(facts.database))


def public_blocks(privileges: Sequence[str | None]) -> str:
    """What everybody may do in the schema `public`, stated whole: archives state it relative to a default."""
    if not privileges:
        return ""
    grants = [f"GRANT {p} ON SCHEMA public TO PUBLIC" for p in privileges if p]
    made = " ".join(_execute(sql) for sql in ("REVOKE ALL ON SCHEMA public FROM PUBLIC", *grants))
    there = "EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public')"
    return block(f"IF {there} THEN {made} END IF;", "privileges of schema public")


def setting_blocks(facts: SourceFacts, platform: Platform) -> str:
    """What a user set on roles that a platform or the server made; on a platform exactly that."""
    blocks = []
    for role in facts.roles:
        statements = settings_of_managed(role, platform)
        name = quote_literal(role.name).strip()
        there = f"EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name})"
        comment = [s for s in statements if s.object.startswith("comment")]
        if platform.name == "plain":
            blocks += [block(f"IF {there} THEN {_execute(s.sql)} END IF;", s.object) for s in statements]
        elif role.managed and platform.settings_are_users(role.name):
            who = f"ALTER ROLE {quote_ident(role.name)} "
            same = f"NOT {there} OR {_same_settings(role.settings, platform, name, '0')}"
            blocks.append(_exactly(who, role.settings, platform, same, f"settings of role {role.name}"))
            blocks += [block(f"IF {there} THEN {_execute(s.sql)} END IF;", s.object) for s in comment]
    return "".join(blocks)


def own_setting_blocks(facts: SourceFacts, platform: Platform) -> str:
    """The settings of a platform's database, exactly as the user had them."""
    name = quote_ident(facts.database.name)
    here = "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())"
    same = _same_settings(facts.database.settings, platform, "''", here)
    blocks = [_exactly(f"ALTER DATABASE {name} ", facts.database.settings, platform, same, "database settings")]
    for role in dict.fromkeys(r for r, _ in facts.database.role_settings):
        if platform.settings_are_users(role):
            settings = [s for r, s in facts.database.role_settings if r == role]
            same = _same_settings(settings, platform, quote_literal(role).strip(), here)
            who = f"ALTER ROLE {quote_ident(role)} IN DATABASE {name} "
            blocks.append(_exactly(who, settings, platform, same, f"settings of role {role} in the database"))
    return "".join(blocks)


def _exactly(who: str, settings: Iterable[str], platform: Platform, same: str, what: str) -> str:
    """RESET ALL leaves alone what this role may not set, which is the platform's."""
    clauses = [set_clause(s) for s in settings if not platform.is_platform_setting(s)]
    made = " ".join(_execute(who + clause) for clause in ("RESET ALL", *clauses))
    return block(f"IF NOT ({same}) THEN {made} END IF;", what)


def _same_settings(settings: Iterable[str], platform: Platform, role: str, database: str) -> str:
    wanted = sorted(s for s in settings if not platform.is_platform_setting(s))
    listed = ", ".join(quote_literal(s).strip() for s in wanted)
    return (
        "ARRAY(SELECT c FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole "
        f"CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) c WHERE COALESCE(r.rolname, '') = {role} "
        f"AND s.setdatabase = {database} AND c !~ '{PLATFORM_SETTINGS}' ORDER BY c COLLATE \"C\") "
        f"= ARRAY[{listed}]::pg_catalog.text[]"
    )


def block(body: str, what: str) -> str:
    """A DO block that turns a refusal into a warning."""
    text = (
        f"BEGIN {body} EXCEPTION WHEN OTHERS THEN PERFORM pg_catalog.set_config('pgkura.refused', 'yes', false); "
        f"RAISE WARNING '%: %', {quote_literal(what).strip()}, SQLERRM; END"
    )
    return f"DO {quote_literal(text).strip()};\n"


def guarded(statement: str, what: str) -> str:
    """Any statements whose refusal shall be a warning."""
    return block(_execute(statement), what)


def _execute(statement: str) -> str:
    return f"EXECUTE {quote_literal(statement).strip()};"


def _role(role: RoleFacts, platform: Platform) -> str:
    statements = statements_of_role(role, platform)
    if not statements:
        return ""
    name = quote_literal(role.name).strip()
    made = " ".join(_execute(s.sql) for s in statements)
    return block(
        f"IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN {made} END IF;",
        f"role {role.name}",
    )


def _missing_role(role: RoleFacts) -> str:
    """A role of a platform, or a first superuser: made where it is missing, with as many attributes as rights allow."""
    name = quote_literal(role.name).strip()
    made = " ".join(_execute(s.sql) for s in statements_of_role(role, PLAIN) if s.sql)
    bare = _execute(f"CREATE ROLE {quote_ident(role.name)} NOLOGIN")
    refused = (
        "PERFORM pg_catalog.set_config('pgkura.refused', 'yes', false); "
        f"RAISE WARNING '%: %', {quote_literal(f'attributes of role {role.name}').strip()}, SQLERRM;"
    )
    return block(
        f"IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN "
        f"BEGIN {made} EXCEPTION WHEN insufficient_privilege THEN {bare} {refused} END; END IF;",
        f"role {role.name}",
    )


def _membership(grant: MembershipFacts, platform: Platform) -> str:
    new = statement_of_membership(grant, platform, SCRIPT_VERSION)
    old = statement_of_membership(grant, platform, OLD_VERSION)
    if not old:
        return ""
    plain, _, _ = new.partition(" GRANTED BY ")
    body = (
        f"IF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < {SCRIPT_VERSION} THEN "
        f"IF NOT {_granted(grant, admin=grant.admin)} THEN {_execute(old)} END IF; "
        f"ELSIF NOT {_granted(grant, admin=grant.admin, inherit=grant.inherit, set=grant.set)} THEN "
        f"BEGIN {_execute(new)} EXCEPTION WHEN OTHERS THEN {_execute(plain)} END; END IF;"
    )
    return block(body, f"membership of {grant.member} in {grant.role}")


def _granted(grant: MembershipFacts, **options: bool | None) -> str:
    """Whether it is there already: since 16 CREATE ROLE itself gives one that nobody may give by hand."""
    wanted = json.dumps({f"{name}_option": value for name, value in options.items() if value is not None})
    role, member = (quote_literal(name).strip() for name in (grant.role, grant.member))
    return (
        "EXISTS (SELECT FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles r ON r.oid = a.roleid "
        f"JOIN pg_catalog.pg_roles m ON m.oid = a.member WHERE r.rolname = {role} AND m.rolname = {member} "
        f"AND pg_catalog.to_jsonb(a) @> '{wanted}'::pg_catalog.jsonb)"
    )


def _sequence(state: SequenceState) -> str:
    # As text for regclass, which knows no U&"..." form.
    name = ".".join('"' + part.replace('"', '""') + '"' for part in (state.schema, state.name))
    called = "true" if state.is_called else "false"
    return block(
        f"PERFORM pg_catalog.setval({quote_literal(name).strip()}, {state.last_value}, {called});", f"sequence {name}"
    )


def _large_object(item: LargeObjectFacts) -> Iterable[str]:
    what = f"large object {item.oid}"
    yield block(
        "IF NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata "
        f"WHERE oid = {item.oid}) THEN PERFORM pg_catalog.lo_create({item.oid}); END IF;",
        what,
    )
    if item.comment:
        yield block(f"COMMENT ON LARGE OBJECT {item.oid} IS {quote_literal(item.comment).strip()};", what)
    yield block(f"ALTER LARGE OBJECT {item.oid} OWNER TO {quote_ident(item.owner)};", what)
    for grant in parse_acl(item.acl):
        if grant.grantee != item.owner:
            yield block(_grant(grant, f"LARGE OBJECT {item.oid}"), what)


def _grant(grant: Grant, target: str) -> str:
    grantee = quote_ident(grant.grantee) if grant.grantee else "PUBLIC"
    return "".join(
        f"GRANT {', '.join(words)} ON {target} TO {grantee}{option};"
        for words, option in ((grant.plain, ""), (grant.with_option, " WITH GRANT OPTION"))
        if words
    )


def _database(facts: DatabaseFacts) -> Iterable[str]:
    def on_database(before: str, after: str, what: str) -> str:
        words = f"{quote_literal(before).strip()} || pg_catalog.quote_ident(pg_catalog.current_database())"
        return block(f"EXECUTE {words} || {quote_literal(after).strip()};", what)

    if facts.comment:
        yield on_database("COMMENT ON DATABASE ", f" IS {quote_literal(facts.comment)}", "database comment")
    if facts.connection_limit != -1:
        yield on_database("ALTER DATABASE ", f" CONNECTION LIMIT {facts.connection_limit}", "connection limit")
    for setting in facts.settings:
        yield on_database("ALTER DATABASE ", f" {set_clause(setting)}", "database setting")
    for role, setting in facts.role_settings:
        yield on_database(
            f"ALTER ROLE {quote_ident(role)} IN DATABASE ", f" {set_clause(setting)}", f"setting of role {role}"
        )
    yield on_database("ALTER DATABASE ", f" OWNER TO {quote_ident(facts.owner)}", "database owner")
    if facts.acl is not None:
        yield on_database("REVOKE ALL ON DATABASE ", " FROM PUBLIC", "database privileges")
        for grant in parse_acl(facts.acl):
            grantee = quote_ident(grant.grantee) if grant.grantee else "PUBLIC"
            for words, option in ((grant.plain, ""), (grant.with_option, " WITH GRANT OPTION")):
                if words:
                    yield on_database(
                        f"GRANT {', '.join(words)} ON DATABASE ", f" TO {grantee}{option}", "database privileges"
                    )
