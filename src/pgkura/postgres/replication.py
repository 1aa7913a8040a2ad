"""The only door to a replication connection: what a logical slot sends, message by message, and what it is told.

The driver has no class for it, yet its connection speaks the protocol: START_REPLICATION leaves it in COPY_BOTH, and
messages come by `get_copy_data`. Values print under the pinned settings: they are set on this connection too.
"""

import fcntl
import select
import struct
import termios
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq

from pgkura.core.errors import DatabaseError
from pgkura.core.names import quote_ident, quote_literal
from pgkura.core.wal import EPOCH_2000, lsn_text, parse_lsn
from pgkura.postgres.endpoint import Endpoint, refuse_transaction_pooler
from pgkura.postgres.failures import connection_failure
from pgkura.postgres.pinning import PINNED
from pgkura.postgres.session import SqlError

_STATUS_SECONDS = 5.0
# Without a word from the server: ask for one; then the connection counts as dead. Decoding a large transaction of which
# nothing is ours may keep old servers silent for minutes.
ASK_SECONDS = 10.0
SILENT_SECONDS = 300.0
# Between two reads, unless much waits to be read: half of what a system holds for a connection that is new. To be woken
# by every commit of a busy source costs it more than all else that following it costs (decision 0020).
BREATH_SECONDS = 0.05
MUCH_BYTES = 32 * 1024
_TICK_SECONDS = 0.001
# The driver takes at least so much at a time, if it is there.
_TAKEN_BYTES = 8 * 1024
# The server ends the connection when we take nothing for so long. A process of its that sends to somebody who does not
# read cannot be ended by a signal, and a checkpoint that gives the slot up waits for it, for ever.
STUCK_SECONDS = 120
_BEGIN, _COMMIT = b"BC"
_DATA = struct.Struct("!cQQq")
_ALIVE = struct.Struct("!cQqB")
_STATUS = struct.Struct("!cQQQqB")


Begun = Callable[[], None]


def nothing() -> None:
    """For whoever need not know that a stream has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which server this is. `position`: how far its log is flushed."""

    system: str
    timeline: int
    position: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the output plugin, and where in the log it stands (0 where the server says nothing)."""

    lsn: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Alive:
    """The server has read its log so far, and has sent everything of ours in it. `time`: its clock, in microseconds."""

    lsn: int
    time: int


class Replication:
    """One replication connection; use from one thread."""

    kind = "stream"
    rested = False  # something may come at any time

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._flushed = 0
        self._told = 0.0
        self._asked = False
        self._heard = time.monotonic()
        self._waits_since = 0.0
        self._taken = 0.0
        self._inside = False

    @classmethod
    def open(cls, endpoint: Endpoint, *, application_name: str) -> "Replication":
        """Raises DatabaseError with a plain reason."""
        refuse_transaction_pooler(endpoint)
        try:
            connection = psycopg.connect(
                endpoint.conninfo(
                    application_name=application_name,
                    replication="database",
                    connect_timeout=15,
                    keepalives_idle=30,
                    keepalives_interval=10,
                    keepalives_count=6,
                    tcp_user_timeout=90_000,
                ),
                autocommit=True,
                prepare_threshold=None,
            )
        except psycopg.Error as error:
            raise connection_failure(endpoint, error) from None
        made = cls(connection)
        try:
            for name, value in (*PINNED, ("tcp_user_timeout", f"{STUCK_SECONDS * 1000}")):
                made._run(f"SET {name} = {quote_literal(value)}")
        except BaseException:
            made.close()
            raise
        return made

    def identify(self) -> Identity:
        """Which server answers here."""
        row = self._run("IDENTIFY_SYSTEM")
        return Identity(system=row[0], timeline=int(row[1]), position=row[2])

    def history(self, timeline: int) -> tuple[tuple[int, int], ...]:
        """(timeline, where it was left) of all that came before this one; empty where the server does not know."""
        if timeline < 2:
            return ()
        try:
            text = self._run(f"TIMELINE_HISTORY {timeline}")[1]
        except DatabaseError:
            if self._connection.closed:
                raise
            return ()
        lines = (line.split("\t") for line in text.splitlines() if line.strip() and not line.startswith("#"))
        return tuple((int(line[0]), parse_lsn(line[1])) for line in lines if len(line) > 1)

    def start(self, slot: str, publications: Sequence[str], position: int, begun: Begun = nothing) -> None:
        """Begin to receive. What lies before `position` or was confirmed earlier is not sent.

        `begun` is called once nobody else can move the slot.
        """
        self._flushed = position
        names = quote_literal(",".join(map(quote_ident, publications)))
        command = (
            f"START_REPLICATION SLOT {quote_ident(slot)} LOGICAL {lsn_text(position)} "
            f"(proto_version '1', publication_names {names}, messages 'true')"
        )
        result = self._answer(command)
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise _failed(result, "START_REPLICATION")
        begun()

    def receive(self, seconds: float) -> Iterator[Frame | Alive]:
        """Everything that is there, or comes within `seconds`; ends when nothing is there after the first.

        Status replies go out by themselves, inside long transactions too. Raises SqlError when the server ends it.
        """
        pgconn = self._pgconn
        until = time.monotonic() + seconds
        came = 0
        try:
            while True:
                self.keep_alive()
                size, data = pgconn.get_copy_data(1)
                if size > 0:
                    message = self._message(data)
                    if message is not None:
                        yield message
                    came += 1
                    # The caller's own clock must be heard in an endless stream too.
                    if came >= 2000:
                        return
                elif size == -1:
                    self._ended()
                elif came:
                    return
                else:
                    left = until - time.monotonic()
                    if left <= 0 or not select.select([pgconn.socket], [], [], min(left, 1.0))[0]:
                        if left > 0:
                            pgconn.consume_input()  # a rest that TLS has decrypted already: no socket shows it
                        self._fear_silence()
                        if time.monotonic() >= until:
                            return
                        continue
                    self._breathe()
                    self._take()
        except psycopg.Error as error:
            raise SqlError("the replication connection broke", detail=" ".join(str(error).split())) from None

    def _breathe(self) -> None:
        """Wait until the last read is long enough ago, or much is there. The rest of a transaction is on its way."""
        if self._inside:
            return
        tick = _TICK_SECONDS
        while (left := self._taken + BREATH_SECONDS - time.monotonic()) > 0 and self._waiting() < MUCH_BYTES:
            time.sleep(min(left, tick))
            tick *= 2

    def _take(self) -> None:
        """What waits now, and of much no more than that at a time; what comes meanwhile waits for the next breath."""
        for _ in range(1 + min(self._waiting(), MUCH_BYTES) // _TAKEN_BYTES):
            self._pgconn.consume_input()
        self._taken = self._heard = time.monotonic()
        self._waits_since = 0.0

    def _waiting(self) -> int:
        """Bytes that the system holds for us."""
        held = array("i", [0])
        fcntl.ioctl(self._pgconn.socket, termios.FIONREAD, held)
        return held[0]

    def confirm(self, lsn: int) -> None:
        """Everything up to here is stored for good: the server may forget it."""
        self._flushed = max(self._flushed, lsn)
        self._reply()

    def _message(self, data: Any) -> Frame | Alive | None:
        kind = bytes(data[:1])
        if kind == b"w":
            _, lsn, _, _ = _DATA.unpack_from(data)
            first = data[_DATA.size]
            if first in (_BEGIN, _COMMIT):
                self._inside = first == _BEGIN
            return Frame(lsn, bytes(data[_DATA.size :]))
        if kind == b"k":
            _, lsn, sent, wanted = _ALIVE.unpack_from(data)
            self._asked = self._asked or bool(wanted)
            return Alive(lsn, sent + EPOCH_2000)
        return None

    def keep_alive(self) -> None:
        """Say that we live, if it is time: for whoever is busy with something else. Raises SqlError."""
        if self._asked or time.monotonic() - self._told >= _STATUS_SECONDS:
            self._reply()

    def _fear_silence(self) -> None:
        """Between us and the server may be somebody who takes what we send and passes nothing on."""
        if self._waits_since and time.monotonic() - self._waits_since >= SILENT_SECONDS:
            raise SqlError(
                "the replication connection is dead", detail=f"no answer from the server for {SILENT_SECONDS:g} s"
            )

    def _reply(self) -> None:
        self._told, self._asked = time.monotonic(), False
        wants_answer = self._told - self._heard >= ASK_SECONDS
        if wants_answer and not self._waits_since:
            self._waits_since = self._told
        now = time.time_ns() // 1000 - EPOCH_2000
        try:
            self._pgconn.put_copy_data(
                _STATUS.pack(b"r", self._flushed, self._flushed, self._flushed, now, wants_answer)
            )
            while self._pgconn.flush():
                select.select([], [self._pgconn.socket], [], 1.0)
        except psycopg.Error as error:
            raise SqlError("the replication connection broke", detail=" ".join(str(error).split())) from None

    def _ended(self) -> None:
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise _failed(result, "START_REPLICATION")
        raise SqlError("the server ended the replication", detail="it stops, or somebody ended its process")

    def _answer(self, command: str) -> pq.abc.PGresult:
        try:
            return self._pgconn.exec_(command.encode())
        except psycopg.Error as error:
            raise SqlError("the replication connection broke", detail=" ".join(str(error).split())) from None

    def _run(self, command: str) -> tuple[str, ...]:
        result = self._answer(command)
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise _failed(result, command.split("=")[0])
        return tuple((result.get_value(0, n) or b"").decode() for n in range(result.nfields)) if result.ntuples else ()

    def close(self) -> None:
        """Close; idempotent. The server process ends, and the slot is free."""
        with suppress(psycopg.Error):
            self._connection.close()


def _failed(result: pq.abc.PGresult, what: str) -> DatabaseError:
    code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    primary = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    detail = (result.error_field(pq.DiagnosticField.MESSAGE_DETAIL) or b"").decode(errors="replace")
    why = "; ".join(filter(None, (detail, what)))
    return SqlError(primary or "the server gave no reason", detail=why, sqlstate=code)
