"""Reading a live database at leisure must not hold up its application: whoever waits on us ends the reading.

A comparison cannot be taken up again at another instant, so there is nothing to give up but all of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from pgkura.core.errors import PgkuraError, SourceBusy
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.snapshot.options import Options
from pgkura.snapshot.queries import query

GUARD = "pgkura guard"


@contextmanager
def giving_way(endpoint: Endpoint, name: str, stop: Stop | None = None) -> Iterator[None]:
    """While sessions whose application_name holds `name` read. Raises SourceBusy when the application had to wait."""
    ended = Event()
    gave_way: list[SourceBusy] = []
    with connect(endpoint, application_name=GUARD) as session:

        def look() -> None:
            while not ended.wait(Options().poll_seconds):
                try:
                    if _somebody_waits(session, name):
                        gave_way.append(_busy(endpoint))
                        if stop is not None:
                            stop.request(gave_way[0])
                        _end_all(session, name)
                        return
                except PgkuraError:
                    return  # the server is gone, or our right to look: the reading goes on

        thread = Thread(target=look, name="pgkura-guard", daemon=True)
        thread.start()
        try:
            yield
        except PgkuraError as error:
            if gave_way and error is not gave_way[0]:
                raise gave_way[0] from error
            raise
        finally:
            ended.set()
            thread.join(timeout=10)


def _somebody_waits(session: Session, name: str) -> bool:
    """CREATE INDEX CONCURRENTLY, which waits for the end of our transaction, holds up nobody else and is left out."""
    return any(
        waiter is not None and kind != "virtualxid" and seconds >= Options().give_way_seconds
        for _, _, waiter, kind, _, seconds, _ in session.rows(query("waits"), (name,))
    )


def _end_all(session: Session, name: str) -> None:
    for pid, _, waiter, *_ in session.rows(query("waits"), (name,)):
        if waiter is None:
            session.rows("SELECT pg_catalog.pg_terminate_backend(%s)", (pid,))


def _busy(endpoint: Endpoint) -> SourceBusy:
    return SourceBusy(
        f"gave way to a statement of the application at {endpoint.display}",
        detail="it waited for a table that was being read, and so would everybody behind it",
        hint="compare a restored database, or at a time when nobody changes tables",
    )
