"""Transactions that do nothing but hold ACCESS SHARE locks, taken before the snapshot, given up as a whole.

They hold no snapshot themselves (LOCK TABLE takes none), so they hold back neither VACUUM nor CREATE INDEX
CONCURRENTLY. And they never wait: whoever holds one lock and waits for another may be half of a deadlock, whose other
half, the application, the server may choose to end.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from pgkura.core.errors import DatabaseError
from pgkura.core.stop import Stop
from pgkura.postgres.session import Session, SqlError
from pgkura.snapshot.budget import Lockable
from pgkura.snapshot.queries import query

BATCH = 50
RETRY_SECONDS = 0.2
_SAVE = "SAVEPOINT batch"
_UNDO = "ROLLBACK TO SAVEPOINT batch"
_RELEASE = "RELEASE SAVEPOINT batch"


class Holder:
    """One transaction and the tables it holds. The watcher releases it from its own thread."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pid = session.pid
        self.oids: frozenset[int] = frozenset()
        self.released_at: float | None = None
        self._busy = Lock()
        session.begin(isolation="read committed", read_only=True)

    def lock(self, tables: Sequence[Lockable]) -> list[Lockable]:
        """Lock in batches, then one by one what a batch could not get; returns what others have locked."""
        missed: list[Lockable] = []
        for batch in _batches(tables):
            if not self._try(batch):
                missed.extend(batch)
        return [t for t in missed if not self._try([t])]

    def _try(self, tables: Sequence[Lockable]) -> bool:
        """Whether there is nothing left to ask for: granted, or (asked alone) gone."""
        names = ", ".join(f"ONLY {t.qname.sql}" for t in tables)
        with self._busy:
            if self.released_at is not None:
                return False
            try:
                self.session.script(f"{_SAVE}; LOCK TABLE {names} IN ACCESS SHARE MODE NOWAIT; {_RELEASE}")
            except SqlError as error:
                if error.sqlstate not in _NOT_NOW | _GONE:
                    raise
                self.session.execute(_UNDO)
                return len(tables) == 1 and error.sqlstate in _GONE
            return True

    def release(self, at: float) -> bool:
        """Roll back; False when it is in the middle of a statement, and only ending its connection helps."""
        if not self._busy.acquire(timeout=0.2):
            return False
        try:
            if self.released_at is None:
                self.released_at = at
                self.session.rollback()
            return True
        finally:
            self._busy.release()

    def close(self) -> None:
        """End it, but not while the watcher is rolling it back: that would look like a lost connection."""
        with self._busy:
            self.session.close()

    def alive(self) -> bool:
        """Whether its transaction still stands, asked of the server itself."""
        if self.released_at is not None:
            return True
        with self._busy:
            try:
                self.session.execute("SELECT 1")
            except DatabaseError:
                return False
        return True


# Not granted at once, cancelled by the watcher.
_NOT_NOW = frozenset({"55P03", "57014"})
# Vanished or renamed since the list was read, turned into something else, no right any more.
_GONE = frozenset({"42P01", "3F000", "42809", "42501"})


def _batches(tables: Sequence[Lockable]) -> Iterator[Sequence[Lockable]]:
    for i in range(0, len(tables), BATCH):
        yield tables[i : i + BATCH]


class Holders:
    """All holders of one attempt."""

    def __init__(self, connect: Callable[[], Session]) -> None:
        self._connect = connect
        self._holders: list[Holder] = []

    def __iter__(self) -> Iterator[Holder]:
        return iter(tuple(self._holders))

    def lock(self, groups: Sequence[Sequence[Lockable]], stop: Stop) -> list[Lockable]:
        """One new holder per group, all at once; returns the tables that others have locked."""
        stop.check()
        if not groups:
            return []
        with ThreadPoolExecutor(len(groups), thread_name_prefix="pgkura-holder") as pool:
            return [table for missed in pool.map(self._hold, groups) for table in missed]

    def _hold(self, tables: Sequence[Lockable]) -> list[Lockable]:
        holder = Holder(self._connect())
        self._holders.append(holder)
        return holder.lock(tables)

    def lock_more(self, tables: Sequence[Lockable]) -> list[Lockable]:
        """Lock what is missing before another snapshot; returns the tables that others have locked.

        A holder that gave way is replaced, so that the number of connections stays what was planned.
        """
        if not tables:
            return []
        released = [h for h in self._holders if h.released_at is not None]
        for holder in released:
            holder.close()
            self._holders.remove(holder)
        if released or not self._holders:
            self._holders.append(Holder(self._connect()))
        return self._holders[-1].lock(tables)

    def lock_patiently(self, tables: Sequence[Lockable], seconds: float, stop: Stop) -> list[Lockable]:
        """Ask again and again, for at most `seconds`; returns what others still have locked."""
        missed = list(tables)
        deadline = time.monotonic() + seconds
        while missed and time.monotonic() < deadline:
            stop.wait(RETRY_SECONDS)
            stop.check()
            missed = self.lock_more(missed)
        return missed

    def read_locked(self, asker: Session) -> frozenset[int]:
        """Object ids that they really hold, from the server's lock table; remembered per holder."""
        found: dict[int, list[int]] = {}
        for pid, oid in asker.rows(query("locked"), ([h.pid for h in self._holders if h.released_at is None],)):
            found.setdefault(pid, []).append(oid)
        for holder in self._holders:
            holder.oids = frozenset(found.get(holder.pid, ()))
        return frozenset[int]().union(*(h.oids for h in self._holders))

    def release_by_pid(self, pid: int, at: float) -> bool:
        """Roll one back. False when it must be ended by force."""
        return all(h.release(at) for h in self._holders if h.pid == pid)

    def alive(self) -> bool:
        """Whether none lost its connection unasked."""
        return all(h.alive() for h in self._holders)

    def check_alive(self) -> None:
        """Raises DatabaseError if one lost its connection unasked: its tables were unprotected for a while."""
        if not self.alive():
            raise DatabaseError(
                "a connection that held table locks was cut during the backup",
                detail="tables may have been truncated or rewritten in between, which a snapshot does not show",
                hint="run it again; a pooler or an idle timeout may be closing connections",
            )

    def close(self) -> None:
        """Give up everything."""
        for holder in self._holders:
            holder.session.close()
