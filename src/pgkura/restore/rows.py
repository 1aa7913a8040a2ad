"""The rows: which connection loads which table, so that no code of others runs with more rights than theirs."""

from collections.abc import Iterable

from pgkura.catalog.grants import grant_statements
from pgkura.core.names import QualifiedName, quote_ident, quote_literal
from pgkura.core.outcome import FindingClass
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.restore.guests import Guests
from pgkura.restore.load import Loaded, load_large_objects, load_table
from pgkura.restore.loading import load_all
from pgkura.restore.loads import Load
from pgkura.restore.paths import search_path, trusted_path
from pgkura.restore.run import Run, untrusted

_REFERENCED = "0A000"


def restore_rows(run: Run, session: Session, guests: Guests) -> int:
    """All tables; returns the rows loaded."""
    loads = [load for load in run.plan.loads if load.data.layers]
    if run.plan.empty and not _empty(run, session):
        loads = [load for load in loads if load.target not in run.plan.empty]
    exposed = {QualifiedName(s, n): str(o) for s, n, o, _ in session.rows(query("target", "exposed"))}
    as_owner = [x for x in loads if not run.plan.options.trust_code and not x.managed and x.target in exposed]
    trusted = [x for x in loads if x not in as_owner]
    run.progress.stage("rows", total=sum(x.data.bytes for x in loads), unit="bytes")
    paths = _Paths(run, session)
    rows = _collect(run, load_all(run, session, [(load, paths.of(load)) for load in trusted]))
    return rows + _collect(run, (_as_owner(run, guests, load, exposed[load.target]) for load in as_owner))


def _collect(run: Run, results: Iterable[Loaded]) -> int:
    rows = 0
    for loaded in results:
        rows += loaded.rows
        if loaded.finding is not None:
            run.findings.append(loaded.finding)
        if loaded.by_path:
            run.progress.note(f"rows of {loaded.load.target} needed the source's own search_path")
    return rows


class _Paths:
    """The search_path a table may be loaded under when its checks ask for one; '' where that is not safe."""

    def __init__(self, run: Run, session: Session) -> None:
        self._run = run
        self._session = session
        self._safe: dict[str, bool] = {}

    def of(self, load: Load) -> str:
        """A SET clause, or ''."""
        if load.managed or load.facts is None:
            return ""
        clause = search_path(self._run.plan.facts, load.facts.owner)
        if clause not in self._safe:
            self._safe[clause] = self._run.plan.options.trust_code or trusted_path(self._session, clause)
        return clause if self._safe[clause] else ""


def _as_owner(run: Run, guests: Guests, load: Load, owner: str) -> Loaded:
    with guests.lock:
        reason = guests.why_not(owner)
        if reason:
            run.tell(FindingClass.LOST, f"rows of {load.target}", untrusted("loading it", reason))
            return Loaded(load=load, rows=0)
        guests.admit(owner)
        loaded = load_table(guests.session(owner), run.repo, load, run.stop, search_path(run.plan.facts, owner))
    run.progress.advance(load.data.bytes)
    return loaded


def _empty(run: Run, session: Session) -> bool:
    """Empty the platform's tables together; False, with findings, where the server refuses."""
    tables = ", ".join(t.sql for t in run.plan.empty)
    session.replica_role()
    try:
        try:
            session.execute(f"TRUNCATE {tables}")
        except SqlError as error:
            if session.broken or error.sqlstate not in (_REFERENCED, "42501"):
                raise
            # Another table's foreign key points there, or only DELETE is allowed; in this role no trigger fires.
            session.script("".join(f"DELETE FROM ONLY {t.sql};\n" for t in run.plan.empty))
    except SqlError as error:
        if session.broken:
            raise
        for table in run.plan.empty:
            run.refused(f"rows of {table}", error)
        return False
    finally:
        if not session.broken:
            session.execute("SET session_replication_role = origin")
    return True


def restore_large_objects(run: Run, session: Session) -> None:
    """Contents, then owner, comment and privileges of each."""
    facts = run.plan.large_objects
    if not facts:
        return
    run.progress.stage("large objects", total=run.plan.blobs.bytes if run.plan.blobs else 0, unit="bytes")
    load_large_objects(session, run.repo, run.plan.blobs, [o.oid for o in facts], run.stop, run.progress)
    for large in facts:
        run.stop.check()
        name = f"LARGE OBJECT {large.oid}"
        title = f"large object {large.oid}"
        run.attempt(session, f"owner of {title}", f"ALTER {name} OWNER TO {quote_ident(large.owner)}")
        if large.comment:
            run.attempt(session, f"comment of {title}", f"COMMENT ON {name} IS {quote_literal(large.comment)}")
        for sql in grant_statements(name, large.acl, skip=large.owner):
            run.attempt(session, f"privileges of {title}", sql)
