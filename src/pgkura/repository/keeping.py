"""The records that say what must stay and what may go: index, state, references, tombstones."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.repository.claims import SNAPSHOTS, commit_claimed
from pgkura.repository.lists import read_index, write_index
from pgkura.repository.manifest import Manifest
from pgkura.repository.manifest import encode as encode_manifest
from pgkura.repository.references import REFERENCES, read_references, write_references
from pgkura.repository.spool import ObjectMap
from pgkura.repository.tombstones import TOMBSTONES, Tombstone, read_tombstone, write_tombstone
from pgkura.storage.base import Storage

INDEX = "index/"
STATE = "state/"
# Chunks of one index file, which is made and read in one piece.
INDEX_CHUNKS = 25_000

# Of a counted file. The random digits came on 2026-11-28: a repository and its copy may both have a name of before.
_UNIQUE = re.compile(r"/[^/-]+-[0-9]{8}-[0-9a-f]{8}(-[^/]*)?\Z")


def named_once(key: str) -> bool:
    """Whether no repository but one has made a file of this name, so that equal names are equal files."""
    return _UNIQUE.search(key) is not None


def slices(chunks: Iterable[ChunkRef]) -> Iterator[list[ChunkRef]]:
    """What each index file shall hold."""
    rest = iter(chunks)
    while some := list(islice(rest, INDEX_CHUNKS)):
        yield some


class Keeping:
    """A part of Repository, which has the keys."""

    storage: Storage

    def _seal_record(self, kind: str, key: str, payload: bytes | Iterable[bytes]) -> bytes:
        raise NotImplementedError

    def _open_record(self, kind: str, key: str) -> bytes:
        raise NotImplementedError

    def _append(self, kind: str, prefix: str, payload: bytes, suffix: str = "") -> str:
        raise NotImplementedError

    def append_index(self, chunks: Iterable[ChunkRef]) -> str:
        """A new index file; its key."""
        return self._append("index", INDEX, b"".join(write_index(chunks)))

    def write_state(self, snapshot_id: str, parts: Sequence[ChunkRef]) -> None:
        """What the next backup can go on from."""
        key = STATE + snapshot_id
        self.storage.create(key, self._seal_record("state", key, write_index(parts)))

    def put_state(self, name: str, parts: Sequence[ChunkRef]) -> None:
        """Of a run so far (under a name of its own) or of a snapshot, in place of what was written before."""
        key = STATE + name
        self.storage.put(key, self._seal_record("state", key, write_index(parts)))

    def state_written(self, name: str) -> float:
        """When the store took a state, in seconds since 1970; 0 = never."""
        return next((s.modified for s in self.storage.list(STATE + name)), 0.0)

    def state_parts(self, name: str) -> list[ChunkRef]:
        """The chunks that hold a state. Raises KeyNotFound, Tampered."""
        return list(read_index([self._open_record("state", STATE + name)]))

    def seal_manifest(self, manifest: Manifest) -> bytes:
        """The file of a snapshot."""
        return self._seal_record("manifest", SNAPSHOTS + manifest.id, encode_manifest(manifest))

    def claim_and_commit(self, snapshot_id: str, manifest: bytes, objects: Mapping[str, ObjectRef]) -> None:
        """Write the references file, then this manifest. Raises PlanOutdated (repository.claims says when)."""
        self.storage.create(REFERENCES + snapshot_id, self.seal_references(snapshot_id, objects))
        commit_claimed(self, snapshot_id, manifest, objects)

    def seal_references(self, snapshot_id: str, objects: Mapping[str, ObjectRef]) -> bytes:
        """The references file of a snapshot."""
        return self._seal_record("references", REFERENCES + snapshot_id, write_references(objects))

    def references(self, snapshot_id: str) -> ObjectMap:
        """The objects that a snapshot needs. Raises KeyNotFound for snapshots of before this file, Tampered."""
        key = REFERENCES + snapshot_id
        return read_references(self._open_record("references", key), key)

    def tombstone(self, key: str) -> Tombstone:
        """Raises Tampered, KeyNotFound."""
        return read_tombstone(self._open_record("tombstone", key), key)

    def append_tombstone(self, tombstone: Tombstone) -> str:
        """Its key."""
        return self._append("tombstone", TOMBSTONES, write_tombstone(tombstone))
