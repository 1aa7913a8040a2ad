"""The same log by SQL functions, for where no replication connection can be had: look, store, advance, look again.

`pg_logical_slot_peek_binary_changes` gives what the plugin would have sent, and gives it again until the slot is
advanced. So nothing is looked at anew before all of the last look is stored. Each look reads the server's log from the
slot's `restart_lsn` on, and is complete in the server (in a temporary file, if it is large) before its first row comes.
"""

import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pgkura.core.names import quote_ident, quote_literal
from pgkura.core.wal import lsn_text, parse_lsn
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.messages import CopyBatch
from pgkura.postgres.pinning import connect, rename
from pgkura.postgres.queries import query
from pgkura.postgres.replication import Alive, Begun, Frame, Identity, nothing
from pgkura.postgres.session import Session, SqlError

MOST_MESSAGES = 100_000
_MOST_EVER = 1 << 30
_HAND_OVER = 2000
_WAIT_FOR_STORE = 0.02
_TEMPORARY_FILES, _IN_USE, _NOT_POSSIBLE = "53400", "55006", "55000"
_BUSY_SECONDS, _BUSY_PAUSE = 30.0, 0.1
# Two columns of eight bytes, and the size of the third.
_ROW = struct.Struct("!hiQiQi")
_COMMIT, _BEGIN, _ORIGIN, _MESSAGE = ord("C"), ord("B"), ord("O"), ord("M")
_DESCRIPTIONS = frozenset(b"RY")


class Polling:
    """One ordinary connection in place of a replication connection; use from one thread.

    A look ends at the first commit after `most` messages.
    """

    kind = "sql"

    def __init__(self, session: Session, period: float, *, most: int = MOST_MESSAGES) -> None:
        self._session = session
        self._period = period
        self._usual = most
        self._slot = ""
        self._plugin = ""
        self._confirmed = self._stored = self._taken = self._aside = 0
        self._due = self._begun = self._busy = 0.0
        self._most = most
        self._rows: Iterator[Frame] | None = None
        self._count = 0
        self._told: dict[bytes, bytes] = {}

    @classmethod
    def open(cls, endpoint: Endpoint, *, application_name: str, period: float) -> "Polling":
        """Raises DatabaseError with a plain reason."""
        return cls(connect(endpoint, application_name=application_name), period)

    @property
    def rested(self) -> bool:
        """Whether everything of the last look was handed over: no more comes before it is stored."""
        return self._rows is None

    def identify(self) -> Identity:
        """Which server answers here."""
        system, timeline, position = self._session.one(query("polling", "identity"))
        return Identity(system=system, timeline=int(timeline, 16), position=position)

    def history(self, timeline: int) -> tuple[tuple[int, int], ...]:
        """Only a replication connection tells where earlier timelines were left."""
        return ()

    def start(self, slot: str, publications: Sequence[str], position: int, begun: Begun = nothing) -> None:
        """What lies before `position` is stored: the slot is advanced to there, and looked at from there on.

        `begun` is not called: each look tells whether somebody else moved the slot.
        """
        self._slot = slot
        rename(self._session, f"pgkura reads {slot}")  # between two looks nothing else tells whose the slot is
        names = quote_literal(",".join(map(quote_ident, publications)))
        self._plugin = f"'proto_version', '1', 'publication_names', {names}, 'messages', 'true'"
        self._confirmed = self._stored = self._taken = position
        confirmed = self._where()
        if confirmed > position:  # since the store was listed
            raise self._overtaken(confirmed)
        self._confirmed = confirmed
        self._advance()

    def receive(self, seconds: float) -> Iterator[Frame | Alive]:
        """What a look finds, in portions; waits no longer than `seconds`. Raises SqlError."""
        try:
            yield from self._receive(seconds)
        except SqlError as error:
            if error.sqlstate != _IN_USE:
                raise
            # Another watcher looks just now; one that streams stays.
            now = time.monotonic()
            self._busy = self._busy or now
            if now - self._busy > _BUSY_SECONDS:
                raise
            self._rows, self._due = None, now + _BUSY_PAUSE

    def _receive(self, seconds: float) -> Iterator[Frame | Alive]:
        if self._rows is None:
            if not self._may_look(seconds):
                return
            self._begun, self._count = time.monotonic(), 0
            self._rows = self._look()
        for handed, frame in enumerate(self._rows, 1):
            yield frame
            if handed >= _HAND_OVER:
                return
        self._rows = None

    def _may_look(self, seconds: float) -> bool:
        if self._taken > self._stored:
            time.sleep(min(seconds, _WAIT_FOR_STORE))
            return False
        self._advance()
        left = self._due - time.monotonic()
        if left > 0:
            time.sleep(min(seconds, left))
        return left <= 0

    def _look(self) -> Iterator[Frame]:
        """Frames as a replication connection gives them."""
        before = self._taken
        try:
            yield from self._as_streamed(self._peek())
        except SqlError as error:
            if error.sqlstate != _TEMPORARY_FILES:
                raise
            raise SqlError(
                error.msg,
                detail="a transaction is larger than the temporary files this role may use, and is read at once",
                hint="raise temp_file_limit for this role, or watch over the direct host (--transport stream)",
                sqlstate=error.sqlstate,
            ) from error
        now, self._busy = time.monotonic(), 0.0
        full = self._count >= self._most
        # Behind: at once. Else at the pace asked for, and never more than half of the time.
        self._due = now if full else max(self._begun + self._period, 2 * now - self._begun)
        # Messages outside of transactions alone can fill a look; then the next one must see further.
        self._most = min(2 * self._most, _MOST_EVER) if full and self._taken == before else self._usual

    def _peek(self) -> Iterator[tuple[int, bytes]]:
        slot = quote_literal(self._slot)
        # The middle column is asked once, when the first row is there. The slot only ever goes forward: if it is then
        # where we left it, the look began there.
        sql = (
            "COPY (SELECT p.lsn, coalesce((SELECT s.confirmed_flush_lsn FROM pg_catalog.pg_replication_slots s "
            f"WHERE s.slot_name = {slot}), '0/0'), p.data FROM pg_catalog.pg_logical_slot_peek_binary_changes("
            f"{slot}, NULL, {self._most}, {self._plugin}) p) TO STDOUT (FORMAT binary)"
        )
        for batch in self._session.copy_out(sql, binary=True):
            for lsn, confirmed, payload in unpacked(batch):
                if confirmed != self._confirmed:
                    raise self._overtaken(confirmed)
                self._count += 1
                yield lsn, payload

    def _as_streamed(self, rows: Iterator[tuple[int, bytes]]) -> Iterator[Frame]:
        """Without what a new look says again, and without the positions that walsenders do not tell."""
        begin: Frame | None = None
        for lsn, payload in rows:
            kind = payload[0]
            if begin is not None:
                # Of a transaction with an origin only the last of two messages has the position.
                yield Frame(0, begin.payload) if kind == _ORIGIN else begin
                begin = None
            if kind == _BEGIN:
                begin = Frame(lsn, payload)
                continue
            if kind in _DESCRIPTIONS:
                if self._told.get(payload[:5]) == payload:
                    continue
                self._told[payload[:5]] = payload
                lsn = 0
            elif kind == _COMMIT:
                self._taken = lsn
            elif kind == _MESSAGE and not payload[1] & 1:
                # Outside of transactions: nothing is confirmed behind it before the next commit.
                if lsn <= self._aside:
                    continue
                self._aside = lsn
            yield Frame(lsn, payload)

    def confirm(self, lsn: int) -> None:
        """Everything up to here is stored for good. The server hears it once that is all of the look."""
        self._stored = max(self._stored, lsn)

    def _advance(self) -> None:
        if self._stored <= self._confirmed:
            return
        try:
            (end,) = self._session.one(query("polling", "advance"), (self._slot, lsn_text(self._stored)))
        except SqlError as error:
            if error.sqlstate == _NOT_POSSIBLE and (now := self._where()) > self._confirmed:
                raise self._overtaken(now) from error
            raise
        self._confirmed = parse_lsn(end)

    def _where(self) -> int:
        return parse_lsn(str(self._session.one(query("polling", "confirmed"), (self._slot,))[0]))

    def _overtaken(self, confirmed: int) -> SqlError:
        """Nothing is lost: whoever confirmed has stored. The store says from where on to read."""
        return SqlError(
            "the slot was advanced by somebody else",
            detail=f"from {lsn_text(self._confirmed)} to {lsn_text(confirmed)}: another watcher?",
        )

    def keep_alive(self) -> None:
        """Nobody waits for a sign of life from an ordinary connection."""

    def close(self) -> None:
        """Close; idempotent."""
        if self._rows is None and self._slot and not self._session.broken:
            with suppress(SqlError):
                self._advance()
        self._session.close()


def unpacked(batch: CopyBatch) -> Iterator[tuple[int, int, bytes]]:
    """(position, confirmed position, message) of binary rows. Pure."""
    data, at = batch.data, 0
    read, head, size = _ROW.unpack_from, _ROW.size, len(batch.data)
    while at < size:
        _, _, lsn, _, confirmed, length = read(data, at)
        at += head
        yield lsn, confirmed, bytes(data[at : at + length])
        at += length
