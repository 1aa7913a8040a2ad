"""What stands beside a watcher and looks after the source: a connection and a thread of its own.

It goes on while the watcher waits for a slow store, or is between two connections. Twice it may act, and both times it
takes something away from us, never from the application:

- A table that lost its key is taken out of the publication, since the server refuses its UPDATE and DELETE until then.
- A slot for which the server keeps too much log is dropped, with its publications, before the disk fills.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pgkura.changes.budget import Level, judge
from pgkura.core.errors import PgkuraError
from pgkura.core.names import QualifiedName, quote_ident
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.slots import drop_slot, read_slot

APPLICATION = "pgkura watch (guard)"
_NOT_A_MEMBER = "42704"
_FAR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How the guard goes about it. Seconds.

    keys      between two looks for tables that lost their key; more where a look takes long
    share     of its time that looking may take at most
    disk      between two looks at what the server keeps for us
    lock      to wait for a table that must be taken out, beside the server's deadlock_timeout
    patience  until the whole log is given up for it
    rest      before a new chain is begun after one was given up; doubled each time, an hour at most
    """

    keys: float = 0.2
    share: float = 0.02
    disk: float = 5.0
    lock: float = 0.5
    patience: float = 10.0
    rest: float = 60.0


@dataclass(slots=True, kw_only=True)
class _Minded:
    """What is looked after: a chain's slot, and how it stands with it."""

    chain: str
    slot: str
    inserts: bool
    warned: bool = False
    waiting: float = 0.0
    doomed: bool = False
    dropped: bool = False


class Guard:
    """Use as a context manager: the thread lives inside it."""

    def __init__(
        self, source: Endpoint, note: Callable[[str], None], *, max_retained: int | None, manners: Manners | None = None
    ) -> None:
        self._source, self._note, self._max_retained = source, note, max_retained
        self._manners = manners or Manners()
        self._minded: _Minded | None = None
        self._broken: dict[str, str] = {}
        self._given_up: list[tuple[str, str, str]] = []
        self._count = 0
        self._until = 0.0
        self._session: Session | None = None
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pgkura-guard", daemon=True)

    def __enter__(self) -> "Guard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(30)

    def mind(self, chain: str, slot: str, *, inserts: bool) -> None:
        """Look after this one from now on, and no other."""
        with self._lock:
            if self._minded is None or self._minded.slot != slot:
                self._minded = _Minded(chain=chain, slot=slot, inserts=inserts)

    def broken(self, slot: str) -> str:
        """Why the chain cannot be gone on with, '' while it can. Raises what ended the guard, if anything did."""
        if self._failure is not None:
            raise self._failure
        return self._broken.get(slot, "")

    def given_up(self) -> list[tuple[str, str, str]]:
        """(chain, slot, reason) of what was dropped: their end must be told in the store, whenever that takes it."""
        with self._lock:
            return list(self._given_up)

    def was_told(self, chain: str) -> None:
        """Its end is in the store."""
        with self._lock:
            self._given_up = [one for one in self._given_up if one[0] != chain]

    @property
    def rest(self) -> float:
        """Seconds until a new chain may be begun."""
        return max(self._until - time.monotonic(), 0.0)

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - raised in the watcher's thread
            self._failure = error
        finally:
            self._close()

    def _loop(self) -> None:
        wait, disk = self._manners.keys, 0.0
        while not self._end.wait(wait):
            wait = self._manners.keys
            minded = self._minded
            if minded is None:
                continue
            began = time.monotonic()
            try:
                if minded.slot in self._broken:
                    self._drop(minded)
                    continue
                session = self._connected()
                tables = _endangered(session, minded.slot)
                wait = max(wait, (time.monotonic() - began) / self._manners.share)
                self._let_go(session, minded, tables)
                if began >= disk:
                    disk = began + self._manners.disk
                    self._disk(session, minded)
            except PgkuraError:
                # The watcher hears of it too, and says so.
                self._close()
                wait = max(wait, 1.0)

    def _connected(self) -> Session:
        if self._session is None or self._session.broken:
            self._session = connect(self._source, application_name=APPLICATION, statement_timeout=60_000)
            # Autovacuum gives way to who has waited for as long as that.
            ask = "SELECT setting::pg_catalog.int4 FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'"
            wait = int(self._session.one(ask)[0]) + int(self._manners.lock * 1000)
            self._session.execute(f"SET lock_timeout = '{wait}ms'")
        return self._session

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _let_go(self, session: Session, minded: _Minded, tables: list[QualifiedName]) -> None:
        if not tables:
            minded.waiting = 0.0
            return
        now = time.monotonic()
        minded.waiting = minded.waiting or now
        for table in tables:
            try:
                session.execute(f"ALTER PUBLICATION {quote_ident(minded.slot)} DROP TABLE ONLY {table.sql}")
                self._note(f"{table} lost its key and left the change log, which would refuse its UPDATE and DELETE")
            except SqlError as error:
                if session.broken:
                    raise
                if error.sqlstate == _NOT_A_MEMBER:
                    continue
                if now - minded.waiting >= self._manners.patience:
                    self._give_up(
                        minded,
                        f"{table} lost its key and could not leave the log alone ({error.msg}): all of the log was "
                        "given up, not its UPDATE and DELETE",
                    )
                    return

    def _disk(self, session: Session, minded: _Minded) -> None:
        state = read_slot(session, minded.slot)
        if state is None:
            return  # the watcher finds out by itself
        if not (state.published and (state.appended or not minded.inserts)):
            self._broken[minded.slot] = "its publication was dropped, and the slot cannot be read without it"
            return
        verdict = judge(state, self._max_retained)
        if verdict.level is Level.GIVE_UP and state.status != "lost":
            self._give_up(minded, verdict.text)
        elif verdict.level is Level.WARN and not minded.warned:
            self._note(verdict.text)
        minded.warned = verdict.level is not Level.FINE

    def _give_up(self, minded: _Minded, reason: str) -> None:
        # Said before it is done: the watcher must not take a slot that is gone for an accident.
        with self._lock:
            self._broken[minded.slot] = reason
            self._given_up.append((minded.chain, minded.slot, reason))
            minded.doomed = True
            self._until = time.monotonic() + min(self._manners.rest * 2**self._count, _FAR)
            self._count += 1
        self._note(reason)
        self._drop(minded)

    def _drop(self, minded: _Minded) -> None:
        """Until it is gone: the watcher may be busy with its store for hours."""
        if minded.doomed and not minded.dropped:
            drop_slot(self._connected(), minded.slot, unseat=True)
            minded.dropped = True


def _endangered(session: Session, publication: str) -> list[QualifiedName]:
    return [QualifiedName(schema, name) for schema, name in session.rows(query("slots", "endangered"), (publication,))]
