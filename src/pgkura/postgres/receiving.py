"""The rows of a running COPY … TO STDOUT from the connection's socket itself, where nothing encrypts it.

libpq gives one message for a call, in memory of its own (encrypted.py). On a plain connection we send the query and
read the answer past it: it sees a connection at rest before and after, and all its messages have been taken from the
socket.
"""

import os
import select
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

from psycopg import pq

from pgkura.postgres.answers import BATCH_BYTES, GATHER_BYTES, GATHER_MILLISECONDS, Broken, Refused, Rows, wake_at
from pgkura.postgres.messages import CopyBatch, Scratch, Taken, take

ROOM = 1024 * 1024
# Otherwise so long, in milliseconds, until what came is looked at.
_IDLE_MILLISECONDS = 200
_READY = b"Z\0\0\0\5"
# A row is at most 1 GiB (PostgreSQL's MaxAllocSize), and what frames it.
_MOST = 1 << 30 | 64


class Wire:
    """A plain connection's socket. One query at a time; `at_rest` tells whether its answer has come to its end."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._fd = pgconn.socket
        self._buffer = bytearray(ROOM)
        self._scratch = Scratch()
        self._from = self._to = 0
        self.at_rest = True
        self._begun = False

    def copy(self, sql: str, rows: Rows) -> Generator[CopyBatch | None, None, None]:
        """Send a query of one or more COPYs, yield the rows of each, and None after them. Raises Refused, Broken,
        OSError.

        Not exhausted, it must be cancelled and `drain`ed, or the connection closed.
        """
        if self._pgconn.flush():
            raise Broken("something was still to be sent")
        self.at_rest = self._begun = False
        with self._opened() as connection:
            self._send(connection, sql)
            yield from self._answers(connection, rows)

    def drain(self) -> None:
        """Read to the end of an answer that was cancelled. Raises Broken, OSError."""
        with self._opened() as connection, suppress(Refused):  # the cancellation itself
            for _ in self._answers(connection, None):
                pass
        self.tell()

    def tell(self) -> None:
        """libpq learns what has become of the transaction."""
        self._pgconn.exec_(b"")

    @contextmanager
    def _opened(self) -> Iterator[socket.socket]:
        with socket.socket(fileno=os.dup(self._fd)) as connection:
            try:
                yield connection
            finally:
                wake_at(connection, 1)
                if len(self._buffer) > ROOM and self._from == self._to:
                    self._buffer = bytearray(ROOM)
                    self._scratch = Scratch()

    def _send(self, connection: socket.socket, sql: str) -> None:
        text = sql.encode() + b"\0"
        message = memoryview(b"Q" + (len(text) + 4).to_bytes(4, "big") + text)
        while message:
            try:
                message = message[connection.send(message) :]
            except BlockingIOError:
                _wait(connection, select.POLLOUT, None)

    def _answers(self, connection: socket.socket, rows: Rows | None) -> Iterator[CopyBatch | None]:
        """The rows of each statement, and None after them."""
        patience = _IDLE_MILLISECONDS
        refused: Refused | None = None
        while not self.at_rest:
            taken = self._taken(binary=rows is not None and rows.binary)
            if taken.stop:
                if not self._begun:
                    raise Broken("rows before the answer begins")
                self._from += taken.stop
                batch = rows.batch(taken.data, taken.sizes) if rows else None
                if batch and batch.rows:
                    yield batch
                if patience == _IDLE_MILLISECONDS and taken.stop >= BATCH_BYTES:
                    wake_at(connection, GATHER_BYTES)  # much more follows, it seems
                    patience = GATHER_MILLISECONDS
            elif (message := self._other()) is None:
                self._fill(connection, patience)
            elif message[0] == "H":
                self._begun = True
            elif message[0] == "E":
                refused = Refused.parse(message[1])
            elif message[0] == "C":
                if rows:
                    rows.end(message[1].rstrip(b"\0"))
                yield None
            elif message[0] == "Z":
                self.at_rest = True
        if refused is not None:
            raise refused

    def _taken(self, *, binary: bool) -> Taken:
        try:
            return take(memoryview(self._buffer)[self._from : self._to], self._scratch, binary=binary)
        except ValueError as error:
            raise Broken(str(error)) from None

    def _other(self) -> tuple[str, bytes] | None:
        """The next message, if it is a whole one and no row."""
        if self._to - self._from < 5 or self._buffer[self._from] == ord("d"):
            return None
        kind = chr(self._buffer[self._from])
        if kind not in "HcCEZNSA":
            raise Broken(f"a message of type {kind!r}")
        after = self._from + 1 + int.from_bytes(self._buffer[self._from + 1 : self._from + 5], "big")
        if after > self._to:
            return None
        content = bytes(self._buffer[self._from + 5 : after])
        self._from = after
        return kind, content

    def _fill(self, connection: socket.socket, patience: int) -> None:
        """Take what comes: a batch, or less if it is the answer's end or nothing follows for some time."""
        self._make_room()
        begun, idle = self._to, False
        view = memoryview(self._buffer)
        while self._to < len(view):
            try:
                count = connection.recv_into(view[self._to :])
            except BlockingIOError:
                if idle and self._to > begun:
                    return
                idle = not _wait(connection, select.POLLIN, patience)
                continue
            if not count:
                raise Broken("the server closed the connection")
            idle = False
            self._to += count
            if self._to - begun >= BATCH_BYTES or view[max(self._to - 6, 0) : self._to - 1] == _READY:
                return

    def _make_room(self) -> None:
        """What is left to the front; more room if one message needs it."""
        left = self._to - self._from
        self._buffer[:left] = self._buffer[self._from : self._to]
        self._from, self._to = 0, left
        if left >= 5:
            needed = 1 + int.from_bytes(self._buffer[1:5], "big")
            if needed > _MOST:
                raise Broken(f"a message of {needed} bytes")
            if needed > len(self._buffer):
                grown = bytearray(needed + BATCH_BYTES)
                grown[:left] = self._buffer[:left]
                self._buffer = grown


def _wait(connection: socket.socket, event: int, milliseconds: int | None) -> bool:
    ready = select.poll()
    ready.register(connection, event)
    return bool(ready.poll(milliseconds))
