"""The two SQL files of the Python-free way back: `before.sql` runs before the archive, `after.sql` after the rows.

psql runs them, so nothing of a tenant's may stand outside quotes: every block is one quoted literal. What a role may
not do becomes a warning and the rest goes on, since rows matter more than an attribute; the last statement then fails,
so that the whole is never taken for complete. Pure.
"""

from collections.abc import Iterable, Sequence

from pgkura.catalog.grants import Grant, parse_acl
from pgkura.catalog.roles import set_clause
from pgkura.core.facts import DatabaseFacts, LargeObjectFacts, MembershipFacts, RoleFacts, SequenceState, SourceFacts
from pgkura.core.names import QualifiedName, quote_ident, quote_literal
from pgkura.core.platform import Platform
from pgkura.snapshot.roles import OLD_VERSION, SCRIPT_VERSION, statement_of_membership, statements_of_role

_HEADER = (
    "SET client_min_messages = warning;\nSET search_path = '';\nSET row_security = off;\n"
    "SET standard_conforming_strings = on;\nSET check_function_bodies = off;\n"
)
_VERDICT = (
    "DO 'BEGIN IF pg_catalog.current_setting(''pgkura.refused'', true) = ''yes'' THEN RAISE EXCEPTION "
    "''not everything was restored: see the warnings above''; END IF; END';\n"
)


def before_script(facts: SourceFacts, platform: Platform) -> str:
    """Roles that do not exist yet, and their memberships."""
    blocks = [_role(role, platform) for role in facts.roles]
    blocks += [_membership(grant, platform) for grant in facts.memberships]
    return _HEADER + "".join(b for b in blocks if b) + _VERDICT


def after_script(facts: SourceFacts, platform: Platform, matviews: Sequence[QualifiedName]) -> str:
    """Sequences, large objects, materialized views in order, the database's own properties."""
    parts = (
        sequence_blocks(facts),
        large_object_blocks(facts),
        view_blocks(facts, matviews),
        database_blocks(facts, platform),
    )
    return as_script("".join(parts))


def as_script(blocks: str) -> str:
    """A file of its own: settings before, the verdict behind."""
    return _HEADER + blocks + _VERDICT


def sequence_blocks(facts: SourceFacts) -> str:
    """Values of sequences."""
    return "".join(_sequence(s) for s in facts.sequences)


def large_object_blocks(facts: SourceFacts) -> str:
    """Large objects that have no contents, then everybody's owner, comment and privileges."""
    return "".join(text for item in facts.large_objects for text in _large_object(item))


def view_blocks(facts: SourceFacts, matviews: Sequence[QualifiedName]) -> str:
    """Materialized views that were populated, in this order."""
    populated = {t.qname for t in facts.tables if t.kind == "m" and t.populated and not t.managed}
    return "".join(block(f"REFRESH MATERIALIZED VIEW {m.sql};", f"view {m}") for m in matviews if m in populated)


def database_blocks(facts: SourceFacts, platform: Platform) -> str:
    """The database's own properties; a platform's database is the platform's."""
    return "".join(_database(facts.database)) if platform.name == "plain" else ""


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


def _membership(grant: MembershipFacts, platform: Platform) -> str:
    new = statement_of_membership(grant, platform, SCRIPT_VERSION)
    old = statement_of_membership(grant, platform, OLD_VERSION)
    if not old:
        return ""
    plain, _, _ = new.partition(" GRANTED BY ")
    body = (
        "IF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 160000 THEN "
        f"{_execute(old)} ELSE BEGIN {_execute(new)} EXCEPTION WHEN OTHERS THEN {_execute(plain)} END; END IF;"
    )
    return block(body, f"membership of {grant.member} in {grant.role}")


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
