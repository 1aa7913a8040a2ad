"""Reading from a standby: whose it is, what cannot be read there, and what replay does to whoever reads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgkura.core.errors import DatabaseError, PgkuraError, RightsError, SourceBusy, ToolError, UsageError
from pgkura.core.facts import TableFacts
from pgkura.core.outcome import Finding, FindingClass
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.facts import read_system_identifier
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session, SqlError
from pgkura.snapshot.queries import query

# serialization_failure: a read-only transaction meets it only where replay needed what it reads.
_CONFLICT = "40001"
_SAID = "conflict with recovery"


def on_standby(session: Session) -> bool:
    """Whether the server replays another's log."""
    return bool(session.one(query("standby"))[0])


def standby_note(session: Session) -> str:
    """What may end a backup of this standby; '' where nothing is to be feared."""
    _, feedback, delay = session.one(query("standby"))
    if feedback or delay == "-1":
        return ""
    return (
        f"reading a standby with hot_standby_feedback = off: VACUUM on the primary may end this backup "
        f"(max_standby_streaming_delay = {delay})"
    )


def unlogged(tables: tuple[TableFacts, ...]) -> frozenset[int]:
    """Numbers of the tables whose rows are not on a standby: their changes are not in the log. Pure."""
    return frozenset(i for i, t in enumerate(tables) if t.persistence == "u" and t.kind == "r" and t.readable)


def unlogged_findings(tables: tuple[TableFacts, ...], numbers: frozenset[int]) -> tuple[Finding, ...]:
    """They are user state, and no right would help: another source would."""
    return tuple(
        Finding(
            cls=FindingClass.DENIED,
            object=f"table {tables[i].qname.sql}",
            reason="its rows cannot be read on a standby (the table is unlogged); back up the primary for them",
        )
        for i in sorted(numbers)
    )


def check_same_system(primary: Endpoint, standby: Endpoint) -> None:
    """Raises UsageError unless `standby` replays the log of `primary`, and both name the same database."""
    with (
        connect(primary, application_name="pgkura doctor") as one,
        connect(standby, application_name="pgkura doctor") as two,
    ):
        ours, theirs = read_system_identifier(one), read_system_identifier(two)
        if not ours or not theirs:
            raise RightsError(
                "cannot tell whether the standby belongs to the database",
                detail="the role may not call pg_control_system(), which says who a server is",
                hint="grant it, or give the standby as the database itself",
            )
        names = [s.one("SELECT pg_catalog.current_database()::pg_catalog.text")[0] for s in (one, two)]
        wrong = (
            f"{standby.display} is another system than {primary.display}"
            if ours != theirs
            else f"{standby.display} is no standby: it takes writes"
            if not on_standby(two)
            else f"--read-from names the database {names[1]!r}, the source is {names[0]!r}"
            if names[0] != names[1]
            else ""
        )
    if wrong:
        raise UsageError(
            wrong, detail=f"system identifiers: {ours}, {theirs}", hint="give a standby of the same system"
        )


@contextmanager
def replay_explained(session: Session, standby: bool, holds: Callable[[], bool]) -> Iterator[None]:
    """On a standby, errors that replay caused leave as SourceBusy. `session` keeps the snapshot, `holds` says
    whether all connections with locks are alive."""
    try:
        yield
    except (DatabaseError, ToolError, SourceBusy) as error:
        if standby and _replay(error, session, holds):
            raise replay_conflict(error) from error
        raise


def _replay(error: PgkuraError, session: Session, holds: Callable[[], bool]) -> bool:
    if isinstance(error, SqlError) and error.sqlstate == _CONFLICT:
        return True
    if _SAID in f"{error.msg} {error.detail}":
        return True
    try:
        session.one("SELECT 1")
    except SqlError:
        return True
    return isinstance(error, DatabaseError) and not holds()


def replay_conflict(error: PgkuraError) -> SourceBusy:
    """Rows that our snapshot sees, or a lock of ours, stood in the way of what the standby has to replay."""
    return SourceBusy(
        "the standby ended the backup: it had to replay what the backup was reading",
        detail=f"a conflict with recovery (VACUUM or DDL on the primary); {error.msg}",
        hint="set hot_standby_feedback = on at the standby, or raise max_standby_streaming_delay above the time "
        "of a backup; then run it again",
    )
