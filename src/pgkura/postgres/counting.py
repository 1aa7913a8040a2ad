"""What the server has counted of tables whose updates and deletes are not logged, and up to when it surely did."""

from dataclasses import dataclass

from pgkura.core.names import QualifiedName
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session

# Before it the server sent counts by messages that could be lost.
COUNTS_SINCE = 150000
# The server's own: PGSTAT_IDLE_INTERVAL and PGSTAT_MIN_INTERVAL, PGSTAT_MAX_INTERVAL, and something for busy machines.
QUIET, SLACK = 15.0, 65.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One look.

    until   every commit up to then (microseconds since 1970) is in the counts; 0 = that cannot be told
    unseen  sessions whose state this role may not see, for which it cannot
    epoch   another one: counting began anew
    tables  updates and deletes so far, those that were rolled back too
    """

    until: int
    unseen: int
    epoch: str
    tables: dict[QualifiedName, tuple[int, int, int]]


def read_counted(session: Session, publication: str) -> Counted | None:
    """Of the tables in a publication; None where it has none. Outside of a transaction, in which counts stand still.

    Who has handed over is asked first: what came since then is counted rather twice than not at all.
    """
    if not session.one(query("counting", "any"), (publication,))[0]:
        return None
    until, unseen = session.one(query("counting", "until"), (QUIET, SLACK, QUIET + SLACK))
    if session.one(query("counting", "uncounted"))[0]:
        until = 0
    epoch = str(session.one(query("counting", "epoch"))[0])
    tables = {
        QualifiedName(schema, name): (int(oid), int(updated), int(deleted))
        for schema, name, oid, updated, deleted in session.rows(query("counting", "counters"), (publication,))
    }
    return Counted(until=until, unseen=unseen, epoch=epoch, tables=tables)
