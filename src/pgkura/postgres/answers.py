"""What both ways of receiving the answer to a COPY … TO STDOUT share (receiving.py, encrypted.py)."""

import socket

from psycopg import pq

from pgkura.postgres.messages import CopyBatch, Data, Numbers, tuples

BATCH_BYTES = 256 * 1024
# After the first batch we are woken once for this many bytes, or for as many as came within this time.
GATHER_BYTES = 256 * 1024
GATHER_MILLISECONDS = 3


class Refused(Exception):
    """The server's error: what it says, its SQLSTATE, and where; '' for what it does not tell."""

    def __init__(self, message: bytes, sqlstate: bytes, context: bytes) -> None:
        super().__init__()
        self.message, self.sqlstate, self.context = (
            text.decode(errors="replace") for text in (message, sqlstate, context)
        )

    @classmethod
    def parse(cls, content: bytes) -> "Refused":
        """From an ErrorResponse (manual, "Error and Notice Message Fields")."""
        fields = {part[:1]: part[1:] for part in content.split(b"\0") if part}
        return cls(*(fields.get(letter, b"") for letter in (b"M", b"C", b"W")))

    @classmethod
    def by_libpq(cls, result: pq.abc.PGresult) -> "Refused":
        """From a result of the driver."""
        told = pq.DiagnosticField
        message, *rest = (result.error_field(f) or b"" for f in (told.MESSAGE_PRIMARY, told.SQLSTATE, told.CONTEXT))
        return cls(message or result.error_message.strip(), *rest)


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


def wake_at(connection: socket.socket, count: int) -> None:
    """How many bytes must have come before a wait on the connection ends by itself."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
