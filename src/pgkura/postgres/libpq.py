"""The data of a running COPY out of libpq and into it, much at a time: the way of encrypted connections.

The driver gives one row for a call, an object each, and holds the interpreter's lock while libpq encrypts and decrypts.
The compiled part (_libpq.c) calls the same libpq by the addresses of its functions, without the lock; it is not there
where a package was built without a C compiler. PostgreSQL manual, "Functions Associated with the COPY Command".

What runs without the lock runs beside other threads: none of them may close the connection meanwhile, which frees it
(Session.hang_up is for them). No call waits for the server.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import psycopg
from psycopg import pq

from pgkura.postgres.messages import Data, Numbers, joined

compiled: Any
try:
    from pgkura.postgres import _libpq as compiled
except ImportError:
    compiled = None

# There may be more, or all is sent; wait for the socket; the answer ends.
MORE, WAIT, END = 1, 0, -1
Receive = Callable[[int], tuple[Data, Numbers, int]]
Send = Callable[[memoryview, int], tuple[int, int]]

# By libpq about what a socket takes at once.
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Functions:
    """Addresses."""

    get_copy_data: int
    consume_input: int
    freemem: int
    put_copy_data: int
    flush: int


def receiver(pgconn: pq.abc.PGconn) -> Receive:
    """A function that takes rows until so many bytes are there or no more have come: rows, the size of each, and one of
    the states. It does not wait. Raises psycopg.OperationalError."""
    call = _functions()
    if compiled is None or call is None or not hasattr(pgconn, "pgconn_ptr"):
        return lambda most: _receive_by_driver(pgconn, most)

    def rows(most: int) -> tuple[Data, Numbers, int]:
        data, sizes, state = compiled.receive(
            _connection(pgconn), call.get_copy_data, call.consume_input, call.freemem, most
        )
        if state < END:
            raise psycopg.OperationalError(pgconn.get_error_message())
        return data, np.frombuffer(sizes, np.int64), state

    return rows


def sender(pgconn: pq.abc.PGconn) -> Send:
    """A function that sends data from a place on, until the socket takes no more: the place where it stopped, and MORE
    when all is sent or WAIT. libpq keeps no more than a piece: else it would keep any amount for a server slower than
    us. Raises psycopg.OperationalError."""
    call = _functions()
    if compiled is None or call is None or not hasattr(pgconn, "pgconn_ptr"):
        return lambda data, at: _send_by_driver(pgconn, data, at)

    def send(data: memoryview, at: int) -> tuple[int, int]:
        at, state = compiled.send(_connection(pgconn), call.put_copy_data, call.flush, data, at, _PIECE_BYTES)
        if state < WAIT:
            raise psycopg.OperationalError(pgconn.get_error_message())
        return at, state

    return send


def _connection(pgconn: pq.abc.PGconn) -> int:
    """The address of libpq's own connection. Raises psycopg.OperationalError."""
    found: int | None = getattr(pgconn, "pgconn_ptr", None)  # not in the driver's protocol class
    if not found:
        raise psycopg.OperationalError("the connection is closed")
    return found


@cache
def _functions() -> _Functions | None:
    """Of the libpq that the driver has loaded; None where they are not found."""
    try:
        driver = import_module(f"psycopg_{pq.__impl__}.pq")
        libpq = ctypes.CDLL(driver.__file__)  # a look into a library looks into what it has loaded, too
        return _Functions(
            get_copy_data=_address(libpq.PQgetCopyData),
            consume_input=_address(libpq.PQconsumeInput),
            freemem=_address(libpq.PQfreemem),
            put_copy_data=_address(libpq.PQputCopyData),
            flush=_address(libpq.PQflush),
        )
    except (ImportError, OSError, AttributeError):
        return None


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _receive_by_driver(pgconn: pq.abc.PGconn, most: int) -> tuple[Data, Numbers, int]:
    """Row by row."""
    parts: list[memoryview] = []
    size, fresh, state = 0, False, MORE
    while size < most:
        count, data = pgconn.get_copy_data(1)
        if count > 0:
            parts.append(data)
            size += count
            fresh = False
        elif count < 0:
            state = END
            break
        elif fresh:
            state = WAIT
            break
        else:
            pgconn.consume_input()
            fresh = True
    return *joined(parts), state


def _send_by_driver(pgconn: pq.abc.PGconn, data: memoryview, at: int) -> tuple[int, int]:
    """Piece by piece."""
    while not pgconn.flush():
        if at == len(data):
            return at, MORE
        piece = data[at : at + _PIECE_BYTES]
        pgconn.put_copy_data(piece)
        at += len(piece)
    return at, WAIT
