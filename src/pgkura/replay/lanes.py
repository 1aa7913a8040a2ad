"""Who applies what is folded: several tables at once, while the log is read on.

Each lane is a connection in a transaction of its own; a table stays in the lane in which its target was first seen, so
its changes keep their order. Nobody sees the target before the restore has ended: that lanes commit one after the other
is nobody's concern.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Self

from pgkura.core.errors import DatabaseError
from pgkura.core.names import QualifiedName
from pgkura.postgres.session import Session
from pgkura.restore.parallel import Work


class Lanes:
    """Connections, each with a thread; `own` belongs to the caller and stays open. Use from one thread."""

    def __init__(self, own: Session, open_session: Callable[[], Session], count: int) -> None:
        """Fewer than `count` where the server has no more connections for us."""
        self._sessions = [own]
        try:
            while len(self._sessions) < count:
                self._sessions.append(open_session())
        except DatabaseError:
            pass  # one is enough
        self._pool = ThreadPoolExecutor(len(self._sessions), thread_name_prefix="pgkura-replay")
        self._of: dict[QualifiedName, int] = {}
        self._round: list[Future[None]] = []
        self._ended = Event()

    def __enter__(self) -> Self:
        try:
            for session in self._sessions:
                _begin(session)
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._ended.set()
            # A cancel that comes between two statements cancels none.
            while kind is not None and not all(future.done() for future in self._round):
                for session in self._sessions:
                    session.cancel()
                wait(self._round, timeout=0.5)
            wait(self._round)
            for session in self._sessions:
                if session.in_transaction and not session.broken:
                    session.rollback()
        finally:
            self._pool.shutdown()
            for session in self._sessions[1:]:
                session.close()

    def session(self, target: QualifiedName) -> Session:
        """For work that must be done now. Waits for the round before. Raises what that raised."""
        self.wait()
        return self._sessions[self._lane(target)]

    def wait(self) -> None:
        """Until everything that was given is done. Raises what it raised."""
        wait(self._round)
        done, self._round = self._round, []
        for future in done:
            future.result()

    def give(self, works: Sequence[tuple[QualifiedName, Work]], *, commit: bool) -> None:
        """Apply these, each lane in their order; the round before is waited for. With `commit` every lane commits."""
        self.wait()
        queues: list[list[Work]] = [[] for _ in self._sessions]
        for target, work in works:
            queues[self._lane(target)].append(work)
        self._round = [
            self._pool.submit(self._carry_out, session, queue, commit)
            for session, queue in zip(self._sessions, queues, strict=True)
            if queue or commit
        ]

    def commit(self) -> None:
        """The end: everything is there."""
        self.wait()
        for session in self._sessions:
            session.commit()

    def _carry_out(self, session: Session, works: Sequence[Work], commit: bool) -> None:
        for work in works:
            if self._ended.is_set():
                return
            work(session)
        if commit:
            session.commit()
            _begin(session)

    def _lane(self, target: QualifiedName) -> int:
        return self._of.setdefault(target, len(self._of) % len(self._sessions))


def _begin(session: Session) -> None:
    session.begin(isolation="read committed", read_only=False)
    session.execute("SET CONSTRAINTS ALL DEFERRED")
    # Thousands of rows by their keys: by its default the server would read all of a table that is in memory instead.
    session.execute("SET LOCAL random_page_cost = 1.1")
