"""The bytes of a running COPY … FROM STDIN: to the connection's socket itself where nothing encrypts it, else by libpq.

libpq copies all bytes into a buffer of its own, and moves what is left of it to the front each time the socket takes a
part. On a plain connection we send the messages past it; what the server says is left to it.
"""

import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg import pq

from pgkura.postgres.answers import Broken, plain
from pgkura.postgres.libpq import WAIT, sender

_MESSAGE_BYTES = 256 * 1024


class CopyWriter(ABC):
    """Takes the data of one running COPY … FROM STDIN. `whole`: the server does not wait for the rest of a message."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._ready = select.poll()
        self._ready.register(pgconn.socket, select.POLLIN | select.POLLOUT)
        self.whole = True

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send bytes; any cut is fine, rows need not be whole. Raises Broken, psycopg's."""

    def _wait(self) -> None:
        """Until more can be sent; what the server says meanwhile must be taken, or it waits for us.

        The driver's connections do not block, so other threads run while we wait.
        """
        if any(event & select.POLLIN for _, event in self._ready.poll()):
            self._pgconn.consume_input()
            self._pgconn.is_busy()  # lets libpq look at what came: it would keep every warning until the end


@contextmanager
def copy_writer(pgconn: pq.abc.PGconn) -> Iterator[CopyWriter]:
    """Of a COPY that has begun. All was sent when `write` returns."""
    if pgconn.flush() or not plain(pgconn):
        yield _ByLibpq(pgconn)
        return
    with socket.socket(fileno=os.dup(pgconn.socket)) as connection:
        yield _Direct(pgconn, connection)


class _Direct(CopyWriter):
    """CopyData messages as the manual describes them ("Message Formats")."""

    def __init__(self, pgconn: pq.abc.PGconn, connection: socket.socket) -> None:
        super().__init__(pgconn)
        self._connection = connection

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _MESSAGE_BYTES):
            piece = view[start : start + _MESSAGE_BYTES]
            self.whole = False
            self._send([memoryview(b"d" + (len(piece) + 4).to_bytes(4, "big")), piece])
            self.whole = True

    def _send(self, parts: list[memoryview]) -> None:
        while parts:
            try:
                count = self._connection.sendmsg(parts)
            except BlockingIOError:
                self._wait()
                continue
            except OSError as error:
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_WR)  # else the server may wait for the rest of a message
                raise Broken(str(error)) from None
            while parts and count >= len(parts[0]):
                count -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][count:]


class _ByLibpq(CopyWriter):
    """Waits until the socket has taken each piece."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        super().__init__(pgconn)
        self._send = sender(pgconn)

    def write(self, data: bytes) -> None:
        at, state = self._send(view := memoryview(data), 0)
        while state == WAIT:
            self._wait()
            at, state = self._send(view, at)
