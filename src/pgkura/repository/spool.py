"""What grows with the number of chunks lies in files without a name, not in memory.

Few things stay in memory, since most databases are small: a file is opened once there are many. Not for several
threads, except reading `Layers`.
"""

import sqlite3
import struct
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.core.scratch import LongFile, new_database

# Objects, and layers, that stay in memory: a megabyte or two.
FEW = 4_000
_BLOCK = 64 * 1024
# Object id, its size, its SHA-256; then offset, stored, length, rows, mac.
_REF = struct.Struct("<16sQ32sQQQQ32s")
_HEAD = struct.Struct("<BQ")
_PARTS = ("drops", "sizes", "places")
_WITH_PLACES = 1 << _PARTS.index("places")


def pack_ref(ref: ChunkRef) -> bytes:
    """A reference in 120 bytes."""
    o = ref.object
    return _REF.pack(
        bytes.fromhex(o.id),
        o.cipher_bytes,
        bytes.fromhex(o.sha256),
        ref.offset,
        ref.stored,
        ref.length,
        ref.rows,
        bytes.fromhex(ref.mac),
    )


def unpack_ref(data: bytes, at: int = 0) -> ChunkRef:
    """The inverse."""
    object_id, size, sha256, offset, stored, length, rows, mac = _REF.unpack_from(data, at)
    return ChunkRef(
        object=ObjectRef(id=object_id.hex(), cipher_bytes=size, sha256=sha256.hex()),
        offset=offset,
        stored=stored,
        length=length,
        rows=rows,
        mac=mac.hex(),
    )


def pack_layer(layer: Layer) -> bytes:
    """A layer in a few hundred bytes."""
    parts = [(1 << n, ref) for n, name in enumerate(_PARTS) if (ref := getattr(layer, name)) is not None]
    head = _HEAD.pack(sum(bit for bit, _ in parts), layer.dropped)
    return b"".join((head, pack_ref(layer.chunk), *(pack_ref(ref) for _, ref in parts)))


def packed_size(flags: int) -> int:
    """Bytes of a packed layer whose first byte this is."""
    return _HEAD.size + _REF.size * (1 + flags.bit_count())


def unpack_layer(data: bytes, at: int = 0) -> Layer:
    """The inverse."""
    flags, dropped = _HEAD.unpack_from(data, at)
    at += _HEAD.size
    parts: dict[str, ChunkRef] = {}
    chunk = unpack_ref(data, at)
    for n, name in enumerate(_PARTS):
        if flags & (1 << n):
            at += _REF.size
            parts[name] = unpack_ref(data, at)
    return Layer(chunk=chunk, dropped=dropped, **parts)


def places_of(packed: bytes) -> ChunkRef | None:
    """Of a packed layer its places alone, which stand last."""
    return unpack_ref(packed, len(packed) - _REF.size) if packed[0] & _WITH_PLACES else None


class Layers(Collection[Layer]):
    """Layers in a file, read anew by each iteration. Sent elsewhere, it travels as what it holds."""

    __slots__ = ("_count", "_end", "_file", "_start")

    def __init__(self, file: LongFile, start: int, end: int, count: int) -> None:
        self._file = file
        self._start = start
        self._end = end
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Layer]:
        return (layer for _, layer in self._walk())

    def _walk(self) -> Iterator[tuple[int, Layer]]:
        """(where the next one begins, layer)."""
        at, rest = self._start, b""
        while at < self._end:
            block = self._file.read(at, min(_BLOCK, self._end - at))
            if not block:
                raise OSError("a working file was cut short")
            at += len(block)
            rest += block
            place = 0
            while place < len(rest) and place + packed_size(rest[place]) <= len(rest):
                layer = unpack_layer(rest, place)
                place += packed_size(rest[place])
                yield at - len(rest) + place, layer
            rest = rest[place:]

    def cut(self, size: int, head: int = 0) -> Iterator[tuple[int, Collection[Layer]]]:
        """As `portions`."""
        first = count = length = 0
        start = self._start
        for end, layer in self._walk():
            count += 1
            length += layer.chunk.length
            if length >= (size if first else head or size) or end == self._end:
                yield first, Layers(self._file, start, end, count)
                first, start, count, length = first + count, end, 0, 0

    def __contains__(self, layer: object) -> bool:
        return any(layer == one for one in self)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


def portions(layers: Collection[Layer], size: int, head: int = 0) -> Iterator[tuple[int, Collection[Layer]]]:
    """Neighbours of so many plain bytes, the last of fewer, and the place of each portion's first. `head`: bytes of
    the first portion, where it is another. Where the layers lie in a file, the portions do."""
    if isinstance(layers, Layers):
        yield from layers.cut(size, head)
        return
    first, length = 0, 0
    portion: list[Layer] = []
    for layer in layers:
        portion.append(layer)
        length += layer.chunk.length
        if length >= (size if first else head or size):
            yield first, tuple(portion)
            first, length, portion = first + len(portion), 0, []
    if portion:
        yield first, tuple(portion)


def outside(layers: Iterable[Layer], covered: Mapping[int, int], at: int = 0) -> Iterator[Layer]:
    """Layers, the first of which has the place `at`, that lie in none of these runs (first place: how many). Pure."""
    runs = deque(sorted(covered.items()))
    for place, layer in enumerate(layers, at):
        while runs and sum(runs[0]) <= place:
            runs.popleft()
        if not runs or place < runs[0][0]:
            yield layer


class LayerPile:
    """Collects the layers of one table after the other; of all tables together only a few stay in memory."""

    def __init__(self, few: int = FEW) -> None:
        self._left = few
        self._file: LongFile | None = None
        self._begin()

    def _begin(self) -> None:
        self._held: list[Layer] = []
        self._count = 0
        self._start = self._size

    @property
    def _size(self) -> int:
        return 0 if self._file is None else self._file.size

    def append(self, layer: Layer) -> None:
        """One more layer of this table."""
        self._held.append(layer)
        self._count += 1
        if len(self._held) > self._left or self._size > self._start:
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            self._file = LongFile()
        for layer in self._held:
            self._file.append(pack_layer(layer))
        self._held.clear()

    def take(self) -> Collection[Layer]:
        """The table's layers; the next belong to the next table."""
        found: Collection[Layer] = tuple(self._held)
        if self._size > self._start and self._file is not None:
            self._file.flush()
            found = Layers(self._file, self._start, self._size, self._count)
        else:
            self._left -= self._count
        self._begin()
        return found


class ObjectMap(Mapping[str, ObjectRef]):
    """Objects by id, ascending."""

    def __init__(self, few: int = FEW) -> None:
        self._few = few
        self._held: dict[str, ObjectRef] = {}
        self._count = 0
        self._database: sqlite3.Connection | None = None

    def add(self, ref: ObjectRef) -> bool:
        """Whether it was not there before; what was there is replaced."""
        if ref.id in self._held:
            self._held[ref.id] = ref
            return False
        new = self._database is None or self._find(ref.id) is None
        if len(self._held) >= self._few:
            self._spill()
        self._held[ref.id] = ref
        self._count += new
        return new

    def _spill(self) -> None:
        """The held ones are those added or asked for last."""
        if self._database is None:
            self._database = new_database()
            self._database.execute("CREATE TABLE objects (id BLOB PRIMARY KEY, size, sha256 BLOB) WITHOUT ROWID")
        rows = [(bytes.fromhex(o.id), o.cipher_bytes, bytes.fromhex(o.sha256)) for o in self._held.values()]
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", sorted(rows))
        self._database.execute("COMMIT")
        self._held.clear()

    def _find(self, object_id: str) -> ObjectRef | None:
        if self._database is None:
            return None
        try:
            key = bytes.fromhex(object_id)
        except ValueError:
            return None
        row = self._database.execute("SELECT size, sha256 FROM objects WHERE id = ?", (key,)).fetchone()
        return None if row is None else ObjectRef(id=object_id, cipher_bytes=row[0], sha256=row[1].hex())

    def __getitem__(self, object_id: str) -> ObjectRef:
        if (held := self._held.get(object_id)) is not None:
            return held
        if (found := self._find(object_id)) is None:
            raise KeyError(object_id)
        if len(self._held) >= self._few:
            self._spill()
        self._held[object_id] = found
        return found

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._held or (isinstance(object_id, str) and self._find(object_id) is not None)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return (o.id for o in self.ascending())

    def ascending(self) -> Iterator[ObjectRef]:
        """All, by id; nothing may be added meanwhile."""
        if self._database is None:
            yield from (self._held[i] for i in sorted(self._held))
            return
        self._spill()
        for object_id, size, sha256 in self._database.execute("SELECT id, size, sha256 FROM objects ORDER BY id"):
            yield ObjectRef(id=object_id.hex(), cipher_bytes=size, sha256=sha256.hex())


def objects_of(refs: Iterable[ChunkRef]) -> Iterator[ObjectRef]:
    """The objects of these chunks, each once, by id."""
    found = ObjectMap()
    for ref in refs:
        found.add(ref.object)
    return found.ascending()
