"""A restore that was cut short leaves its mark, so that the next one knows its own half-done work and starts clean."""

import json

from pgkura.catalog.toc import Entry, Toc
from pgkura.core.names import quote_ident
from pgkura.core.progress import Progress
from pgkura.postgres.session import Session, SqlError
from pgkura.restore.target import MARKER_SCHEMA

_PASSES = 4
_SCHEMA = quote_ident(MARKER_SCHEMA)


def put_marker(session: Session, snapshot: str, present: Toc, large_objects: frozenset[int]) -> bool:
    """Write the mark with what was there before; False where the role may not create a schema."""
    before = json.dumps(
        {"entries": sorted({"\x1f".join(e.key) for e in present.entries}), "large_objects": sorted(large_objects)}
    )
    session.begin(isolation="read committed", read_only=False)
    try:
        session.execute(f"CREATE SCHEMA {_SCHEMA}")
        session.execute(f"CREATE TABLE {_SCHEMA}.marker (snapshot text NOT NULL, before text NOT NULL)")
        session.execute(f"REVOKE ALL ON SCHEMA {_SCHEMA} FROM PUBLIC")
        session.execute(f"INSERT INTO {_SCHEMA}.marker VALUES (%s, %s)", (snapshot, before))
    except SqlError as error:
        session.rollback()
        if error.sqlstate != "42501":
            raise
        return False
    session.commit()
    return True


def drop_marker(session: Session) -> None:
    """The restore is whole."""
    session.execute(f"DROP SCHEMA {_SCHEMA} CASCADE")


def start_over(session: Session, present: Toc, progress: Progress) -> None:
    """Drop what the cut-short restore created, and only that. Raises SqlError when something cannot be dropped."""
    rows = session.rows(f"SELECT before FROM {_SCHEMA}.marker")
    before = json.loads(rows[0][0]) if rows else {"entries": [], "large_objects": []}
    kept = set(before["entries"])
    ours = [e for e in present.entries if "\x1f".join(e.key) not in kept and _droppable(e)]
    progress.stage("clearing a restore that was cut short", total=len(ours), unit="objects")
    left = list(reversed(ours))
    for last in range(_PASSES):
        left = [e for e in left if not _drop(session, e, progress, final=last == _PASSES - 1)]
        if not left:
            break
    known = before["large_objects"]
    session.execute(
        "SELECT pg_catalog.lo_unlink(m.oid) FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid <> ALL (%s::oid[])",
        (known,),
    )
    drop_marker(session)


def _droppable(entry: Entry) -> bool:
    mine = entry.tag != MARKER_SCHEMA and entry.schema != MARKER_SCHEMA
    return mine and bool(entry.drop) and entry.desc not in ("DEFAULT", "SEQUENCE OWNED BY", "ROW SECURITY")


def _drop(session: Session, entry: Entry, progress: Progress, *, final: bool) -> bool:
    try:
        session.script(entry.drop)
    except SqlError as error:
        gone = error.sqlstate in ("42704", "42P01", "42883", "3F000")
        if final and not gone:
            raise
        if not gone:
            return False
    progress.advance(1)
    return True
