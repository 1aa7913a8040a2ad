"""The target's WAL writer, kept awake while rows come and indexes are built.

Of itself it looks only every `wal_writer_delay`, 0.2 s. A restore fills the WAL buffers (16 MiB) in less; then a server
process that has rows to take writes the log, and the others wait for it. A commit that does not wait for the disk wakes
it (`XLogSetAsyncXactLSN`, src/backend/access/transam/xlog.c): so a connection that has nothing else to do commits next
to nothing, all the time (docs/decisions/0010). A restore without it is slower and not another one: it is not opened
where it could be in anybody's way, and whatever becomes of it is no finding.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from pgkura.core.errors import DatabaseError
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session
from pgkura.restore.run import Run

# Of rows: with fewer it is all over before anybody waits.
LEAST_BYTES = 64 * 1024 * 1024
EVERY_SECONDS = 0.03
THREAD = "pgkura-wal-writer"
# A transaction is only committed where it has a number.
WAKE = "SELECT pg_catalog.pg_current_xact_id()"
_PATIENCE_SECONDS = 1.0


def spare_connection(run: Run, session: Session) -> Session | None:
    """One that wakes it; None where it is not worth it, or is refused. `session`: asked whether there is room."""
    if session.pooled or sum(load.data.bytes for load in run.plan.loads) < LEAST_BYTES:
        return None
    try:
        free, _, _ = session.one(query("capacity", "capacity"))
        return run.open() if room(free, run.plan.options.parallel) else None
    except DatabaseError:
        if session.broken:
            raise
        return None


def room(free: int, parallel: int) -> bool:
    """Whether as many connections are left as this restore could ever want (a reader and two that build for each of
    `parallel`), twice over. Pure."""
    return free > 2 * 3 * parallel


@contextmanager
def kept_awake(own: Session | None) -> Iterator[None]:
    """While inside, by this connection, which is closed; it commits without waiting for the disk (`Run.settings`)."""
    if own is None:
        yield
        return
    over = Event()
    thread = Thread(target=_wake, args=(own, over), name=THREAD, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_PATIENCE_SECONDS)
        if thread.is_alive():
            own.hang_up()
            thread.join()
        own.close()


def _wake(own: Session, over: Event) -> None:
    with suppress(DatabaseError):  # whoever ended it, or the server, is met by those that have work to do
        while not over.wait(EVERY_SECONDS):
            own.script(WAKE)
