"""`doctor` about the way in which a watcher would read the log of this server, and what the other way costs it."""

from pgkura.core.errors import DatabaseError
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session
from pgkura.postgres.transports import refusal, streaming


def examine_transport(session: Session) -> tuple[str, str] | None:
    """(found, what to change) where it is by SQL; None where a replication connection can be had, or no log at all."""
    try:
        streaming(session.endpoint, application_name="pgkura doctor").close()
    except DatabaseError as error:
        why = refusal(error, pooled=session.pooled)
        return (f"{why}: {costs(session)}", "give `watch` the direct host") if why else None
    return None


def costs(session: Session) -> str:
    """Of reading by SQL."""
    memory, limit = session.one(query("polling", "spill"))
    bound = "without a limit" if limit == "-1" else f"if they are no more than temp_file_limit, {limit}"
    return (
        "`watch` reads the log by SQL functions. Each look reads the server's log again from the slot's restart_lsn "
        "on, and its changes, a transaction's always all of them, lie in the server's temporary files before they are "
        f"sent where they are more than work_mem ({memory}), {bound}"
    )
