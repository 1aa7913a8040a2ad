"""Event triggers that let a table leave the change log with its key: objects of ours in a database, on demand."""

from pgkura.postgres.queries import query
from pgkura.postgres.session import Session


def install(session: Session) -> None:
    """Make them, or make them anew. Raises SqlError where this role may not make event triggers."""
    session.script(query("letting_go", "install"))


def remove(session: Session) -> None:
    """Whatever is left of them."""
    session.script(query("letting_go", "remove"))


def installed(session: Session) -> bool:
    """Whether they are there, and not switched off."""
    return bool(
        session.one(
            "SELECT count(*) = 2 FROM pg_catalog.pg_event_trigger "
            "WHERE evtname IN ('pgkura_watch_keys', 'pgkura_watch_keys_drop') AND evtenabled <> 'D'"
        )[0]
    )
