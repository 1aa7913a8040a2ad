"""Executes a restore plan and nothing else. The server's refusals become findings; errors of ours end the run."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgkura.catalog.grants import grant_statements
from pgkura.catalog.kinds import Stage
from pgkura.catalog.reconcile import GRANTABLE, reconcile, reconcile_defaults, reconcile_parameters
from pgkura.catalog.render import definition, ownership
from pgkura.catalog.roles import Statement, set_clause
from pgkura.catalog.toc import Entry
from pgkura.core.errors import PlanOutdated
from pgkura.core.names import QualifiedName, quote_ident, quote_literal
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.inventory import read_inventory
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError, connect
from pgkura.repository.repository import Repository
from pgkura.restore.closing import closed_by, opened_to_default
from pgkura.restore.guests import Guests
from pgkura.restore.load import Loaded, Loader, load_large_objects, load_table
from pgkura.restore.marker import drop_marker, put_marker, start_over
from pgkura.restore.parallel import graph, run_parallel
from pgkura.restore.planner import Load, RestorePlan, fingerprint, title_of
from pgkura.restore.platform_state import restore_jobs, restore_secrets
from pgkura.restore.target import dump_definitions

# What building indexes may use on the target; the server's own default is made for many small statements.
_MAINTENANCE_MEMORY = "256MB"
# Errors that a different search_path may cure: a function body or expression that names things without a schema.
_NAME_ERRORS = frozenset({"42883", "42704", "42P01", "42725", "3F000"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What came of it."""

    findings: tuple[Finding, ...]
    rows: int
    seconds: float


class Executor:
    """One run of one plan."""

    def __init__(self, plan: RestorePlan, endpoint: Endpoint, repo: Repository, progress: Progress, stop: Stop) -> None:
        self._plan = plan
        self._endpoint = endpoint
        self._repo = repo
        self._progress = progress
        self._stop = stop
        self._findings: list[Finding] = list(plan.findings)
        self._failed: set[int] = set()
        self._others: tuple[str, ...] = ()

    def run(self) -> Restored:
        """Raises PlanOutdated, DatabaseError, Tampered; whatever was done until then is cleared by the next run."""
        begun = time.monotonic()
        with self._open() as session:
            marked = self._begin(session)
            self._statements(session, Stage.ROLES, self._plan.roles)
            self._definitions(session)
            rows = self._rows(session)
            self._large_objects(session)
            self._after_rows()
            self._sequences(session)
            self._views(session)
            self._open_again(session)
            self._privileges_exactly(session)
            self._statements(session, None, self._plan.database)
            self._findings.extend(restore_secrets(session, self._plan.facts))
            self._findings.extend(restore_jobs(session, self._plan.facts))
            self._analyze(session)
            self._end(session, marked)
        return Restored(findings=tuple(self._findings), rows=rows, seconds=time.monotonic() - begun)

    def _open(self) -> Session:
        session = connect(self._endpoint, application_name="pgkura restore")
        session.execute(f"SET maintenance_work_mem = '{_MAINTENANCE_MEMORY}'")
        session.execute("SET synchronous_commit = off")
        for setting in self._plan.reading:
            session.script(setting)
        return session

    def _begin(self, session: Session) -> bool:
        present = dump_definitions(self._endpoint, session.server_version)
        if fingerprint(present) != self._plan.fingerprint:
            raise PlanOutdated(
                f"{self._plan.target} changed since the plan was made",
                hint="nothing was touched; run it again to get a new plan",
            )
        if self._plan.started_over:
            start_over(session, present, self._progress)
            present = dump_definitions(self._endpoint, session.server_version)
        self._others = tuple(r for (r,) in session.rows(query("target", "default_grantees")) if r)
        taken = frozenset(o for (o,) in session.rows(query("target", "large_objects")))
        return put_marker(session, self._plan.snapshot, present, taken)

    # --- definitions

    def _definitions(self, session: Session) -> None:
        """Before the rows, in archive order."""
        self._progress.stage("definitions", total=len(self._plan.before), unit="objects")
        for entry in self._plan.before:
            self._stop.check()
            text = definition(entry)
            if self._plan.closed:
                text += closed_by(entry, self._others)
            self._entry(session, entry, text)
            self._owner(session, entry)
            self._progress.advance(1)

    def _entry(self, session: Session, entry: Entry, text: str) -> None:
        if not text.strip():
            return
        try:
            self._script(session, text)
        except SqlError as error:
            if session.broken:
                raise
            if not session.in_transaction and error.sqlstate in _NAME_ERRORS and self._again_with_path(session, text):
                self._progress.note(f"{entry.title} needed the database's own search_path")
                return
            self._failed.add(entry.dump_id)
            self._refused(title_of(entry), error)

    def _again_with_path(self, session: Session, text: str) -> bool:
        path = next((s for s in self._plan.facts.database.settings if s.startswith("search_path=")), "")
        clause = set_clause(path) if path else "SET search_path TO 'public', 'extensions'"
        try:
            session.execute(clause)
            session.script(text)
        except SqlError:
            return False
        finally:
            if not session.broken:
                session.script("ROLLBACK" if session.in_transaction else "")
                session.execute("SET search_path = ''")
        return True

    def _owner(self, session: Session, entry: Entry) -> None:
        text = ownership(entry)
        if not text or entry.dump_id in self._failed:
            return
        try:
            self._script(session, text)
        except SqlError as error:
            if session.broken:
                raise
            self._refused(f"owner of {title_of(entry)}", error)

    def _script(self, session: Session, text: str) -> None:
        if not session.in_transaction:
            session.script(text)
            return
        with session.savepoint():
            session.script(text)

    def _entries(self, session: Session, stage: str, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        self._progress.stage(stage, total=len(entries), unit="objects")
        for entry in entries:
            self._stop.check()
            self._entry(session, entry, definition(entry))
            self._owner(session, entry)
            self._progress.advance(1)

    def _statements(self, session: Session, stage: Stage | None, statements: Sequence[Statement]) -> None:
        if not statements:
            return
        self._progress.stage(stage.value if stage else "database settings", total=len(statements), unit="statements")
        for statement in statements:
            try:
                session.script(statement.sql)
            except SqlError as error:
                if session.broken:
                    raise
                self._refused(statement.object, error)
            self._progress.advance(1)

    def _refused(self, name: str, error: SqlError) -> None:
        cls = FindingClass.DENIED if error.sqlstate == "42501" else FindingClass.LOST
        self._findings.append(Finding(cls=cls, object=name, reason=error.msg))

    # --- rows

    def _rows(self, session: Session) -> int:
        if self._plan.truncate:
            self._empty(session, self._plan.truncate)
        exposed = {QualifiedName(s, n): (o, su) for s, n, o, su in session.rows(query("target", "exposed"))}
        loads = [load for load in self._plan.loads if load.data.chunks]
        guarded = [] if self._plan.options.trust_code else [x for x in loads if not x.managed and x.target in exposed]
        trusted = [x for x in loads if x not in guarded]
        self._progress.stage("rows", total=sum(x.data.bytes for x in loads), unit="bytes")
        loader = Loader(self._open, self._repo, self._plan.options.parallel, self._stop)
        rows = self._collect(loader.run(trusted, self._progress))
        if guarded:
            with Guests(session, self._endpoint) as guests:
                for load in guarded:
                    rows += self._load_as_owner(guests, load, *exposed[load.target])
        return rows

    def _collect(self, results: Iterable[Loaded]) -> int:
        rows = 0
        for loaded in results:
            rows += loaded.rows
            if loaded.finding is not None:
                self._findings.append(loaded.finding)
        return rows

    def _load_as_owner(self, guests: Guests, load: Load, owner: str, owner_is_superuser: bool) -> int:
        """Through a login that is nobody but the table's owner: its checks may run, and gain nothing."""
        reason = "its owner is a superuser" if owner_is_superuser else guests.why_not(owner)
        if reason:
            self._findings.append(
                Finding(
                    cls=FindingClass.LOST,
                    object=f"rows of {load.target}",
                    reason=f"loading it would run functions of other roles with your rights ({reason}); "
                    "look at them, then restore with --trust-code",
                )
            )
            return 0
        loaded = load_table(guests.session(owner), self._repo, load, self._stop)
        self._progress.advance(load.data.bytes)
        if loaded.finding is not None:
            self._findings.append(loaded.finding)
        return loaded.rows

    def _empty(self, session: Session, tables: Sequence[QualifiedName]) -> None:
        session.replica_role()
        try:
            session.execute("TRUNCATE " + ", ".join(t.sql for t in tables))
        finally:
            session.execute("SET session_replication_role = origin")

    def _large_objects(self, session: Session) -> None:
        facts = self._plan.facts.large_objects
        if not facts or self._plan.blobs is None:
            return
        self._progress.stage("large objects", total=self._plan.blobs.bytes, unit="bytes")
        load_large_objects(session, self._repo, self._plan.blobs, [o.oid for o in facts], self._stop, self._progress)
        for large in facts:
            statements = [f"ALTER LARGE OBJECT {large.oid} OWNER TO {quote_ident(large.owner)}"]
            if large.comment:
                statements.append(f"COMMENT ON LARGE OBJECT {large.oid} IS {quote_literal(large.comment)}")
            statements += grant_statements(f"LARGE OBJECT {large.oid}", large.acl, skip=large.owner)
            for sql in statements:
                try:
                    session.execute(sql)
                except SqlError as error:
                    if session.broken:
                        raise
                    self._refused(f"{'owner' if 'OWNER' in sql else 'privileges'} of large object {large.oid}", error)

    # --- after the rows

    def _after_rows(self) -> None:
        tables = {e.dump_id: (e.schema, e.tag) for e in self._plan.before if e.desc == "TABLE"}
        sizes = {(load.target.schema, load.target.name): load.data.bytes for load in self._plan.loads}

        def weight(entry: Entry) -> int:
            return max((sizes.get(tables[d], 0) for d in entry.deps if d in tables), default=0)

        # What belongs to the largest tables begins first; dependencies are kept by the schedule.
        nodes = graph(sorted(self._plan.after, key=weight, reverse=True), frozenset(tables))
        self._progress.stage("indexes, constraints, triggers", total=len(nodes), unit="objects")

        def execute(session: Session, entry: Entry) -> None:
            self._entry(session, entry, definition(entry))
            self._owner(session, entry)

        run_parallel(
            nodes,
            execute,
            self._open,
            parallel=self._plan.options.parallel,
            stop=self._stop,
            progress=self._progress,
        )

    def _sequences(self, session: Session) -> None:
        states = self._plan.facts.sequences
        self._progress.stage(Stage.SEQUENCES.value, total=len(states), unit="sequences")
        for state in states:
            try:
                session.execute(
                    "SELECT pg_catalog.setval(%s::pg_catalog.regclass, %s, %s)",
                    (_as_regclass(state.qname), state.last_value, state.is_called),
                )
            except SqlError as error:
                if session.broken:
                    raise
                if not state.managed:
                    self._refused(f"value of sequence {state.qname}", error)
            self._progress.advance(1)

    def _views(self, session: Session) -> None:
        """Materialized views that were populated, in archive order: one that reads another comes after it."""
        populated = {(t.schema, t.name) for t in self._plan.facts.tables if t.kind == "m" and t.populated}
        views = [e for e in self._plan.before if e.desc == "MATERIALIZED VIEW" and (e.schema, e.tag) in populated]
        if not views:
            return
        self._progress.stage("materialized views", total=len(views), unit="views")
        for entry in views:
            name = f"{quote_ident(entry.schema)}.{quote_ident(entry.tag)}"
            self._entry(session, entry, f"REFRESH MATERIALIZED VIEW {name};\n")
            self._progress.advance(1)

    # --- permissions

    def _open_again(self, session: Session) -> None:
        total = len(self._plan.privileges)
        self._progress.stage(Stage.PERMISSIONS.value, total=total, unit="objects")
        if self._plan.closed:
            self._unclose(session)
        for entry in self._plan.privileges:
            self._stop.check()
            self._entry(session, entry, definition(entry))
            self._progress.advance(1)

    def _unclose(self, session: Session) -> None:
        """Undo what closing did, table by table in the transaction that also gives the true privileges."""
        secured = {(t.schema, t.name) for t in self._plan.facts.tables if t.row_security}
        for entry in self._plan.before:
            if entry.dump_id in self._failed:
                continue
            text = opened_to_default(entry, self._others)
            if entry.desc == "TABLE" and (entry.schema, entry.tag) not in secured:
                text += (
                    f"ALTER TABLE {quote_ident(entry.schema)}.{quote_ident(entry.tag)} DISABLE ROW LEVEL SECURITY;\n"
                )
            self._entry(session, entry, text)

    def _privileges_exactly(self, session: Session) -> None:
        """What default privileges gave or took beyond the archive's statements, and what no archive states."""
        have = {(i.cls, i.identity): i.attributes for i in read_inventory(session, GRANTABLE)}
        me = str(session.one("SELECT pg_catalog.quote_ident(current_user)")[0])
        wanted = self._plan.wanted_acls
        statements = (
            *reconcile(wanted, have),
            *reconcile_defaults(wanted, have, me),
            *reconcile_parameters(wanted, have),
        )
        for statement in statements:
            try:
                session.execute(statement.sql)
            except SqlError as error:
                if session.broken:
                    raise
                self._refused(statement.object, error)

    def _end(self, session: Session, marked: bool) -> None:
        """The mark goes and event triggers come in one transaction: they must not fire for our own work."""
        session.begin(isolation="read committed", read_only=False)
        if marked:
            drop_marker(session)
        self._entries(session, "event triggers", self._plan.last)
        session.commit()

    def _analyze(self, session: Session) -> None:
        """Planner statistics of what was loaded. They are no state: a table that refuses is a note, no finding."""
        tables = [load.target for load in self._plan.loads if load.data.chunks and not load.managed]
        self._progress.stage("statistics", total=len(tables), unit="tables")
        for table in tables:
            self._stop.check()
            try:
                session.execute(f"ANALYZE {table.sql}")
            except SqlError as error:
                if session.broken:
                    raise
                self._progress.note(f"no statistics for {table}: {error.msg}")
            self._progress.advance(1)


def _as_regclass(name: QualifiedName) -> str:
    """Quoted as regclass reads text, which knows no U&"..." form."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (name.schema, name.name))
