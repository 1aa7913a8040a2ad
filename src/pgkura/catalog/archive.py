"""Reads the table of contents of a pg_dump archive (custom format), as src/bin/pg_dump/pg_backup_archiver.c writes it.

Every number and length is checked against what is there: an archive may come out of a store that somebody else writes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from sys import intern

MAGIC = b"PGDMP"
OLDEST, NEWEST = (1, 12), (1, 16)
_WITH_METHODS, _WITH_ALGORITHM, _WITH_RELKIND = (1, 14), (1, 15), (1, 16)
_CUSTOM = 1
# Seconds, minutes, hours, day, month, year, daylight saving.
_TIME_FIELDS = 7
# Of a number: eight bytes and its sign.
_WIDEST = 9
_CUT = "it ends in the middle"


class NotAnArchive(ValueError):
    """Something else, or a damaged one."""


class LaterArchive(ValueError):
    """Of a pg_dump that this program does not know."""


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One entry as it stands there; what is absent is ''."""

    dump_id: int
    table_oid: str
    oid: str
    tag: str
    desc: str
    defn: str
    drop: str
    schema: str
    table_am: str
    relkind: str
    owner: str
    deps: tuple[int, ...]


class ArchiveReader:
    """The head at once, then the entries, once. Raises NotAnArchive, LaterArchive."""

    def __init__(self, data: bytes | mmap) -> None:
        self._data = data
        self._size = len(data)
        self._at = 0
        self._width = 0
        if self._take(len(MAGIC)) != MAGIC:
            raise NotAnArchive("it does not begin as one")
        self.version = (self._byte(), self._byte())
        if self.version > NEWEST:
            raise LaterArchive(f"{self.version[0]}.{self.version[1]}")
        if self.version < OLDEST:
            raise NotAnArchive(f"format {self.version[0]}.{self.version[1]} is too old")
        self._byte()  # the revision
        # A number is a byte for its sign, then its lowest byte first.
        self._width, self._offset_width, form = 1 + self._byte(), 1 + self._byte(), self._byte()
        if not 1 < self._width <= _WIDEST or not 1 < self._offset_width <= _WIDEST or form != _CUSTOM:
            raise NotAnArchive("sizes or format in its head are none")
        # How rows are compressed: there are none.
        _ = self._byte() if self.version >= _WITH_ALGORITHM else self._number()
        for _ in range(_TIME_FIELDS):
            self._number()
        self._text()  # the database
        self.server_version, self.dump_version = self._text(), self._text()

    def entries(self) -> Iterator[RawEntry]:
        """All, in the archive's order."""
        count = self._number()
        if count < 0:
            raise NotAnArchive("a negative number of entries")
        text, number, version = self._text, self._number, self.version
        for _ in range(count):
            dump_id, _has_rows = number(), number()
            table_oid, oid, tag, desc = text(), text(), text(), text()
            number()  # the section: our own table of kinds knows it
            defn, drop, _copy, schema, _tablespace = text(), text(), text(), text(), text()
            table_am = text() if version >= _WITH_METHODS else ""
            relkind = chr(number()).strip("\0") if version >= _WITH_RELKIND else ""
            owner, _with_oids = text(), text()
            deps = self._dependencies()
            self._take(self._offset_width)  # where its rows would lie
            yield RawEntry(
                dump_id, table_oid, oid, tag, intern(desc), defn, drop, intern(schema), intern(table_am), relkind,
                intern(owner), deps,
            )  # fmt: skip

    def _dependencies(self) -> tuple[int, ...]:
        """Ascending, each once; in the archive they end with an absent text."""
        found = set()
        while (length := self._number()) >= 0:
            found.add(int(self._take(length)))
        return tuple(sorted(found))

    def _text(self) -> str:
        """What is absent has the length -1."""
        length = self._number()
        return str(self._take(length), "utf-8") if length > 0 else ""

    def _number(self) -> int:
        at = self._at
        self._at = end = at + self._width
        if end > self._size:
            raise NotAnArchive(_CUT)
        value = int.from_bytes(self._data[at + 1 : end], "little")
        return -value if self._data[at] else value

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        at = self._at
        self._at = end = at + count
        if end > self._size:
            raise NotAnArchive(_CUT)
        return self._data[at:end]
