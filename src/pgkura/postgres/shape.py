"""What a change log needs to know of its source beside the changes: the shape of its tables, where its sequences stand.

Watchers ask each time they cut, backups ask in their snapshot: only what both know can be put together.
"""

import time
from dataclasses import dataclass, replace

from pgkura.core.names import QualifiedName
from pgkura.postgres.counting import COUNTS_SINCE, Counted, read_counted
from pgkura.postgres.parts import Parts, read_parts
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session

# What is added to a publication's name for the one beside it, of tables whose inserts alone are logged.
INSERTS = "_inserts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Fingerprints: `rows` of all that decides what a logged row means, `definitions` of everything else."""

    rows: str
    definitions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTable:
    """A table and how its rows are told apart: `key`, `full` (the whole old row), or '' (not at all).

    published  with all its changes; appended: with its inserts and TRUNCATE alone. The object id of its membership, 0 =
               none: a table that left and came back has another one
    member     of an extension: dumps do not say that such a table is published
    """

    oid: int
    qname: QualifiedName
    persistence: str
    owned: bool
    identity: str
    published: int
    appended: int
    member: bool

    @property
    def can_append(self) -> bool:
        """Whether its inserts can be logged: it refuses nothing then, and its updates and deletes are counted."""
        return self.owned and not self.identity and self.persistence == "p" and not self.member

    @property
    def membership(self) -> int:
        """Another one each time that the table joined the log."""
        return self.published or self.appended

    @property
    def coverage(self) -> str:
        """What the log holds of it: `key`, `full`, `inserts`, or '' for nothing."""
        return self.identity if self.published else "inserts" if self.appended else ""

    @property
    def wanted(self) -> bool:
        """Whether it belongs into a publication: one without identity would make its owner's UPDATE fail there."""
        return self.owned and bool(self.identity) and self.persistence == "p" and not self.member

    @property
    def why_not(self) -> str:
        """In words; '' for one that is logged."""
        if self.published or self.appended:
            return ""
        if self.persistence != "p":
            return "unlogged tables never reach the log"
        if self.member:
            return "it belongs to an extension"
        if not self.identity:
            return "it has no primary key or other replica identity"
        return "it belongs to a role that ours is no member of" if not self.owned else "it is not published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One look at the source, all in one snapshot.

    position  of the log before the snapshot was taken: what was committed up to there is seen, but for transactions
              that still wait to be told that they are
    counted   updates and deletes of tables whose inserts alone are logged, from before the snapshot
    visible   `pg_current_snapshot()`; time: the server's clock, microseconds since 1970
    after     a position that was read after the snapshot was taken; '' where a crash of the server may yet take back
              what the snapshot saw
    parts     the shape table by table, where it is not the one that is known already
    """

    position: str
    visible: str
    time: int
    shape: Shape
    tables: tuple[LoggedTable, ...]
    sequences: tuple[tuple[str, str, int], ...]
    after: str
    parts: Parts | None
    counted: Counted | None = None


def read_shape(session: Session, publication: str) -> Shape:
    """In the caller's transaction."""
    rows, definitions = session.one(query("changes", "shape"), (publication, publication + INSERTS))
    return Shape(rows=rows, definitions=definitions)


def read_tables(session: Session, publication: str) -> tuple[LoggedTable, ...]:
    """In the caller's transaction."""
    return tuple(
        LoggedTable(
            oid=oid,
            qname=QualifiedName(schema, name),
            persistence=kind,
            owned=owned,
            identity=identity,
            published=published,
            appended=appended,
            member=member,
        )
        for oid, schema, name, kind, owned, identity, published, appended, member in session.rows(
            query("changes", "tables"), (publication, publication + INSERTS)
        )
    )


def read_position(session: Session) -> str:
    """Where the server writes its log now."""
    return str(session.one(query("changes", "position"))[0])


def read_clock(session: Session) -> int:
    """The server's, in microseconds since 1970."""
    return int(session.one(query("changes", "clock"))[0])


def flushed(session: Session, position: str) -> bool:
    """Whether the server's log is on its disk up to here, or is within a second (the log writer does it by itself)."""
    pause = 0.005
    while not session.one(query("changes", "flushed"), (position,))[0]:
        if pause > 0.5:
            return False
        time.sleep(pause)
        pause *= 2
    return True


def poll(session: Session, publication: str, known: str = "", *, lasting: bool = False) -> Poll:
    """Counts, clock and position first, then all else in one snapshot. `known`: a shape that is told already.

    `lasting`: wait until no crash of the server takes back what was seen.
    """
    counted = read_counted(session, publication + INSERTS) if session.server_version >= COUNTS_SINCE else None
    clock = read_clock(session)
    position = read_position(session)
    session.begin()
    try:
        visible = str(session.one(query("changes", "visible"))[0])
        shape = read_shape(session, publication)
        seen = Poll(
            position=position,
            visible=visible,
            time=clock,
            shape=shape,
            tables=read_tables(session, publication),
            sequences=tuple((s, n, v) for s, n, v in session.rows(query("changes", "sequences"))),
            after=read_position(session),
            parts=read_parts(session, publication, publication + INSERTS) if shape.rows != known else None,
            counted=counted,
        )
    finally:
        session.rollback()
    if lasting and not flushed(session, seen.after):
        return replace(seen, after="")
    return seen
