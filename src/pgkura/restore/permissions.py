"""Opening: what was shut while rows loaded gets exactly the privileges and row security it had."""

from pgkura.catalog.kinds import Stage
from pgkura.catalog.reconcile import GRANTABLE, reconcile, reconcile_defaults, reconcile_parameters
from pgkura.catalog.render import definition
from pgkura.catalog.toc import Entry
from pgkura.core.facts import TableFacts
from pgkura.core.names import QualifiedName
from pgkura.postgres.inventory import read_inventory
from pgkura.postgres.session import Session
from pgkura.restore.closing import opened_to_default
from pgkura.restore.run import Run, statement


def open_again(run: Run, session: Session) -> None:
    """Undo the closing, run the archive's own statements, then make equal what default privileges changed."""
    plan = run.plan
    run.progress.stage(Stage.PERMISSIONS.value, total=len(plan.privileges), unit="objects")
    tables = {t.qname: t for t in plan.facts.tables}
    for entry in plan.before:
        if entry.dump_id not in run.failed:
            text = opened_to_default(entry, run.others, relations=plan.closed)
            if plan.closed and entry.desc == "TABLE":
                text += _row_security(entry, tables)
            statement(run, session, entry, text)
    for entry in plan.privileges:
        run.stop.check()
        statement(run, session, entry, definition(entry))
        run.progress.advance(1)
    _exactly(run, session)


def _row_security(entry: Entry, tables: dict[QualifiedName, TableFacts]) -> str:
    name = QualifiedName(entry.schema, entry.tag)
    facts = tables.get(name)
    if facts is None:
        return ""
    enabled = "ENABLE" if facts.row_security else "DISABLE"
    forced = "FORCE" if facts.force_row_security else "NO FORCE"
    return f"ALTER TABLE {name} {enabled} ROW LEVEL SECURITY, {forced} ROW LEVEL SECURITY;\n"


def _exactly(run: Run, session: Session) -> None:
    """What default privileges gave or took beyond the archive's statements, and what no archive states."""
    have = {(i.cls, i.identity): i.attributes for i in read_inventory(session, GRANTABLE)}
    me = str(session.one("SELECT pg_catalog.quote_ident(current_user)")[0])
    wanted = run.plan.wanted_acls
    for needed in (
        *reconcile(wanted, have),
        *reconcile_defaults(wanted, have, me),
        *reconcile_parameters(wanted, have),
    ):
        run.attempt(session, needed.object, needed.sql)
