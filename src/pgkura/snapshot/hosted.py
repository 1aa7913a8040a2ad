"""A hosted project as scripts: what the platform owns is not loaded, what it forbids is a warning. Pure.

psql runs them in a fresh project, from an export or by the repository's own script. Every statement is guarded, since a
role may not do everything there; the last part fails if one was refused, so that psql never ends well with something
missing. As in a restore, objects are made shut and opened at the end: a platform's default privileges would otherwise
open them, and undo a REVOKE.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pgkura.catalog.grantable import grantable
from pgkura.catalog.inventory import Items
from pgkura.catalog.reconcile import DEFAULT_KINDS, DEFAULTS
from pgkura.catalog.render import definition, in_passes, ownership
from pgkura.catalog.roles import database_statements
from pgkura.catalog.toc import Entry, Toc
from pgkura.core.facts import SourceFacts, TableFacts
from pgkura.core.names import QualifiedName, quote_ident, quote_literal
from pgkura.core.platform import Platform
from pgkura.repository.lists import BLOBS, TableData
from pgkura.snapshot.scripts import (
    as_script,
    block,
    guarded,
    large_object_blocks,
    own_setting_blocks,
    role_blocks,
    sequence_blocks,
    setting_blocks,
    view_blocks,
)

_USERS_OWN = frozenset({"TRIGGER", "POLICY"})
# Brought back through the platform's own functions.
_NOT_AS_ROWS = frozenset({("vault", "secrets"), ("cron", "job"), ("cron", "job_run_details")})
_MAYBE_THERE = frozenset({"TRIGGER", "PUBLICATION", "PUBLICATION TABLE"})
_ROUTINES = frozenset({"FUNCTION", "PROCEDURE"})
_TYPES = frozenset({"TYPE", "DOMAIN"})
_OPEN_ROLES = ("anon", "authenticated", "service_role")


def is_platforms(entry: Entry, platform: Platform) -> bool:
    """Whether the platform makes this object; what a user puts on its tables is the user's."""
    if platform.name == "plain" or entry.desc in _USERS_OWN:
        return False
    return entry.owner in platform.owners or (entry.desc == "COMMENT" and entry.subject == "EXTENSION")


def is_loaded(facts: TableFacts, platform: Platform) -> bool:
    """Whether a table's rows are loaded as rows."""
    name = (facts.schema, facts.name)
    return platform.name == "plain" or not (name in platform.service_tables or name in _NOT_AS_ROWS)


def guarded_definitions(entries: Iterable[Entry], others: Sequence[str]) -> str:
    """Each made and shut in one step; a schema only where the target's platform has not made it."""
    return "".join(_guarded(e, others) for e in entries if definition(e))


def _guarded(entry: Entry, others: Sequence[str]) -> str:
    text = quote_literal(f"{definition(entry)}{_shut(entry, others)}{ownership(entry)}").strip()
    make = f"EXECUTE {text};"
    if entry.desc == "SCHEMA":
        name = quote_literal(entry.tag).strip()
        make = f"IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {name}) THEN {make} END IF;"
    elif entry.desc == "POLICY":
        # Only the owner of the table may try; the platform's own policies are there already.
        table, _, name = entry.tag.partition(" ")
        words = [quote_literal(w).strip() for w in (name, entry.schema, table)]
        make = (
            "IF NOT EXISTS (SELECT FROM pg_catalog.pg_policies "
            f"WHERE policyname = {words[0]} AND schemaname = {words[1]} AND tablename = {words[2]}) THEN {make} END IF;"
        )
    elif entry.desc in _MAYBE_THERE:
        make = f"BEGIN {make} EXCEPTION WHEN duplicate_object THEN NULL; END;"
    return block(make, entry.title)


def guarded_statements(statements: Iterable[tuple[str, str]]) -> str:
    """(SQL, what it is about)."""
    return "".join(guarded(sql, what) for sql, what in statements if sql.strip())


def _shut(entry: Entry, others: Sequence[str]) -> str:
    """Nobody but the owner may use the object for now; the owner must be able to load it."""
    what = grantable(entry)
    if not what or not others or entry.desc in _TYPES:
        return ""
    text = f"REVOKE ALL ON {what} FROM {_list(others)};\n"
    if entry.desc == "TABLE":
        text += f"ALTER TABLE {_name(entry)} ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;\n"
    return text


def opening(entries: Iterable[Entry], facts: SourceFacts, others: Sequence[str]) -> str:
    """What shutting did is undone: back to what PostgreSQL itself gives, which archives state privileges against."""
    tables = {(t.schema, t.name): t for t in facts.tables}
    texts = []
    for entry in entries:
        what = grantable(entry)
        if not what:
            continue
        text = f"REVOKE ALL ON {what} FROM {_list(others)};\n"
        if entry.desc in _ROUTINES:
            text += f"GRANT EXECUTE ON {what} TO PUBLIC;\n"
        elif entry.desc in _TYPES:
            text += f"GRANT USAGE ON {what} TO PUBLIC;\n"
        table = tables.get((entry.schema, entry.tag)) if entry.desc == "TABLE" else None
        if table is not None:
            enable = "ENABLE" if table.row_security else "DISABLE"
            force = "FORCE" if table.force_row_security else "NO FORCE"
            text += f"ALTER TABLE {_name(entry)} {enable} ROW LEVEL SECURITY, {force} ROW LEVEL SECURITY;\n"
        texts.append((text, f"privileges on {entry.title}"))
    return guarded_statements(texts)


def own_defaults(items: Items, platform: Platform, others: Sequence[str]) -> str:
    """What the platform gives away of the user's future objects is taken back; archives state what is given."""
    texts = []
    for cls, identity in sorted(items):
        if cls != DEFAULTS or any(identity.startswith(f"for {role} in ") for role in platform.owners) or not others:
            continue
        role, _, rest = identity.removeprefix("for ").partition(" in ")
        schema, _, kind = rest.rpartition(" on ")
        where = "" if schema == "all schemas" else f" IN SCHEMA {schema}"
        sql = (
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {role}{where} REVOKE ALL ON {DEFAULT_KINDS[kind]} FROM {_names(others)}"
        )
        texts.append((sql, f"default privileges of {role}"))
    return guarded_statements(texts)


def own_database(facts: SourceFacts, platform: Platform) -> str:
    """What the user made of the platform's database and of its roles."""
    wanted = facts.database
    # As if nothing had been said yet: what the target's own platform says of its database stays.
    fresh = replace(wanted, acl=None, comment="", connection_limit=-1, settings=(), role_settings=())
    statements = database_statements(wanted, fresh, platform, superuser=True, me="")
    texts = [(s.sql, s.object) for s in statements if "setting " not in s.object.partition(" of ")[0]]
    return guarded_statements(texts) + own_setting_blocks(facts, platform) + setting_blocks(facts, platform)


def hosted_sequences(facts: SourceFacts) -> str:
    """The user's as they were; the platform's, which count what the platform makes, as far as it lets us."""
    mine = replace(facts, sequences=tuple(s for s in facts.sequences if not s.managed))
    texts = [sequence_blocks(mine)]
    for state in facts.sequences:
        if state.managed:
            name = ".".join('"' + part.replace('"', '""') + '"' for part in (state.schema, state.name))
            words = f"{quote_literal(name).strip()}, {state.last_value}, {'true' if state.is_called else 'false'}"
            make = f"BEGIN PERFORM pg_catalog.setval({words}); EXCEPTION WHEN insufficient_privilege THEN NULL; END;"
            texts.append(block(make, f"sequence {name}"))
    return "".join(texts)


def _names(others: Sequence[str]) -> str:
    return ", ".join(map(quote_ident, others))


def _list(others: Sequence[str]) -> str:
    return ", ".join(["PUBLIC", _names(others)]) if others else "PUBLIC"


def _name(entry: Entry) -> str:
    return f"{quote_ident(entry.schema)}.{quote_ident(entry.tag)}"


def open_roles(facts: SourceFacts) -> list[str]:
    """Those to whom a platform's default privileges give new objects."""
    return [r.name for r in facts.roles if r.name in _OPEN_ROLES]


def around_rows(facts: TableFacts) -> tuple[str, str]:
    """What stands before and after the COPY of a platform's table: its triggers must not fire."""
    before = "SET session_replication_role = replica;\n"
    before += guarded(f"DELETE FROM ONLY {facts.qname.sql}", f"rows of {facts.qname}") + "\\set ON_ERROR_STOP off\n"
    after = (
        "\\if :ERROR\nSET pgkura.refused = 'yes';\n\\endif\n"
        "\\set ON_ERROR_STOP on\nSET session_replication_role = origin;\n"
    )
    return before, after


def secrets_and_jobs(facts: SourceFacts) -> str:
    """Secrets under new ids, jobs switched off: `cron.alter_job(jobid, active := true)` lets them run again."""
    blocks = []
    for name, description, secret in facts.secrets:
        words = f"{_text(secret)}, {_text(name) if name else 'NULL'}, {_text(description)}"
        blocks.append(block(f"PERFORM vault.create_secret({words});", f"vault secret {name or '(unnamed)'}"))
    for name, schedule, command, _, _, _ in facts.cron_jobs:
        words = ", ".join(_text(w) for w in ((name,) if name else ()) + (schedule, command))
        make = f"PERFORM cron.alter_job(job_id := cron.schedule({words}), active := false);"
        blocks.append(block(make, f"cron job {name or command}"))
    return "".join(blocks)


def _text(value: str) -> str:
    return f"{quote_literal(value).strip()}::text"


_SETTINGS = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedScripts:
    """The way into a fresh project, in the order of its parts; rows go between `definitions` and `values`."""

    definitions: str
    values: str
    after_rows: str
    permissions: str
    views: str
    database: str
    last: str

    @property
    def after(self) -> str:
        """All that follows the rows, as one text without a verdict."""
        parts = (self.values, self.after_rows, self.permissions, self.views, self.database, self.last)
        return "".join(parts)


def hosted_scripts(facts: SourceFacts, toc: Toc, items: Items, platform: Platform) -> HostedScripts:
    """Blocks only: whoever writes them down adds the settings before and the verdict behind."""
    entries = [e for e in toc.entries if e.desc not in _SETTINGS and e.subject != "DATABASE"]
    ours = [e for e in entries if not is_platforms(e, platform)]
    late_ids = {e.dump_id for e in toc.after_rows()}
    before, early, _ = in_passes(e for e in ours if e.dump_id not in late_ids)
    later, late, last = in_passes(e for e in ours if e.dump_id in late_ids)
    others = open_roles(facts)
    matviews = [QualifiedName(e.schema, e.tag) for e in before if e.desc == "MATERIALIZED VIEW"]
    return HostedScripts(
        definitions=guarded_definitions(before, others),
        values=hosted_sequences(facts) + large_object_blocks(facts),
        after_rows=guarded_definitions(later, ()),
        permissions=opening(before, facts, others)
        + own_defaults(items, platform, others)
        + guarded_statements((definition(e), e.title) for e in (*early, *late)),
        views=view_blocks(facts, matviews),
        database=own_database(facts, platform) + secrets_and_jobs(facts),
        last=guarded_definitions(last, ()),
    )


def hosted_components(
    facts: SourceFacts, toc: Toc, items: Items, platform: Platform, tables: Sequence[TableData]
) -> dict[str, str]:
    """What the repository's own script needs to go into a fresh project; nothing for a plain database."""
    if platform.name == "plain":
        return {}
    scripts = hosted_scripts(facts, toc, items, platform)
    filled = [t for t in tables if t.number != BLOBS and t.layers]
    skipped = [t for t in filled if not is_loaded(facts.tables[t.number], platform)]
    managed = [t for t in filled if t not in skipped and facts.tables[t.number].managed]
    empty = guarded_statements((f"DELETE FROM ONLY {t.target}", f"rows of {t.name}") for t in managed)
    rows = [f"skip\t{t.number}\n" for t in skipped] + [f"managed\t{t.number}\n" for t in managed]
    return {
        "hosted-before.sql": as_script(
            role_blocks(facts, platform)
            + scripts.definitions
            + f"SET session_replication_role = replica;\n{empty}SET session_replication_role = origin;\n"
        ),
        "hosted-rows": "pgkura-hosted-rows\t1\n" + "".join(rows),
        "hosted-after.sql": as_script(scripts.after),
    }
