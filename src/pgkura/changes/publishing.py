"""Which tables are in which publication, and how they get there."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pgkura.core.names import QualifiedName, quote_ident
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.shape import LoggedTable, read_tables

_NOT_A_MEMBER = "42704"


@dataclass(slots=True)
class Published:
    """What was done: object ids of tables that joined, apart by whether they held no row then."""

    changed: bool = False
    empty: set[int] = field(default_factory=set)
    filled: set[int] = field(default_factory=set)


def publish(session: Session, slot: str, inserts: str, note: Callable[[str], None]) -> Published:
    """Let tables that can be logged join, and those that cannot any more leave.

    `slot`: also the publication of all changes; inserts: that of inserts alone, '' where there is none.
    """
    done = Published()
    for table in read_tables(session, slot):
        for publication, verb in _moves(table, slot, inserts):
            if verb == "ADD" and join_empty(session, publication, table.qname):
                done.changed = True
                done.empty.add(table.oid)
                continue
            try:
                session.execute(f"ALTER PUBLICATION {quote_ident(publication)} {verb} TABLE ONLY {table.qname.sql}")
                done.changed = True
            except SqlError as error:
                if session.broken:
                    raise
                if error.sqlstate != _NOT_A_MEMBER:
                    note(f"{table.qname} could not {'join' if verb == 'ADD' else 'leave'} the change log: {error.msg}")
                break
            if verb == "ADD":
                done.filled.add(table.oid)
    return done


def to_publish(table: LoggedTable, slot: str, inserts: str) -> bool:
    """Whether a table is not where it belongs."""
    return bool(_moves(table, slot, inserts))


def _moves(table: LoggedTable, slot: str, inserts: str) -> list[tuple[str, str]]:
    """Out of where it does not belong first: the server refuses UPDATE and DELETE of a table without key there."""
    append = bool(inserts) and table.can_append
    moves = []
    if table.published and not table.wanted:
        moves.append((slot, "DROP"))
    if table.appended and inserts and not append:
        moves.append((inserts, "DROP"))
    if table.wanted and not table.published:
        moves.append((slot, "ADD"))
    if append and not table.appended:
        moves.append((inserts, "ADD"))
    return moves


def join_empty(session: Session, publication: str, name: QualifiedName) -> bool:
    """Let a table join that holds no row and that nobody is writing to: then the log has all that it ever held.

    Nobody is waited for. False where it is not so, or cannot be seen; then nothing was done.
    """
    session.begin(isolation="read committed", read_only=False)
    try:
        session.execute("SET LOCAL lock_timeout = '200ms'")
        session.execute(f"LOCK TABLE ONLY {name.sql} IN SHARE MODE NOWAIT")
        if not session.one(f"SELECT NOT EXISTS (SELECT FROM ONLY {name.sql})")[0]:
            return False
        session.execute(f"ALTER PUBLICATION {quote_ident(publication)} ADD TABLE ONLY {name.sql}")
        session.commit()
    except SqlError:
        if session.broken:
            raise
        return False
    finally:
        if not session.broken:
            session.rollback()
    return True
