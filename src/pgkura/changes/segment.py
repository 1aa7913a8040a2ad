"""Where the log is cut, and what is told about each piece. Messages go through as they came; nothing is decoded
but what a cut and its record need. Pure but for where finished parts go.

Frames: `<length of payload, 4 bytes><position, 8 bytes><payload>`, big-endian. The Relation message of a table is
repeated before its first change in each segment, so that every segment can be read alone.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pgkura.changes import pgoutput
from pgkura.core.errors import Tampered
from pgkura.core.wal import Visible, lsn_text
from pgkura.postgres.ddl_messages import PREFIX as DDL
from pgkura.repository.changes import PartRef
from pgkura.repository.seal import Frames as Compressed
from pgkura.repository.seal import new_compressor

T = TypeVar("T")
FRAME = struct.Struct("!IQ")
# Compressed messages that are held in memory before they go into a part of their own.
PART_BYTES = 4 * 1024 * 1024
# Plain messages that are compressed together, whatever they shrink to.
PART_PLAIN = 16 * 1024 * 1024
MARK = "pgkura.mark"
BEAT = "pgkura.beat"
_INSERT, _UPDATE, _DELETE, _TRUNCATE = range(4)
_COUNTED = {pgoutput.INSERT: _INSERT, pgoutput.UPDATE: _UPDATE, pgoutput.DELETE: _DELETE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A named point: the state after its transaction."""

    name: str
    lsn: int
    end: int
    xid: int
    time: int


@dataclass(slots=True, kw_only=True)
class Tally:
    """What is known of a segment in the making, of whole transactions only."""

    start: int
    end: int
    transactions: int = 0
    messages: int = 0
    first_time: int = 0
    last_time: int = 0
    min_xid: int = 0
    max_xid: int = 0
    plain: int = 0
    ddl: int = 0
    tables: dict[int, list[int]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)

    def count(self, oid: int, place: int) -> None:
        """One more change of a table."""
        self.tables.setdefault(oid, [0, 0, 0, 0])[place] += 1

    @property
    def changes(self) -> int:
        """Of all tables."""
        return sum(map(sum, self.tables.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A finished segment, but for what its writer adds. `rest`: compressed messages that are in no part yet."""

    tally: Tally
    parts: tuple[tuple[PartRef, int], ...]
    rest: bytes
    rest_plain: int
    relations: dict[int, pgoutput.Relation]


class Segmenter:
    """Takes messages in order, gives segments. `spill` stores compressed messages that outgrow memory."""

    def __init__(self, position: int, spill: Callable[[bytes], PartRef]) -> None:
        self._spill = spill
        self._relations: dict[int, bytes] = {}
        self._compressor = new_compressor()
        self.widen: Callable[[int], int] = lambda xid: xid
        self._begin(position)

    def _begin(self, position: int) -> None:
        self._tally = Tally(start=position, end=position)
        self._parts: list[tuple[PartRef, int]] = []
        self._packing = Compressed(self._compressor)
        self._plain = 0
        self._told: set[int] = set()
        self._open: pgoutput.Begin | None = None
        self._marks: list[str] = []

    @property
    def position(self) -> int:
        """Up to here everything is in the segments so far."""
        return self._tally.end

    @property
    def inside(self) -> bool:
        """Whether a transaction is half here."""
        return self._open is not None

    @property
    def empty(self) -> bool:
        """Whether no transaction is here."""
        return not self._tally.transactions

    @property
    def size(self) -> int:
        """Plain bytes of the segment so far."""
        return self._tally.plain

    def take(self, lsn: int, payload: bytes) -> None:
        """One message."""
        kind = payload[0]
        if kind in _COUNTED:
            oid = pgoutput.relation_of(payload)
            self._introduce(oid)
            self._tally.count(oid, _COUNTED[kind])
        elif kind == pgoutput.RELATION:
            oid = pgoutput.relation_of(payload)
            self._relations[oid] = payload
            self._told.add(oid)
        elif kind == pgoutput.BEGIN:
            self._open = pgoutput.begin(payload)
        elif kind == pgoutput.TRUNCATE:
            for oid in pgoutput.truncate(payload).relations:
                self._introduce(oid)
                self._tally.count(oid, _TRUNCATE)
        elif kind == pgoutput.MESSAGE:
            self._message(payload)
        self._write(lsn, payload)
        if kind == pgoutput.COMMIT:
            self._commit(pgoutput.commit(payload))
        elif self._plain >= PART_PLAIN:
            self._end_part()

    def _message(self, payload: bytes) -> None:
        told = pgoutput.message(payload)
        if told.transactional and told.prefix == MARK:
            self._marks.append(told.content.decode(errors="replace"))
        self._tally.ddl += told.transactional and told.prefix == DDL

    def _introduce(self, oid: int) -> None:
        if oid not in self._told:
            self._told.add(oid)
            if oid not in self._relations:
                raise Tampered("the server sent a change of a table that it did not introduce")
            self._write(0, self._relations[oid])

    def _write(self, lsn: int, payload: bytes) -> None:
        framed = FRAME.pack(len(payload), lsn) + payload
        self._packing.write(framed)
        self._plain += len(framed)
        self._tally.plain += len(framed)
        self._tally.messages += 1

    def _commit(self, done: pgoutput.Commit) -> None:
        begun, tally = self._open, self._tally
        if begun is None:
            raise Tampered("the server sent a commit without a beginning")
        xid = self.widen(begun.xid)
        tally.transactions += 1
        tally.end = done.end
        tally.first_time = tally.first_time or done.time
        tally.last_time = max(tally.last_time, done.time)
        tally.min_xid = min(tally.min_xid or xid, xid)
        tally.max_xid = max(tally.max_xid, xid)
        tally.marks += [Mark(name=n, lsn=done.lsn, end=done.end, xid=xid, time=done.time) for n in self._marks]
        self._open, self._marks = None, []

    def _end_part(self) -> None:
        packed = self._packing.end()
        self._parts.append((self._spill(packed), self._plain))
        self._packing = Compressed(self._compressor)
        self._plain = 0

    def cut(self) -> Cut:
        """The segment up to the last commit; the next one begins there. Only between transactions."""
        if self.inside:
            raise ValueError("a segment ends at a commit")
        rest = self._packing.end() if self._plain else b""
        if len(rest) > PART_BYTES:
            self._parts.append((self._spill(rest), self._plain))
            rest, self._plain = b"", 0
        made = Cut(
            tally=self._tally,
            parts=tuple(self._parts),
            rest=rest,
            rest_plain=self._plain,
            relations={oid: pgoutput.relation(self._relations[oid]) for oid in self._tally.tables},
        )
        self._begin(self._tally.end)
        return made


def record_of(cut: Cut, *, chain: str, before: tuple[int, int], rest_bytes: int) -> dict[str, Any]:
    """What hosts may know. `before`: the highest transaction number and the latest commit time of what came before."""
    tally = cut.tally
    return {
        "chain": chain,
        "start": lsn_text(tally.start),
        "end": lsn_text(tally.end),
        "transactions": tally.transactions,
        "messages": tally.messages,
        "changes": tally.changes,
        "first_time": tally.first_time,
        "last_time": tally.last_time,
        "min_xid": tally.min_xid,
        "max_xid": tally.max_xid,
        "top_xid": max(before[0], tally.max_xid),
        "top_time": max(before[1], tally.last_time),
        "tables": [
            [cut.relations[oid].qname.schema, cut.relations[oid].qname.name, *counts]
            for oid, counts in sorted(tally.tables.items())
        ],
        "marks": [m.name for m in tally.marks],
        **({"ddl": tally.ddl} if tally.ddl else {}),
        "parts": [{**ref.as_json(), "plain": plain} for ref, plain in cut.parts],
        "rest": {"bytes": rest_bytes, "plain": cut.rest_plain},
    }


def frames(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """(position, payload) of plain messages that come in pieces. Raises Tampered."""
    for found in whole(pieces, cut):
        yield from found


def whole(pieces: Iterable[bytes], take: Callable[[bytes], tuple[list[T], int]]) -> Iterator[list[T]]:
    """What `take` finds at the front, with where it stops; what it leaves is joined to the next piece."""
    parts: list[bytes] = []
    size, wanted = 0, FRAME.size
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size < wanted:
            continue  # a large message: to join it once is enough
        data = piece if len(parts) == 1 else b"".join(parts)
        found, stop = take(data)
        yield found
        size -= stop
        parts = [data[stop:]] if size else []
        wanted = FRAME.size + (FRAME.unpack_from(data, stop)[0] if size >= FRAME.size else 0)
    if size:
        raise Tampered("a segment of the change log is damaged", detail="it ends within a message")


def cut(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """The whole frames at the front, and where the first that is not whole begins."""
    found = []
    at, size = 0, len(data)
    while size - at >= FRAME.size:
        length, lsn = FRAME.unpack_from(data, at)
        end = at + FRAME.size + length
        if end > size:
            break
        found.append((lsn, data[at + FRAME.size : end]))
        at = end
    return found, at


def widening(visible: str) -> Callable[[int], int]:
    """From 32 to 64 bits, by a snapshot of about the same time."""
    return Visible.parse(visible).widen
