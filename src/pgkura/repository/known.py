"""The signed index, to be asked for one chunk: in a file without a name, since it grows with the repository."""

import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.core.scratch import new_database

_AT_ONCE = 1_000


class KnownChunks:
    """Chunks by MAC; of two with the same the one added later. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database = new_database()
        self._database.execute("CREATE TABLE present (id BLOB PRIMARY KEY, size) WITHOUT ROWID")
        self._database.execute("CREATE TABLE objects (number INTEGER PRIMARY KEY, id BLOB, size, sha256 BLOB)")
        self._database.execute("CREATE TABLE chunks (mac BLOB, object, offset, stored, length, rows)")
        # The numbers of objects seen last.
        self._numbers: dict[str, int | None] = {}
        self._count = 0

    def present(self, objects: Iterable[tuple[str, int]]) -> None:
        """Before `load`: ids and sizes of the objects that may be used."""
        rows = ((bytes.fromhex(object_id), size) for object_id, size in objects)
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO present VALUES (?, ?)", rows)
        self._database.execute("COMMIT")

    def load(self, refs: Iterable[ChunkRef]) -> None:
        """Add those whose object is present in its size."""
        self._insert(row for ref in refs if (row := self._row(ref)) is not None)

    def ready(self) -> None:
        """After `load`. Sorting once is quicker than keeping order."""
        self._database.execute("CREATE INDEX by_mac ON chunks (mac)")
        self._database.execute("DROP TABLE present")
        self._numbers.clear()

    def add(self, refs: Iterable[ChunkRef]) -> None:
        """What has just been stored."""
        with self._lock:
            self._insert(row for ref in refs if (row := self._row(ref, stored=True)) is not None)

    def get(self, mac: str) -> ChunkRef | None:
        """The chunk with this MAC."""
        if not self._count:
            return None  # of a first backup every chunk is new
        with self._lock:
            row = self._database.execute(
                "SELECT id, size, sha256, offset, stored, length, rows FROM chunks JOIN objects ON number = object "
                "WHERE mac = ? ORDER BY chunks.rowid DESC LIMIT 1",
                (bytes.fromhex(mac),),
            ).fetchone()
        if row is None:
            return None
        object_id, size, sha256, offset, stored, length, rows = row
        return ChunkRef(
            object=ObjectRef(id=object_id.hex(), cipher_bytes=size, sha256=sha256.hex()),
            offset=offset,
            stored=stored,
            length=length,
            rows=rows,
            mac=mac,
        )

    def _insert(self, rows: Iterator[tuple[object, ...]]) -> None:
        while some := list(islice(rows, _AT_ONCE)):
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)", some)
            self._database.execute("COMMIT")

    def _row(self, ref: ChunkRef, *, stored: bool = False) -> tuple[object, ...] | None:
        number = self._number(ref.object, stored)
        if number is None:
            return None
        return bytes.fromhex(ref.mac), number, ref.offset, ref.stored, ref.length, ref.rows

    def _number(self, ref: ObjectRef, stored: bool) -> int | None:
        if ref.id not in self._numbers:
            if len(self._numbers) >= _AT_ONCE:
                self._numbers.clear()
            self._numbers[ref.id] = self._new(ref) if stored or self._present(ref) else None
        return self._numbers[ref.id]

    def _present(self, ref: ObjectRef) -> bool:
        row = self._database.execute("SELECT size FROM present WHERE id = ?", (bytes.fromhex(ref.id),)).fetchone()
        return row is not None and row[0] == ref.cipher_bytes

    def _new(self, ref: ObjectRef) -> int:
        self._count += 1
        row = (self._count, bytes.fromhex(ref.id), ref.cipher_bytes, bytes.fromhex(ref.sha256))
        self._database.execute("INSERT INTO objects VALUES (?, ?, ?, ?)", row)
        return self._count
