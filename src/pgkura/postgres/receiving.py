"""The rows of a running COPY … TO STDOUT: from the connection's socket itself where nothing encrypts it, else by libpq.

libpq gives one message for a call, in memory of its own (libpq.py). On a plain connection we send the query and read
the answer past it: it sees a connection at rest before and after, and all its messages have been taken from the socket.
"""

import os
import select
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from psycopg import pq

from pgkura.postgres.libpq import END, MORE, WAIT, receiver
from pgkura.postgres.messages import CopyBatch, Data, Numbers, Scratch, Taken, take, tuples

BATCH_BYTES = 256 * 1024
ROOM = 1024 * 1024
# After the first batch we are woken once for this many bytes, or for as many as came within this time.
GATHER_BYTES = 256 * 1024
GATHER_MILLISECONDS = 3
# Otherwise so long, in milliseconds, until what came is looked at.
_IDLE_MILLISECONDS = 200
_READY = b"Z\0\0\0\5"
# A row is at most 1 GiB (PostgreSQL's MaxAllocSize), and what frames it.
_MOST = 1 << 30 | 64


class Refused(Exception):
    """The server's ErrorResponse."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._fields = {part[:1]: part[1:] for part in content.split(b"\0") if part}

    def field(self, letter: str) -> str:
        """M the message, C its SQLSTATE, W where (manual, "Error and Notice Message Fields"); '' if it is not told."""
        return self._fields.get(letter.encode(), b"").decode(errors="replace")


class Broken(Exception):
    """The connection ended, or what came over it is no answer to a COPY: it must be closed."""


def plain(pgconn: pq.abc.PGconn) -> bool:
    """Whether the connection's bytes are the protocol's own."""
    gss = next((o.val for o in pgconn.info if o.keyword == b"gssencmode"), b"disable")
    return not pgconn.ssl_in_use and gss == b"disable"


class Rows:
    """Makes batches of what messages bring; knows where a binary COPY begins."""

    def __init__(self, *, binary: bool) -> None:
        self.binary = binary
        self._first = True
        self.count = 0

    def batch(self, data: Data, sizes: Numbers) -> CopyBatch:
        """Raises Broken."""
        if not self.binary:
            made = CopyBatch(data, len(sizes))
        else:
            try:
                made = tuples(data, sizes, first=self._first)
            except ValueError as error:
                raise Broken(str(error)) from None
        self._first = False
        self.count += made.rows
        return made

    def end(self, tag: bytes) -> None:
        """The server says that a statement has ended. Raises Broken."""
        if tag != b"COPY %d" % self.count:
            raise Broken(f"the server says {tag.decode(errors='replace')!r}, and {self.count} rows came")
        self.count = 0


class Wire:
    """A plain connection's socket. One COPY at a time; `at_rest` tells whether its answer has come to its end."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._fd = pgconn.socket
        self._buffer = bytearray(ROOM)
        self._scratch = Scratch()
        self._from = self._to = 0
        self.at_rest = True
        self._begun = False

    def copy(self, sql: str, rows: Rows) -> Iterator[CopyBatch]:
        """Send the statement, yield its rows. Raises Refused, Broken, OSError.

        Not exhausted, it must be cancelled and `drain`ed, or the connection closed.
        """
        self.at_rest = self._begun = False
        with self._opened() as connection:
            self._send(connection, sql)
            yield from self._answer(connection, rows)

    def copy_several(self, sql: str, rows: Rows) -> Generator[CopyBatch | None, None, None]:
        """The same of several statements in one query: None after the rows of each."""
        self.at_rest = self._begun = False
        with self._opened() as connection:
            self._send(connection, sql)
            yield from self._answers(connection, rows)

    def drain(self) -> None:
        """Read to the end of an answer that was cancelled. Raises Broken, OSError."""
        with self._opened() as connection, suppress(Refused):  # the cancellation itself
            for _ in self._answer(connection, None):
                pass

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

    def _answer(self, connection: socket.socket, rows: Rows | None) -> Iterator[CopyBatch]:
        """The rows of one statement."""
        return (batch for batch in self._answers(connection, rows) if batch is not None)

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
                refused = Refused(message[1])
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


def wake_at(connection: socket.socket, count: int) -> None:
    """How many bytes must have come before a wait on the connection ends by itself."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def by_libpq(pgconn: pq.abc.PGconn, rows: Rows) -> Iterator[CopyBatch]:
    """The rows of a COPY that has begun: for connections that are encrypted. Raises psycopg's, Broken."""
    receive = receiver(pgconn)
    ready = select.poll()
    ready.register(pgconn.socket, select.POLLIN)
    patience: int | None = None
    parts: list[tuple[Data, Numbers]] = []
    size, state = 0, MORE
    with socket.socket(fileno=os.dup(pgconn.socket)) as connection:
        try:
            while state != END:
                data, sizes, state = receive(BATCH_BYTES - size)
                parts.append((data, sizes))
                size += len(data)
                if size >= BATCH_BYTES:
                    batch = rows.batch(*_whole(parts))
                    parts.clear()  # a row may be very large: not twice in memory while it is worked on
                    del data
                    size = 0
                    yield batch
                    del batch
                    if patience is None:
                        wake_at(connection, GATHER_BYTES)
                        patience = GATHER_MILLISECONDS
                if state == WAIT:
                    ready.poll(patience)  # releases the interpreter's lock, unlike a blocking read inside the driver
        finally:
            wake_at(connection, 1)
    if size:
        batch = rows.batch(*_whole(parts))
        if batch.rows:
            yield batch


def _whole(parts: list[tuple[Data, Numbers]]) -> tuple[Data, Numbers]:
    if len(parts) == 1:
        return parts[0]
    return b"".join(data for data, _ in parts), np.concatenate([sizes for _, sizes in parts])
