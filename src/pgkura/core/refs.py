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
    """A run of plain bytes, stored as one zstd frame inside an object.

    offset  of the frame's first byte in the opened (decrypted) object
    stored  bytes of the frame
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
