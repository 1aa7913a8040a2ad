"""What was read of each table, until the snapshot is finished: in a file without a name, since it grows with the rows.

The ledger decides; this keeps.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby

from pgkura.core.refs import ChunkRef, Layer
from pgkura.core.scratch import new_database
from pgkura.repository.spool import pack_layer, pack_ref, places_of, unpack_layer, unpack_ref
from pgkura.snapshot.units import RangeRead, StoredChunk

_TABLES = """
CREATE TABLE layers (number, piece, position, layer BLOB, PRIMARY KEY (number, piece, position)) WITHOUT ROWID;
CREATE TABLE ranges (number, start, piece, "end", rows, since, PRIMARY KEY (number, start)) WITHOUT ROWID;
CREATE TABLE fresh (object BLOB, mac BLOB, ref BLOB, told, PRIMARY KEY (object, mac)) WITHOUT ROWID;
"""
# In a packed layer the id of its chunk's object stands behind nine bytes (repository/spool.py).
_BY_OBJECT = """
SELECT layer FROM layers JOIN (
    SELECT substr(layer, 10, 16) AS object, max(position) AS age, min(piece) AS first
    FROM layers WHERE number = ?1 GROUP BY object
) ON object = substr(layer, 10, 16) WHERE number = ?1 ORDER BY age, first, object, piece, position
"""


class Booked:
    """Layers and ranges by table, and the chunks that this run stored. One thread at a time; close it after use."""

    def __init__(self) -> None:
        self._database = new_database()
        self._database.executescript(_TABLES)
        # Tables with ranges of several layers.
        self._deep: set[int] = set()
        self._together = False
        self._layers: list[tuple[object, ...]] = []
        self._ranges: list[tuple[object, ...]] = []
        self._fresh: list[tuple[object, ...]] = []

    @contextmanager
    def together(self) -> Iterator[None]:
        """Book many readings at once: a thousand tables are not thousands of statements."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
        self._write()

    def add(self, number: int, chunks: Collection[StoredChunk], ranges: Iterable[RangeRead]) -> None:
        """Book a reading. A place that is taken is an error: rows would be counted twice."""
        self._layers += [(number, c.piece, c.position, pack_layer(c.layer)) for c in chunks]
        if any(c.position for c in chunks):
            self._deep.add(number)
        self._ranges += [(number, r.start, r.piece, r.end, r.rows, r.since) for r in ranges]
        self._fresh += [
            (bytes.fromhex(ref.object.id), bytes.fromhex(ref.mac), pack_ref(ref)) for c in chunks for ref in c.fresh
        ]
        if not self._together:
            self._write()

    def _write(self) -> None:
        run = self._database.executemany
        self._database.execute("BEGIN")
        run("INSERT INTO layers VALUES (?, ?, ?, ?)", self._layers)
        run("INSERT INTO ranges VALUES (?, ?, ?, ?, ?, ?)", self._ranges)
        run("INSERT OR IGNORE INTO fresh VALUES (?, ?, ?, 0)", self._fresh)
        self._database.execute("COMMIT")
        self._layers, self._ranges, self._fresh = [], [], []

    def forget(self, number: int) -> None:
        """A table's readings do not count after all; what they stored lies there and is known."""
        self._write()
        self._database.execute("DELETE FROM layers WHERE number = ?", (number,))
        self._database.execute("DELETE FROM ranges WHERE number = ?", (number,))

    def layers(self, number: int) -> Iterator[Layer]:
        """Of one table, as they will be read: as they lie in it, or, once ranges have several, as they lie in objects.

        A day's layers of neighbouring ranges are one object. Range by range, a month of them would be opened for each.
        """
        if number in self._deep:
            sql = _BY_OBJECT
        else:
            sql = "SELECT layer FROM layers WHERE number = ? ORDER BY piece"
        return (unpack_layer(row[0]) for row in self._database.execute(sql, (number,)))

    def ranges(self) -> Iterator[tuple[int, RangeRead, tuple[Layer, ...]]]:
        """The followed ranges of all tables with their layers, by number and position."""
        sql = (
            'SELECT r.number, r.start, r.piece, r."end", r.rows, r.since, l.layer FROM ranges r LEFT JOIN layers l '
            "ON l.number = r.number AND l.piece = r.piece ORDER BY r.number, r.start, l.position"
        )
        for head, rows in groupby(self._database.execute(sql), lambda row: row[:6]):
            number, start, piece, end, count, since = head
            layers = tuple(unpack_layer(row[6]) for row in rows if row[6] is not None)
            yield number, RangeRead(piece=piece, start=start, end=end, rows=count, since=since), layers

    def places(self) -> Iterator[ChunkRef]:
        """Of the rows of followed ranges."""
        sql = "SELECT l.layer FROM ranges r JOIN layers l ON l.number = r.number AND l.piece = r.piece"
        return (ref for row in self._database.execute(sql) if (ref := places_of(row[0])) is not None)

    def fresh(self) -> Iterator[ChunkRef]:
        """Chunks whose bytes this run stored, those of one object together."""
        return (unpack_ref(row[0]) for row in self._database.execute("SELECT ref FROM fresh ORDER BY object, mac"))

    def untold(self) -> Iterator[ChunkRef]:
        """Those of them that no index file names yet."""
        sql = "SELECT ref FROM fresh WHERE told = 0 ORDER BY object, mac"
        return (unpack_ref(row[0]) for row in self._database.execute(sql))

    def told(self) -> None:
        """An index file names all there are."""
        self._database.execute("UPDATE fresh SET told = 1 WHERE told = 0")

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


class TableLayers(Collection[Layer]):
    """A table's layers, read anew each time."""

    __slots__ = ("_booked", "_count", "_number")

    def __init__(self, booked: Booked, number: int, count: int) -> None:
        self._booked = booked
        self._number = number
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Layer]:
        return self._booked.layers(self._number)

    def __contains__(self, layer: object) -> bool:
        return any(layer == one for one in self)
