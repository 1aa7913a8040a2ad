"""Plain bytes in, sealed objects out: one pass of zstd and keyed BLAKE3, many chunks to a pack, bounded memory."""

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.repository.seal import ONE_OBJECT, Frames, new_compressor, seal_parts
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pack:
    """A sealed pack on its way into the store; `twins`: who else wants a chunk of it, by MAC and rows."""

    waiting: Sequence[_Waiting]
    twins: dict[tuple[str, int], list[Any]]
    stored: Future[ObjectRef]


class PackWriter:
    """Writes chunks. One per thread.

    An equal MAC in the signed index becomes a reference and nothing is stored; never is a file's mere existence
    taken for its content. Chunks become visible in `drain` once their pack is stored, which is done while the next
    one is made: a disk or a far store has not to be waited for. What goes wrong there is raised by a later call.
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
        self._storing: _Pack | None = None
        self._pool: ThreadPoolExecutor | None = None
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
        self._making = Frames(self._compressor)

    def write(self, data: bytes | memoryview) -> None:
        """Add plain bytes to the open chunk."""
        self._hash.update(data)
        self._length += len(data)
        self._making.write(data)

    @property
    def length(self) -> int:
        """Plain bytes of the open chunk so far."""
        return self._length

    def end(self, rows: int) -> None:
        """Finish the open chunk. May store a pack."""
        self._open = False
        making, self._making = self._making, Frames(self._compressor)
        mac = self._hash.hexdigest()
        known = self._known(mac)
        if known is not None and known.length == self._length and known.rows == rows:
            self._done.append((self._tag, known, False))
            return
        for twins in (self._twins, self._storing.twins if self._storing else {}):
            if (mac, rows) in twins:
                twins[mac, rows].append(self._tag)
                return
        frames = making.end()
        stored = len(frames)
        self._waiting.append(
            _Waiting(tag=self._tag, offset=self._pack_size, stored=stored, length=self._length, rows=rows, mac=mac)
        )
        self._twins[mac, rows] = []
        self._frames.append(frames)
        self._pack_size += stored
        if self._pack_size >= self._pack_bytes:
            self._pool = self._pool or ThreadPoolExecutor(1, "packs")
            self._store(self._pool.submit)

    def flush(self) -> None:
        """Seal and store the pack, if there is one. All packs are stored after this."""
        if self._waiting:
            self._store(_at_once)
        self._settle()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _store(self, run: Callable[[Callable[[bytes], ObjectRef], bytes], Future[ObjectRef]]) -> None:
        """One pack at a time: never is the next one sealed while this one is still in memory."""
        self._settle()
        with ONE_OBJECT:
            sealed = seal_parts(self._frames, self._recipients)
        self._storing = _Pack(waiting=self._waiting, twins=self._twins, stored=run(self._put, sealed))
        self._waiting, self._twins, self._pack_size = [], {}, 0

    def _put(self, sealed: bytes) -> ObjectRef:
        ref = ObjectRef(id=secrets.token_hex(16), cipher_bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest())
        self._storage.create(object_key(ref.id), sealed, storage_class=self._storage_class)
        return ref

    def _settle(self) -> None:
        """Wait for the pack that is on its way. Raises what storing it raised."""
        if self._storing is None:
            return
        pack = self._storing
        at = pack.stored.result()
        self._storing = None
        for w in pack.waiting:
            ref = ChunkRef(object=at, offset=w.offset, stored=w.stored, length=w.length, rows=w.rows, mac=w.mac)
            self._done.append((w.tag, ref, True))
            self._done.extend((tag, ref, False) for tag in pack.twins[w.mac, w.rows])

    def drain(self) -> list[tuple[Any, ChunkRef, bool]]:
        """(tag, reference, newly stored) of every chunk whose bytes are stored; each once."""
        done, self._done = self._done, []
        return done


def _at_once(put: Callable[[bytes], ObjectRef], sealed: bytes) -> Future[ObjectRef]:
    stored: Future[ObjectRef] = Future()
    stored.set_result(put(sealed))
    return stored
