"""Where stored bytes lie: the references that manifests, indexes and workers exchange."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """A sealed file in the repository: `data/<first two of id>/<id>`, written once.

    id            32 lower-case hex digits, random
    cipher_bytes  size of the file
    sha256        of the file, hex
    """

    id: str
    cipher_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRef:
    """A run of plain bytes, stored as zstd frames inside an object.

    offset  of the first frame's first byte in the opened (decrypted) object
    stored  bytes of the frames
    length  plain bytes
    rows    rows of COPY text in it (0 for components)
    mac     keyed BLAKE3 of the plain bytes, 64 hex digits
    """

    object: ObjectRef
    offset: int
    stored: int
    length: int
    rows: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A stored chunk of a page range, and what is left of it.

    dropped  rows of the chunk that do not count any more
    drops    their places in the chunk: ascending line numbers from 1, one a line; None = all rows count
    sizes    bytes of each row, for chunks of binary rows, whose ends cannot be seen; None for text
    places   the TID of each row (docs/formats/repository.md, "State"); known to the state only, None in a chunk list
    """

    chunk: ChunkRef
    dropped: int = 0
    drops: ChunkRef | None = None
    sizes: ChunkRef | None = None
    places: ChunkRef | None = None

    @property
    def rows(self) -> int:
        """Rows that count."""
        return self.chunk.rows - self.dropped

    def refs(self) -> tuple[ChunkRef, ...]:
        """All that a restore must read."""
        return tuple(r for r in (self.chunk, self.drops, self.sizes) if r is not None)
