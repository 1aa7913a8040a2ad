"""Rows of a running COPY … TO STDOUT out of libpq, many at a time: the way of encrypted connections.

The driver gives one row for a call, an object each, and holds the interpreter's lock while libpq decrypts. The compiled
part (_libpq.c) calls the same libpq by the addresses of its functions, without the lock; it is not there where a
package was built without a C compiler. PostgreSQL manual, "Functions Associated with the COPY Command".
"""

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
import psycopg
from psycopg import pq

from pgkura.postgres.messages import Data, Numbers, joined

compiled: Callable[[int, int, int, int, int], tuple[bytes, bytes, int]] | None
try:
    from pgkura.postgres._libpq import receive as compiled
except ImportError:
    compiled = None

# There may be more; nothing is whole until the socket brings more; the answer ends.
MORE, WAIT, END = 1, 0, -1
Receive = Callable[[int], tuple[Data, Numbers, int]]


def receiver(pgconn: pq.abc.PGconn) -> Receive:
    """A function that takes rows until so many bytes are there or no more have come: rows, the size of each, and one of
    the states. It does not wait. Raises psycopg.OperationalError."""
    functions, connection = _functions(), getattr(pgconn, "pgconn_ptr", None)
    if compiled is None or functions is None or not connection:
        return lambda most: by_driver(pgconn, most)
    receive = compiled

    def rows(most: int) -> tuple[Data, Numbers, int]:
        data, sizes, state = receive(connection, *functions, most)
        if state < END:
            raise psycopg.OperationalError(pgconn.get_error_message())
        return data, np.frombuffer(sizes, np.int64), state

    return rows


@cache
def _functions() -> tuple[int, int, int] | None:
    """Of the libpq that the driver has loaded; None where its functions are not found."""
    try:
        driver = __import__(f"psycopg_{pq.__impl__}.pq", fromlist=["pq"])
        loaded = ctypes.CDLL(driver.__file__)  # a look into a library looks into what it has loaded, too
        found = (loaded.PQgetCopyData, loaded.PQconsumeInput, loaded.PQfreemem)
    except (ImportError, OSError, AttributeError):
        return None
    get, consume, freemem = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in found)
    return get, consume, freemem


def by_driver(pgconn: pq.abc.PGconn, most: int) -> tuple[Data, Numbers, int]:
    """The same row by row."""
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
