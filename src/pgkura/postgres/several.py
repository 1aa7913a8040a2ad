"""Several COPYs of small tables sent as one query: the server goes from one to the next without waiting for us.

For ten rows, asking and waiting is most of the work, on both sides.
"""

from collections.abc import Generator, Sequence
from typing import Self

from pgkura.postgres.messages import CopyBatch
from pgkura.postgres.receiving import Broken, Refused, Rows, Wire, plain
from pgkura.postgres.session import Session, SqlError


class Several:
    """Like a session, as far as `copy_out` goes: of these statements, as text, in this order, each to its end.

    An encrypted connection is asked one by one. Leaving early cancels what runs.
    """

    def __init__(self, session: Session, statements: Sequence[str]) -> None:
        self._session = session
        self._statements = statements
        self._next = 0
        self._pgconn = session._connection.pgconn
        self._wire: Wire | None = None
        if plain(self._pgconn) and not self._pgconn.flush():
            self._wire = session._wire = session._wire or Wire(self._pgconn)
        self._answers: Generator[CopyBatch | None, None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._answers is not None:
            self._answers.close()
        if self._wire is not None and not self._wire.at_rest and not self._session.broken:
            self._session._give_up(self._wire, self._pgconn)

    def copy_out(self, sql: str, *, binary: bool = False) -> Generator[CopyBatch, None, None]:
        """As a session's. Raises SqlError; then nothing of any of them may be kept."""
        if binary or sql != self._statements[self._next]:
            raise ValueError("not the next of these statements")
        self._next += 1
        if self._wire is None:
            yield from self._session.copy_out(sql)
            return
        if self._answers is None:
            self._answers = self._wire.copy_several("; ".join(self._statements), Rows(binary=False))
        try:
            for batch in self._answers:
                if batch is not None:
                    yield batch
                elif self._next < len(self._statements):
                    return  # after the last one the query's own end is still to come
        except Refused as refused:
            self._pgconn.exec_(b"")  # libpq learns what has become of the transaction
            raise self._session._refused(refused, sql) from None
        except (Broken, OSError) as error:
            self._session.close()
            raise SqlError("the connection broke", detail=" ".join(str(error).split())) from None
