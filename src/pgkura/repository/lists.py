"""Tab-separated lists that this program streams and the repository's own script reads with bash.

Formats: docs/formats/repository.md, "Chunk list" and "Index". Every field is printable; names are quoted SQL.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pgkura.core.errors import FormatTooNew, Tampered
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.repository.spool import LayerPile, ObjectMap

BLOBS = -1
_HEX = re.compile(r"[0-9a-f]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableData:
    """One table's chunks, in reading order.

    number   index into SourceFacts.tables; -1 = the pseudo table of large objects
    name     quoted SQL name it was read from
    columns  `("a", "b")`, or '' for a table without columns
    target   quoted SQL name that must take the rows (a partition root, or `name`)
    rows     of all layers, without those dropped
    bytes    plain bytes of all chunks
    binary   whether its chunks hold rows of binary COPY
    layers   in memory, or read anew from a working file each time
    """

    number: int
    name: str
    columns: str
    target: str
    rows: int
    bytes: int
    layers: Collection[Layer] = field(default=())
    binary: bool = False

    def refs(self) -> Iterator[ChunkRef]:
        """Everything that reading the table needs: what is not named here may be deleted."""
        for layer in self.layers:
            yield from layer.refs()


class Lines:
    """Writes object lines once, each before the first chunk in it."""

    def __init__(self) -> None:
        self._seen = ObjectMap()

    def layer(self, layer: Layer, prefix: str) -> Iterator[bytes]:
        """The line of a layer's chunk, preceded by what has to be known before it is read."""
        if layer.sizes is not None:
            yield from self.chunk(layer.sizes, word="sizes")
        if layer.drops is not None:
            yield from self.chunk(layer.drops, f"{layer.dropped}\t", word="drops")
        yield from self.chunk(layer.chunk, prefix)

    def chunk(self, ref: ChunkRef, prefix: str = "", word: str = "chunk") -> Iterator[bytes]:
        """The line of a chunk, preceded by its object's if new."""
        if self._seen.add(ref.object):
            yield f"object\t{ref.object.id}\t{ref.object.cipher_bytes}\t{ref.object.sha256}\n".encode()
        yield (
            f"{word}\t{prefix}{ref.object.id}\t{ref.offset}\t{ref.stored}\t{ref.length}\t{ref.rows}\t{ref.mac}\n"
        ).encode()


def write_chunk_list(tables: Iterable[TableData]) -> Iterator[bytes]:
    """Lines of a chunk list, format 2."""
    yield b"pgkura-chunks\t2\n"
    lines = Lines()
    for table in tables:
        form = "binary" if table.binary else "text"
        words = ("table", table.number, table.name, table.columns or "-", table.target, table.rows, table.bytes, form)
        yield ("\t".join(str(w) for w in words) + "\n").encode()
        for layer in table.layers:
            yield from lines.layer(layer, f"{table.number}\t")


def read_chunk_list(pieces: Iterable[bytes]) -> Iterator[TableData]:
    """Tables of a chunk list of format 1 or 2, streamed. Raises Tampered or FormatTooNew."""
    reader = ListReader(pieces, "pgkura-chunks", "the chunk list", newest=2)
    pile = LayerPile()
    table: list[str] | None = None
    rows = 0
    sizes: ChunkRef | None = None
    drops: tuple[int, ChunkRef] | None = None
    for words in reader:
        if words[0] == "table" and len(words) == (7 if reader.version == 1 else 8):
            if table is not None:
                yield _table(table, rows, pile.take())
            table, rows = words, 0
        elif words[0] == "sizes":
            sizes = reader.chunk(words[1:])
        elif words[0] == "drops" and words[1].isdigit():
            drops = int(words[1]), reader.chunk(words[2:])
        elif words[0] == "chunk" and table is not None and words[1] == table[1]:
            dropped, ref = drops or (0, None)
            layer = Layer(chunk=reader.chunk(words[2:]), dropped=dropped, drops=ref, sizes=sizes)
            rows += layer.rows
            pile.append(layer)
            sizes, drops = None, None
        elif words[0] != "object":
            raise reader.damaged()
    if table is not None:
        yield _table(table, rows, pile.take())


def _table(words: Sequence[str], found: int, layers: Collection[Layer]) -> TableData:
    rows = int(words[5])
    if rows != found:
        raise Tampered("the chunk list is damaged", detail=f"{words[2]}: rows of its chunks do not add up")
    return TableData(
        number=int(words[1]),
        name=words[2],
        columns="" if words[3] == "-" else words[3],
        target=words[4],
        rows=rows,
        bytes=int(words[6]),
        layers=layers,
        binary=words[7:] == ["binary"],
    )


def write_index(refs: Iterable[ChunkRef]) -> Iterator[bytes]:
    """Lines of an index file."""
    yield b"pgkura-index\t1\n"
    lines = Lines()
    for ref in refs:
        yield from lines.chunk(ref)


def read_index(pieces: Iterable[bytes]) -> Iterator[ChunkRef]:
    """Chunks of an index file. Raises Tampered or FormatTooNew."""
    reader = ListReader(pieces, "pgkura-index", "an index file")
    for words in reader:
        if words[0] == "chunk":
            yield reader.chunk(words[1:])
        elif words[0] != "object":
            raise reader.damaged()


class ListReader:
    """Splits pieces into lines of words, remembers objects, checks every number and digest.

    `version` is known once the first line was given out; `objects` grows as they are read.
    """

    def __init__(self, pieces: Iterable[bytes], header: str, what: str, *, newest: int = 1) -> None:
        self._pieces = pieces
        self._header = header
        self._what = what
        self._newest = newest
        self.version = 0
        self.objects = ObjectMap()

    def __iter__(self) -> Iterator[list[str]]:
        lines = self._lines()
        first = next(lines, b"").decode("utf-8", "replace").split("\t")
        if first[0] != self._header or len(first) != 2 or not first[1].isdecimal():
            raise self.damaged()
        self.version = int(first[1])
        if self.version < 1:
            raise self.damaged()
        if self.version > self._newest:
            raise FormatTooNew(f"{self._what} has format {first[1]}", hint="use a newer pgkura")
        for line in lines:
            try:
                words = line.decode().split("\t")
                if words[0] == "object":
                    self._object(words)
            except ValueError as error:
                raise self.damaged() from error
            yield words

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        for piece in self._pieces:
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:
            raise self.damaged()

    def _object(self, words: list[str]) -> None:
        _, object_id, size, digest = words
        self.objects.add(ObjectRef(id=_hex(object_id, 32), cipher_bytes=int(size), sha256=_hex(digest, 64)))

    def chunk(self, words: Sequence[str]) -> ChunkRef:
        """A chunk line without its leading words."""
        try:
            object_id, offset, stored, length, rows, mac = words
            ref = ChunkRef(
                object=self.objects[object_id],
                offset=int(offset),
                stored=int(stored),
                length=int(length),
                rows=int(rows),
                mac=_hex(mac, 64),
            )
        except (ValueError, KeyError) as error:
            raise self.damaged() from error
        if min(ref.offset, ref.stored, ref.length, ref.rows) < 0:
            raise self.damaged()
        return ref

    def damaged(self) -> Tampered:
        """The error for anything that is not as the format says."""
        return Tampered(f"{self._what} is damaged", detail="a line is not as the format says")


def _hex(text: str, length: int) -> str:
    if len(text) != length or not _HEX.match(text):
        raise ValueError("not hex")
    return text
