"""Messages of the output plugin pgoutput, protocol 1, values as text. Pure, and only as deep as asked for.

Begin, Commit, Relation, Insert, Update, Delete, Truncate and Message are read; Type and Origin say nothing we need.
PostgreSQL documentation, "Logical Replication Message Formats".
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from pgkura.core.errors import Tampered
from pgkura.core.names import QualifiedName
from pgkura.core.wal import EPOCH_2000

BEGIN, COMMIT, RELATION, INSERT, UPDATE, DELETE, TRUNCATE, MESSAGE = (ord(c) for c in "BCRIUDTM")
ROWS = frozenset({INSERT, UPDATE, DELETE})
CHANGES = ROWS | {TRUNCATE}
_BEGIN = struct.Struct("!xQqI")
_COMMIT = struct.Struct("!xBQQq")
_OID = struct.Struct("!xI")
_CHANGE = struct.Struct("!BIB")
_TRUNCATE = struct.Struct("!xIB")
_MESSAGE = struct.Struct("!xBQ")
_SHORT = struct.Struct("!H")
_LONG = struct.Struct("!I")


class Unchanged:
    """The mark of a large value that an update did not touch: it is where it was."""

    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED = Unchanged()
# A value as text, NULL, or one that is not told.
Value = bytes | None | Unchanged
Row = tuple[Value, ...]


class Begin(NamedTuple):  # made a million times, as Commit and Change: cheaper than a dataclass
    """`lsn` of the commit to come, `time` of it in microseconds since 1970, `xid` in 32 bits."""

    lsn: int
    time: int
    xid: int


class Commit(NamedTuple):
    """`lsn` of the commit record, `end` of the transaction: where to go on."""

    lsn: int
    end: int
    time: int


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """`key`: a part of what tells the old row."""

    name: str
    key: bool
    type: int
    modifier: int


@dataclass(frozen=True, slots=True)
class Relation:
    """How the rows of a table look from here on. `identity`: d, n, f or i."""

    oid: int
    qname: QualifiedName
    identity: str
    columns: tuple[RelationColumn, ...]


class Change(NamedTuple):
    """A row that came, went or became another. `whole`: `old` is all of it, not just its key; size: of its message."""

    kind: int
    relation: int
    old: Row | None
    new: Row | None
    whole: bool = False
    size: int = 0


# A Change, or the same without the names.
Parts = tuple[int, int, Row | None, Row | None, bool, int]


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables that were emptied together."""

    relations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody wrote into the log. `lsn` where it stands."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


def begin(data: bytes) -> Begin:
    """A Begin."""
    lsn, time, xid = _BEGIN.unpack_from(data)
    return Begin(lsn, time + EPOCH_2000, xid)


def commit(data: bytes) -> Commit:
    """A Commit."""
    _, lsn, end, time = _COMMIT.unpack_from(data)
    return Commit(lsn, end, time + EPOCH_2000)


def relation_of(data: bytes) -> int:
    """The table's number of a Relation, Insert, Update or Delete."""
    return int(_OID.unpack_from(data)[0])


def truncate(data: bytes) -> Truncate:
    """A Truncate."""
    count, _ = _TRUNCATE.unpack_from(data)
    return Truncate(struct.unpack_from(f"!{count}I", data, _TRUNCATE.size))


def message(data: bytes) -> Message:
    """A Message."""
    flags, lsn = _MESSAGE.unpack_from(data)
    prefix, at = _text(data, _MESSAGE.size)
    (size,) = _LONG.unpack_from(data, at)
    return Message(bool(flags & 1), lsn, prefix, data[at + 4 : at + 4 + size])


def relation(data: bytes) -> Relation:
    """A Relation."""
    schema, at = _text(data, 5)
    name, at = _text(data, at)
    identity = chr(data[at])
    (count,) = _SHORT.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        key = bool(data[at] & 1)
        column, at = _text(data, at + 1)
        type_, modifier = struct.unpack_from("!Ii", data, at)
        at += 8
        columns.append(RelationColumn(column, key, type_, modifier))
    return Relation(relation_of(data), QualifiedName(schema or "pg_catalog", name), identity, tuple(columns))


def damaged(why: str) -> Tampered:
    """What a message that cannot be read raises."""
    return Tampered("a message of the change log is damaged", detail=why)


def change(data: bytes) -> Change:
    """An Insert, Update or Delete. Raises Tampered."""
    try:
        return _change(data)
    except (struct.error, IndexError) as error:
        raise damaged("it is cut short") from error


def _change(data: bytes) -> Change:
    kind, oid, tag = _CHANGE.unpack_from(data)
    at = _CHANGE.size
    old: Row | None = None
    whole = False
    if tag in b"KO" and kind != INSERT:
        whole = tag == 0x4F
        old, at = _row(data, at)
        if kind == DELETE:
            return Change(kind, oid, old, None, whole, len(data))
        tag, at = data[at], at + 1
    if tag != 0x4E or kind == DELETE:
        raise damaged("an update or insert without a row")
    return Change(kind, oid, old, _row(data, at)[0], whole, len(data))


def _row(data: bytes, at: int) -> tuple[Row, int]:
    (count,) = _SHORT.unpack_from(data, at)
    at += 2
    values: list[Value] = []
    add, size_of = values.append, _LONG.unpack_from
    for _ in range(count):
        kind = data[at]
        at += 1
        if kind == 0x74:  # t: text
            end = at + 4 + size_of(data, at)[0]
            add(data[at + 4 : end])
            at = end
        elif kind == 0x6E:  # n
            add(None)
        elif kind == 0x75:  # u
            add(UNCHANGED)
        else:
            raise damaged("a value of an unknown kind")
    if at > len(data):
        raise damaged("it is cut short")
    return tuple(values), at


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
