"""Plain bytes in, sealed objects out: one pass of zstd and keyed BLAKE3, many chunks to a pack, bounded memory."""

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.repository.seal import ONE_OBJECT, Frame, new_compressor, seal_parts
from pgkura.storage.base import Storage

PACK_BYTES = 8 * 1024 * 1024
_KEY = re.compile(r"data/[0-9a-f]{2}/([0-9a-f]{32})")


def object_key(object_id: str) -> str:
    """Where an object lies."""
    return f"data/{object_id[:2]}/{object_id}"


def object_id(key: str) -> str:
    """The id of the object that lies there, '' for a file that is none."""
    found = _KEY.fullmatch(key)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A finished chunk of the pack that is not yet stored."""

    tag: Any
    offset: int
    stored: int
    length: int
    rows: int
    mac: str


class PackWriter:
    """Writes chunks. One per thread.

    An equal MAC in the signed index becomes a reference and nothing is stored; never is a file's mere existence
    taken for its content. Chunks become visible in `drain` once their pack is stored.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        recipients: Sequence[str],
        mac_key: bytes,
        known: Callable[[str], ChunkRef | None],
        storage_class: str = "",
        pack_bytes: int = PACK_BYTES,
    ) -> None:
        self._storage = storage
        self._recipients = recipients
        self._mac_key = mac_key
        self._known = known
        self._storage_class = storage_class
        self._pack_bytes = pack_bytes
        self._compressor = new_compressor()
        self._frames: list[bytes] = []
        self._pack_size = 0
        self._waiting: list[_Waiting] = []
        self._twins: dict[tuple[str, int], list[Any]] = {}
        self._done: list[tuple[Any, ChunkRef, bool]] = []
        self._tag: Any = None
        self._open = False

    def begin(self, tag: Any) -> None:
        """Start a chunk; `tag` comes back from `drain`."""
        if self._open:
            raise ValueError("a chunk is open")
        self._open = True
        self._tag = tag
        self._length = 0
        self._hash = blake3(key=self._mac_key)
        self._frame = Frame(self._compressor)

    def write(self, data: bytes | memoryview) -> None:
        """Add plain bytes to the open chunk."""
        self._hash.update(data)
        self._length += len(data)
        self._frame.write(data)

    @property
    def length(self) -> int:
        """Plain bytes of the open chunk so far."""
        return self._length

    def end(self, rows: int) -> None:
        """Finish the open chunk. May store a pack."""
        self._open = False
        making, self._frame = self._frame, Frame(self._compressor)
        mac = self._hash.hexdigest()
        known = self._known(mac)
        if known is not None and known.length == self._length and known.rows == rows:
            self._done.append((self._tag, known, False))
            return
        if (mac, rows) in self._twins:
            self._twins[mac, rows].append(self._tag)
            return
        frame = making.end()
        stored = len(frame)
        self._waiting.append(
            _Waiting(tag=self._tag, offset=self._pack_size, stored=stored, length=self._length, rows=rows, mac=mac)
        )
        self._twins[mac, rows] = []
        self._frames.append(frame)
        self._pack_size += stored
        if self._pack_size >= self._pack_bytes:
            self.flush()

    def flush(self) -> None:
        """Seal and store the pack, if there is one."""
        if not self._waiting:
            return
        with ONE_OBJECT:
            sealed = seal_parts(self._frames, self._recipients)
        object_ref = ObjectRef(
            id=secrets.token_hex(16), cipher_bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest()
        )
        self._storage.create(object_key(object_ref.id), sealed, storage_class=self._storage_class)
        for w in self._waiting:
            ref = ChunkRef(object=object_ref, offset=w.offset, stored=w.stored, length=w.length, rows=w.rows, mac=w.mac)
            self._done.append((w.tag, ref, True))
            self._done.extend((tag, ref, False) for tag in self._twins[w.mac, w.rows])
        self._waiting.clear()
        self._twins.clear()
        self._pack_size = 0

    def drain(self) -> list[tuple[Any, ChunkRef, bool]]:
        """(tag, reference, newly stored) of every chunk whose bytes are stored; each once."""
        done, self._done = self._done, []
        return done
