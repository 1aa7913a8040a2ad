"""The rows of a running COPY … TO STDOUT by libpq, many at a time: for connections that are encrypted."""

import os
import select
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from psycopg import pq

from pgkura.postgres.answers import BATCH_BYTES, GATHER_BYTES, GATHER_MILLISECONDS, Refused, Rows, wake_at
from pgkura.postgres.libpq import END, MORE, WAIT, receiver
from pgkura.postgres.messages import CopyBatch, Data, Numbers

# We look after so long at the latest: a rest that was decrypted already shows in no socket.
_LOOK_MILLISECONDS = 20


class Encrypted:
    """A connection whose bytes only libpq understands. As Wire, which is the quicker way."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._receive = receiver(pgconn)
        self.at_rest = True

    def copy(self, sql: str, rows: Rows) -> Generator[CopyBatch | None, None, None]:
        """Send a query of one or more COPYs, yield the rows of each, and None after them. Raises Refused, Broken,
        psycopg's.

        Not exhausted, it must be cancelled and `drain`ed, or the connection closed.
        """
        self.at_rest = False
        self._pgconn.send_query(sql.encode())
        with self._opened() as connection:
            while self._pgconn.flush():
                self._wait(select.POLLIN | select.POLLOUT)
            yield from self._answers(connection, rows)

    def drain(self) -> None:
        """Read to the end of an answer that was cancelled. Raises Broken, psycopg's."""
        with self._opened() as connection, suppress(Refused):  # the cancellation itself
            for _ in self._answers(connection, None):
                pass

    def tell(self) -> None:
        """libpq knows by itself what has become of the transaction."""

    @contextmanager
    def _opened(self) -> Iterator[socket.socket]:
        with socket.socket(fileno=os.dup(self._pgconn.socket)) as connection:
            try:
                yield connection
            finally:
                wake_at(connection, 1)

    def _answers(self, connection: socket.socket, rows: Rows | None) -> Iterator[CopyBatch | None]:
        refused: Refused | None = None
        while (result := self._result()) is not None:
            if result.status == pq.ExecStatus.COPY_OUT:
                yield from self._rows(connection, rows)
            elif result.status == pq.ExecStatus.COMMAND_OK:
                if rows:
                    rows.end(result.command_status or b"")
                yield None
            else:
                refused = refused or Refused.by_libpq(result)
        self.at_rest = True
        if refused is not None:
            raise refused

    def _result(self) -> pq.abc.PGresult | None:
        """The next one. The driver would wait for it with the interpreter's lock held."""
        while self._pgconn.is_busy():
            self._wait(select.POLLIN)
        return self._pgconn.get_result()

    def _wait(self, event: int) -> None:
        ready = select.poll()
        ready.register(self._pgconn.socket, event)
        ready.poll(_LOOK_MILLISECONDS)
        self._pgconn.consume_input()

    def _rows(self, connection: socket.socket, rows: Rows | None) -> Iterator[CopyBatch]:
        """Of a COPY that has begun."""
        ready = select.poll()
        ready.register(connection, select.POLLIN)
        patience = _LOOK_MILLISECONDS
        parts: list[tuple[Data, Numbers]] = []
        size, state = 0, MORE
        while state != END:
            data, sizes, state = self._receive(BATCH_BYTES - size)
            size += len(data)
            if rows:
                parts.append((data, sizes))
            if size >= BATCH_BYTES:
                size = 0
                if rows:
                    batch = rows.batch(*_whole(parts))
                    parts.clear()
                    del data  # a row may be very large: not twice in memory while it is worked on
                    yield batch
                    del batch
                if patience != GATHER_MILLISECONDS:
                    wake_at(connection, GATHER_BYTES)
                    patience = GATHER_MILLISECONDS
            if state == WAIT:
                ready.poll(patience)  # releases the interpreter's lock, unlike a blocking read inside the driver
        wake_at(connection, 1)
        if rows and size:
            batch = rows.batch(*_whole(parts))
            if batch.rows:
                yield batch


def _whole(parts: list[tuple[Data, Numbers]]) -> tuple[Data, Numbers]:
    if len(parts) == 1:
        return parts[0]
    return b"".join(data for data, _ in parts), np.concatenate([sizes for _, sizes in parts])
