"""Waiting for others' locks without holding any: what a transaction that only reads has locked is given back first.

Whoever holds one lock and waits for another may be half of a deadlock, and the server ends whichever half looks
first: that may be the application. So such a session waits for a blink only, rolls back to where it held nothing (its
snapshot stays), and asks again after a pause.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pgkura.postgres.session import Session, SqlError

# How long a session that holds locks may wait for another one; less than the server's deadlock_timeout by far.
BLINK_MS = 20
PAUSE_SECONDS = 0.05
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"
_T = TypeVar("_T")


class Patience:
    """Of one transaction, at its savepoint `patience`."""

    def __init__(self, session: Session, seconds: float) -> None:
        self._session = session
        self._seconds = seconds

    def again(self, step: Callable[[], _T]) -> _T:
        """Do `step`; when something is locked, give everything back and do it again, for so many seconds."""
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return step()
            except SqlError as error:
                busy = error.sqlstate in (LOCK_NOT_AVAILABLE, DEADLOCK)
                if not busy or self._session.nested or time.monotonic() > deadline:
                    raise
            self._session.execute("ROLLBACK TO SAVEPOINT patience")
            time.sleep(PAUSE_SECONDS)


@contextmanager
def patient(session: Session, seconds: float) -> Iterator[Patience]:
    """Inside an open transaction that only reads: every query of it is asked so. Ends with the transaction."""
    patience = Patience(session, seconds)
    session.script(f"SET LOCAL lock_timeout = '{BLINK_MS}ms'; SAVEPOINT patience")

    def ask(question: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        return patience.again(question)

    session.asked_by(ask)
    try:
        yield patience
    finally:
        session.asked_by(None)
