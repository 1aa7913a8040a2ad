"""Several COPYs of small tables sent as one query: the server goes from one to the next without waiting for us.

For ten rows, asking and waiting is most of the work, on both sides.
"""

from collections.abc import Generator, Sequence
from typing import Protocol, Self

from pgkura.postgres.messages import CopyBatch
from pgkura.postgres.session import Session


class CopySource(Protocol):
    """What rows are copied from: a session, or several statements on one."""

    def copy_out(self, sql: str, *, binary: bool = False) -> Generator[CopyBatch, None, None]:
        """See Session."""
        ...


class Several:
    """A CopySource: of these statements, as text, in this order, each to its end. Leaving early cancels what runs."""

    def __init__(self, session: Session, statements: Sequence[str]) -> None:
        self._statements = statements
        self._next = 0
        self._answers = session.copy_several(statements)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()

    def copy_out(self, sql: str, *, binary: bool = False) -> Generator[CopyBatch, None, None]:
        """As a session's. Raises SqlError; then nothing of any of them may be kept."""
        if binary or sql != self._statements[self._next]:
            raise ValueError("not the next of these statements")
        self._next += 1
        for batch in self._answers:
            if batch is not None:
                yield batch
            elif self._next < len(self._statements):
                return  # after the last one the query's own end is still to come
