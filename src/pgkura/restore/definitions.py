"""Definitions: those before the rows in archive order, those after them in parallel."""

from collections.abc import Container

from pgkura.catalog.render import definition
from pgkura.catalog.toc import Entry
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import FindingClass
from pgkura.postgres.session import Session, SqlError
from pgkura.restore.closing import closed_by, unforced
from pgkura.restore.guests import Guests
from pgkura.restore.marker import plain
from pgkura.restore.parallel import graph, run_parallel
from pgkura.restore.run import Run, execute, execute_as_owner


def before_rows(run: Run, session: Session, guests: Guests) -> None:
    """Each object is made, shut and given to its owner before the next."""
    closed = run.plan.closed
    run.progress.stage("definitions", total=len(run.plan.before), unit="objects")
    for entry in run.plan.before:
        run.stop.check()
        more = closed_by(entry, run.others, relations=closed) + (unforced(entry) if closed else "")
        _one(run, session, guests, entry, more)
        run.progress.advance(1)


def after_rows(run: Run, guests: Guests) -> None:
    """Indexes, constraints, triggers, policies: what belongs to the largest tables first, dependencies before all."""
    plan = run.plan
    tables = {e.dump_id: QualifiedName(e.schema, e.tag) for e in plan.before if e.desc == "TABLE"}
    sizes = {load.target: load.data.bytes for load in plan.loads}

    def weight(entry: Entry) -> int:
        return max((sizes.get(tables[d], 0) for d in entry.deps if d in tables), default=0)

    nodes = graph(sorted(plan.after, key=weight, reverse=True), frozenset(tables))
    run.progress.stage("indexes, constraints, triggers", total=len(nodes), unit="objects")
    run_parallel(
        nodes,
        lambda session, entry: _one(run, session, guests, entry, ""),
        run.open,
        parallel=plan.options.parallel,
        stop=run.stop,
        progress=run.progress,
    )


def _one(run: Run, session: Session, guests: Guests, entry: Entry, more: str) -> None:
    text = definition(entry)
    if entry.dump_id in run.there:
        return
    if entry.dump_id in run.plan.as_owner and text:
        execute_as_owner(run, session, guests, entry, text + more)
    else:
        execute(run, session, entry, text + more if text else "")


def refresh_views(run: Run, session: Session) -> None:
    """Materialized views that were populated, with everybody's privileges in place: each is filled as its owner.

    In archive order, so that one that reads another comes after it; what a function hides is tried again.
    """
    populated = {t.qname for t in run.plan.facts.tables if t.kind == "m" and t.populated}
    left = [
        e
        for e in run.plan.before
        if e.desc == "MATERIALIZED VIEW" and QualifiedName(e.schema, e.tag) in populated and e.dump_id not in run.failed
    ]
    if not left:
        return
    run.progress.stage("materialized views", total=len(left), unit="views")
    while left:
        refused = [(e, error) for e in left if (error := _refresh(run, session, e)) is not None]
        if len(refused) == len(left):
            for entry, error in refused:
                run.refused(run.title(entry), error)
            return
        left = [e for e, _ in refused]


def _refresh(run: Run, session: Session, entry: Entry) -> SqlError | None:
    run.stop.check()
    try:
        session.execute(f"REFRESH MATERIALIZED VIEW {QualifiedName(entry.schema, entry.tag)}")
    except SqlError as error:
        if session.broken:
            raise
        return error
    run.progress.advance(1)
    return None


def sequence_values(run: Run, session: Session, *, schemas: Container[str] | None = None) -> None:
    """Where each sequence stood; of these schemas only, if given."""
    states = [s for s in run.plan.sequences if schemas is None or s.schema in schemas]
    if states:
        run.progress.stage("sequences", total=len(states), unit="sequences")
    for state in states:
        try:
            session.execute(
                "SELECT pg_catalog.setval(%s::pg_catalog.regclass, %s, %s)",
                (_as_regclass(state.qname), state.last_value, state.is_called),
            )
        except SqlError as error:
            if session.broken:
                raise
            # The platform's own sequences are compared with the snapshot later, like all others.
            if not state.managed:
                run.refused(f"value of sequence {state.qname}", error)
        run.progress.advance(1)


def analyze(run: Run, session: Session) -> None:
    """Planner statistics of what was loaded. They are no state: a table that refuses is a note, no finding."""
    tables = [load.target for load in run.plan.loads if load.data.layers and not load.managed]
    run.progress.stage("statistics", total=len(tables), unit="tables")
    for table in tables:
        run.stop.check()
        try:
            session.execute(f"ANALYZE {table.sql}")
        except SqlError as error:
            if session.broken:
                raise
            run.progress.note(f"no statistics for {table}: {error.msg}")
        run.progress.advance(1)


def cleared(run: Run, entries: tuple[Entry, ...]) -> None:
    """What clearing a cut-short restore could not drop must be just what would be made again."""
    wanted = {plain(e.key): e for e in (*run.plan.before, *run.plan.after, *run.plan.last)}
    for entry in entries:
        if entry.desc in ("ACL", "DEFAULT ACL"):
            continue  # cannot be dropped, are given again, and the proof compares them
        made = wanted.get(plain(entry.key))
        if made is None or definition(made) != definition(entry):
            run.tell(FindingClass.LOST, entry.title, "a restore that was cut short left it, and it cannot be dropped")
        else:
            run.there.add(made.dump_id)


def _as_regclass(name: QualifiedName) -> str:
    """Quoted as regclass reads text, which knows no U&"..." form."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (name.schema, name.name))
