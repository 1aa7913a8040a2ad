"""Chunks by the place where they lie, in a file without a name: what a check or a prune collects over all snapshots."""

from collections.abc import Iterable, Iterator
from itertools import islice

from pgkura.core.refs import ChunkRef, Layer
from pgkura.core.scratch import new_database
from pgkura.repository.spool import pack_ref, unpack_ref

_AT_ONCE = 1_000
_PUT = (
    "INSERT INTO chunks VALUES (?, ?, ?, ?, ?) ON CONFLICT (object, start, length) "
    "DO UPDATE SET ref = excluded.ref, sizes = coalesce(excluded.sizes, sizes)"
)


class ChunkShelf:
    """Each chunk once, with the sizes of its rows where somebody knows them. One thread; close it after use."""

    def __init__(self) -> None:
        self._database = new_database()
        self._database.execute(
            "CREATE TABLE chunks (object BLOB, start, length, ref BLOB, sizes BLOB, "
            "PRIMARY KEY (object, start, length)) WITHOUT ROWID"
        )

    def put(self, chunks: Iterable[tuple[ChunkRef, ChunkRef | None]]) -> None:
        """Add chunks and the sizes of their rows."""
        rows = (
            (bytes.fromhex(c.object.id), c.offset, c.length, pack_ref(c), None if sizes is None else pack_ref(sizes))
            for c, sizes in chunks
        )
        while some := list(islice(rows, _AT_ONCE)):
            self._database.execute("BEGIN")
            self._database.executemany(_PUT, some)
            self._database.execute("COMMIT")

    def of(self, object_id: str) -> list[Layer]:
        """The chunks of an object, by offset."""
        sql = "SELECT ref, sizes FROM chunks WHERE object = ? ORDER BY start, length"
        return [_layer(*row) for row in self._database.execute(sql, (bytes.fromhex(object_id),))]

    def all(self) -> Iterator[ChunkRef]:
        """All chunks, those of an object together."""
        return (unpack_ref(row[0]) for row in self._database.execute("SELECT ref FROM chunks ORDER BY object, start"))

    def live(self) -> Iterator[tuple[str, int]]:
        """(object, stored bytes of those of its chunks that are here), by id."""
        held, total = b"", 0
        for object_id, ref in self._database.execute("SELECT object, ref FROM chunks ORDER BY object"):
            if object_id != held:
                if held:
                    yield held.hex(), total
                held, total = object_id, 0
            total += unpack_ref(ref).stored
        if held:
            yield held.hex(), total

    def __contains__(self, chunk: ChunkRef) -> bool:
        sql = "SELECT 1 FROM chunks WHERE object = ? AND start = ? AND length = ?"
        key = (bytes.fromhex(chunk.object.id), chunk.offset, chunk.length)
        return self._database.execute(sql, key).fetchone() is not None

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def _layer(chunk: bytes, sizes: bytes | None) -> Layer:
    return Layer(chunk=unpack_ref(chunk), sizes=None if sizes is None else unpack_ref(sizes))
