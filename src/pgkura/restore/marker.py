"""A restore that was cut short leaves its mark, so that the next one knows its own half-done work and starts clean.

The mark tells what was there before and what the restore set out to make. Only what is in the second and not in the
first is ever dropped, and only a mark of the restoring role's own is believed: anybody who may create a schema could
leave a false one.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pgkura.catalog.toc import Entry, Toc
from pgkura.core.names import quote_ident
from pgkura.core.progress import Progress
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.restore.ledger import LEDGER_SCHEMA, make_ledger, read_ledger
from pgkura.restore.remains import end_remains

MARKER_SCHEMA = LEDGER_SCHEMA
_PASSES = 4
_SCHEMA = quote_ident(MARKER_SCHEMA)
_GONE = ("42704", "42P01", "42883", "3F000", "42703")
# Large objects take a lock each when dropped.
_BATCH = 500

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a restore that did not end said about itself when it began.

    work    digest of what it set out to do (going_on.work_of)
    loaded  its ledger when this was read
    """

    snapshot: str
    before: frozenset[Key]
    ours: frozenset[Key]
    large_objects_before: frozenset[int]
    large_objects: frozenset[int]
    work: str = ""
    loaded: Mapping[int, Mapping[int, int]] = field(default_factory=dict)

    def made(self, entry: Entry) -> bool:
        """Whether that restore made this object."""
        return plain(entry.key) in self.ours and plain(entry.key) not in self.before

    def made_large_objects(self, present: frozenset[int]) -> frozenset[int]:
        """The large objects it made."""
        return (present & self.large_objects) - self.large_objects_before


def is_marker(entry: Entry) -> bool:
    """The mark itself, among the definitions of a database."""
    return entry.schema == MARKER_SCHEMA or (entry.desc == "SCHEMA" and entry.tag == MARKER_SCHEMA)


def read_mark(session: Session) -> Mark | None:
    """The mark of this role's own restore, if there is one."""
    if not session.one(query("target", "own_marker"))[0]:
        return None
    rows = session.rows(f"SELECT snapshot, told FROM ONLY {_SCHEMA}.marker")
    if len(rows) != 1:
        return None
    snapshot, told = rows[0]
    data = json.loads(told)
    return Mark(
        snapshot=snapshot,
        before=frozenset((d, s, t) for d, s, t in data["before"]),
        ours=frozenset((d, s, t) for d, s, t in data["ours"]),
        large_objects_before=frozenset(data["large_objects_before"]),
        large_objects=frozenset(data["large_objects"]),
        work=data.get("work", ""),
        loaded=read_ledger(session) if session.one(query("target", "own_ledger"))[0] else {},
    )


def put_mark(session: Session, mark: Mark) -> bool:
    """Write the mark; False where the role may not create a schema."""
    told = json.dumps(
        {
            "before": sorted(mark.before),
            "ours": sorted(mark.ours),
            "large_objects_before": sorted(mark.large_objects_before),
            "large_objects": sorted(mark.large_objects),
            "work": mark.work,
        }
    )
    session.begin(isolation="read committed", read_only=False)
    try:
        session.execute(f"CREATE SCHEMA {_SCHEMA}")
        session.execute(f"CREATE TABLE {_SCHEMA}.marker (snapshot text NOT NULL, told text NOT NULL)")
        make_ledger(session)
        session.execute(f"REVOKE ALL ON SCHEMA {_SCHEMA} FROM PUBLIC")
        session.execute(f"INSERT INTO {_SCHEMA}.marker VALUES (%s, %s)", (mark.snapshot, told))
    except SqlError as error:
        session.rollback()
        if error.sqlstate != "42501":
            raise
        return False
    session.commit()
    return True


def drop_mark(session: Session) -> None:
    """The restore is whole."""
    session.execute(f"DROP SCHEMA {_SCHEMA} CASCADE")


def start_over(session: Session, mark: Mark, present: Toc, progress: Progress) -> None:
    """Drop what the cut-short restore made. What cannot be dropped stays, for the caller to compare with the plan."""
    left = [e for e in reversed(present.entries) if mark.made(e) and droppable(e)]
    progress.stage("clearing a restore that was cut short", total=len(left), unit="objects")
    end_remains(session, {(e.schema, e.tag) for e in present.entries if e.desc == "DEFAULT ACL" and mark.made(e)})
    for _ in range(_PASSES):
        before = len(left)
        left = [e for e in left if not _drop(session, e, progress)]
        if not left or len(left) == before:
            break
    there = frozenset(o for (o,) in session.rows(query("target", "large_objects")))
    _unlink(session, sorted(mark.made_large_objects(there)))
    drop_mark(session)


def _unlink(session: Session, oids: list[int]) -> None:
    for start in range(0, len(oids), _BATCH):
        session.rows("SELECT pg_catalog.lo_unlink(o) FROM pg_catalog.unnest(%s::oid[]) o", (oids[start:][:_BATCH],))


def droppable(entry: Entry) -> bool:
    """Whether dropping it by itself is possible, and needed."""
    return (
        not is_marker(entry)
        and bool(entry.drop)
        and entry.desc not in ("DEFAULT", "SEQUENCE OWNED BY", "ROW SECURITY", "ACL", "DEFAULT ACL", "COMMENT")
    )


def _drop(session: Session, entry: Entry, progress: Progress) -> bool:
    try:
        session.script(entry.drop)
    except SqlError as error:
        if session.broken:
            raise
        if error.sqlstate not in _GONE:
            return False
    progress.advance(1)
    return True


def keys(entries: Iterable[Entry]) -> frozenset[Key]:
    """Identities."""
    return frozenset(plain(e.key) for e in entries)


def plain(key: Key) -> Key:
    """Without quotes: a source with quote_all_identifiers has `f("text")` in its archive, its target `f(text)`."""
    desc, schema, tag = key
    return desc, schema, tag.replace('"', "")
