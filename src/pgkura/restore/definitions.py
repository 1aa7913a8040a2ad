"""Executes definitions, many in one script, and what is done once all are there."""

from collections.abc import Callable, Container, Iterator, Sequence, Set
from itertools import groupby

from pgkura.catalog.render import definition, ownership
from pgkura.catalog.toc import Entry
from pgkura.core.facts import SequenceState
from pgkura.core.names import QualifiedName, quote_literal
from pgkura.core.outcome import FindingClass
from pgkura.postgres.session import Session, SqlError
from pgkura.restore.closing import closed_by, unforced
from pgkura.restore.guests import Guests
from pgkura.restore.key_steps import KeySteps
from pgkura.restore.marker import plain
from pgkura.restore.parallel import Job, Work, run_jobs
from pgkura.restore.run import Run, execute, execute_as_owner, script

# Entries that are executed as one script: each holds locks until it ends.
_AT_ONCE = 64
# From so many tables on, several connections make them.
_MANY = 2 * _AT_ONCE
_APART = frozenset({"TABLE", "SEQUENCE"})
_BESIDE = frozenset({"SEQUENCE OWNED BY", "DEFAULT", "COMMENT"})


def before_rows(run: Run, session: Session, guests: Guests) -> None:
    """Each object is made, shut and given to its owner before the next, or all of a script at once."""
    closed = run.plan.closed
    run.progress.stage("definitions", total=len(run.plan.before), unit="objects")

    def more(entry: Entry) -> str:
        return closed_by(entry, run.others, relations=closed) + (unforced(entry) if closed else "")

    for entries, apart in stretches(run.plan.before, run.plan.as_owner):
        batches = [entries[start : start + _AT_ONCE] for start in range(0, len(entries), _AT_ONCE)]
        if apart:
            _side_by_side(run, guests, batches, more)
            continue
        for batch in batches:
            execute_entries(run, session, guests, batch, more)
            run.progress.advance(len(batch))


def stretches(entries: Sequence[Entry], alone: Set[int]) -> Iterator[tuple[Sequence[Entry], bool]]:
    """All entries in an order that dependencies allow, and whether those put together know nothing of each other.
    Pure.

    A table takes files, and the index of its long values is flushed to the disk by itself: thousands of them one
    after the other are thousands of times waiting for the disk.
    """
    tables = {e.dump_id for e in entries if e.desc == "TABLE"}  # heirs lock those that they inherit from
    for relations, group in groupby(entries, lambda e: e.desc in _APART | _BESIDE):
        stretch = list(group)
        others = tables | {e.dump_id for e in stretch}
        free = [e for e in stretch if e.desc in _APART and e.dump_id not in alone and others.isdisjoint(e.deps)]
        if not relations or len(free) < _MANY:
            yield stretch, False
            continue
        yield free, True
        taken = {e.dump_id for e in free}
        yield [e for e in stretch if e.dump_id not in taken], False


def _side_by_side(run: Run, guests: Guests, batches: Sequence[Sequence[Entry]], more: Callable[[Entry], str]) -> None:
    def work(batch: Sequence[Entry]) -> Callable[[Session], None]:
        return lambda session: execute_entries(run, session, guests, batch, more)

    jobs = [
        Job(gives=frozenset(e.dump_id for e in batch), size=len(batch), light=True, work=work(batch))
        for batch in batches
    ]
    for job, _ in run_jobs(jobs, None, run.open, parallel=run.plan.options.parallel, stop=run.stop):
        run.progress.advance(job.size)


def execute_entries(
    run: Run, session: Session, guests: Guests, entries: Sequence[Entry], more: Callable[[Entry], str] = lambda _: ""
) -> None:
    """In their order; neighbours in one script, which is one transaction, and by themselves where that fails."""
    together: list[Entry] = []
    for entry in entries:
        if entry.dump_id in run.plan.as_owner:
            _script(run, session, guests, together, more)
            together = []
            _one(run, session, guests, entry, more(entry))
        elif entry.dump_id not in run.there:
            together.append(entry)
    _script(run, session, guests, together, more)


def _script(run: Run, session: Session, guests: Guests, entries: Sequence[Entry], more: Callable[[Entry], str]) -> None:
    run.stop.check()
    if len(entries) > 1:
        texts = ((definition(e), more(e), ownership(e)) for e in entries)
        try:
            script(session, "".join((text + rest if text else "") + owner for text, rest, owner in texts))
        except SqlError:
            if session.broken:
                raise
        else:
            return
    for entry in entries:
        run.stop.check()
        _one(run, session, guests, entry, more(entry))


def _one(run: Run, session: Session, guests: Guests, entry: Entry, more: str) -> None:
    text = definition(entry)
    if entry.dump_id in run.there:
        return
    if entry.dump_id in run.plan.as_owner and text:
        execute_as_owner(run, session, guests, entry, text + more)
    else:
        execute(run, session, entry, text + more if text else "")


def key_in_two(run: Run, entry: Entry, steps: KeySteps) -> tuple[Work, Work]:
    """What builds the index, and what makes it the key; as the archive says it where the server refuses that."""
    built = False

    def index(session: Session) -> None:
        nonlocal built
        run.stop.check()
        try:
            session.script(steps.index)
        except SqlError:
            if session.broken:
                raise
        else:
            built = True

    def key(session: Session) -> None:
        run.stop.check()
        if built:
            try:
                session.script(steps.key)
                return
            except SqlError:
                if session.broken:
                    raise
                session.script(f"DROP INDEX {QualifiedName(entry.schema, steps.name)}")
        execute(run, session, entry, definition(entry))

    return index, key


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
    try:
        script(session, "".join(map(_setval, states)))
        return
    except SqlError:
        if session.broken:
            raise
    for state in states:
        try:
            session.script(_setval(state))
        except SqlError as error:
            if session.broken:
                raise
            # The platform's own sequences are compared with the snapshot later, like all others.
            if not state.managed:
                run.refused(f"value of sequence {state.qname}", error)
        run.progress.advance(1)


def _setval(state: SequenceState) -> str:
    name = quote_literal(_as_regclass(state.qname))
    called = "true" if state.is_called else "false"
    return f"SELECT pg_catalog.setval({name}::pg_catalog.regclass, {state.last_value}, {called});\n"


def analyze(run: Run, session: Session) -> None:
    """Planner statistics of what was loaded and has none yet."""
    tables = [load.target for load in run.plan.loads if load.data.layers and not load.managed]
    left = [table for table in dict.fromkeys(tables) if table not in run.analyzed]
    run.progress.stage("statistics", total=len(left), unit="tables")
    for start in range(0, len(left), _AT_ONCE):
        run.stop.check()
        analyze_tables(run, session, left[start : start + _AT_ONCE])
        run.progress.advance(len(left[start : start + _AT_ONCE]))


def analyze_tables(run: Run, session: Session, tables: Sequence[QualifiedName]) -> None:
    """They are no state: a table that refuses is a note, no finding."""
    run.analyzed.update(tables)
    try:
        session.execute(f"ANALYZE {', '.join(table.sql for table in tables)}")
    except SqlError as error:
        if session.broken:
            raise
        if len(tables) == 1:
            run.progress.note(f"no statistics for {tables[0]}: {error.msg}")
            return
        for table in tables:
            analyze_tables(run, session, [table])


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
