"""A repository opened with the keys at hand. Write order is law: objects → index → manifest → journal."""

import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

import numpy as np
from blake3 import blake3

from pgkura.core.errors import RepositoryNotFound, Tampered, WrongKey
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.repository import manifest as manifests_format
from pgkura.repository.belief import Belief
from pgkura.repository.bundles import Bundles
from pgkura.repository.claims import SNAPSHOTS
from pgkura.repository.container import seal_signature
from pgkura.repository.keeping import INDEX, slices
from pgkura.repository.keyed import Keyed
from pgkura.repository.keyring import Keyring, open_keyring
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.known import KnownChunks
from pgkura.repository.lines import Numbers, read_drops, read_numbers, rows_left, unpack_sizes
from pgkura.repository.lists import ListReader, TableData, read_chunk_list, read_index
from pgkura.repository.manifest import Manifest
from pgkura.repository.packs import PackWriter, object_id, object_key
from pgkura.repository.references import needed_objects
from pgkura.repository.scripts import wrong_scripts
from pgkura.repository.seal import decompress, pack_record, unpack_record
from pgkura.repository.sealer import Sealer
from pgkura.repository.tombstones import objects_in, open_tombstones
from pgkura.repository.versions import Objects
from pgkura.repository.whole import ROOM_BYTES, Rooms, read_into
from pgkura.storage.base import KeyExists, KeyNotFound, Storage, Stored

# Opened objects kept by each thread: the layers that a month of changes leaves on one unit of ranges fit in.
KEPT_BYTES = 16 * 1024 * 1024


class Repository(Keyed, Bundles):
    """See docs/formats/repository.md. Safe to use from several threads; a PackWriter is not."""

    def __init__(self, storage: Storage, keyring: Keyring) -> None:
        self.storage = storage
        self._keys = keyring
        self._index: KnownChunks | None = None
        self._index_lock = threading.Lock()
        self._local = threading.local()
        self._rooms = Rooms()
        self._counting = threading.Lock()
        self._objects = Objects(storage)
        self._belief = Belief(storage, keyring.revoked, keyring.doubtful)

    @classmethod
    def open(cls, storage: Storage, *, identity: Identity | None = None, host: HostKey | None = None) -> "Repository":
        """Raises RepositoryNotFound, WrongKey, Tampered, FormatTooNew, StoreError."""
        made = cls(storage, open_keyring(storage, identity, host))
        made._open_again = lambda: open_keyring(storage, identity, host)
        return made

    @property
    def url(self) -> str:
        """Where it lies; holds no credential."""
        return self.storage.url

    @property
    def wrong_scripts(self) -> list[tuple[str, str]]:
        """RESTORE.md or restore.sh, and why it must not be followed. Raises FormatTooNew."""
        return wrong_scripts(self.storage, self.repository_id, self.root)

    def pack_writer(self, *, storage_class: str = "", for_hosts: bool = False) -> PackWriter:
        """A writer of chunks for one thread. `for_hosts`: lists of places, which hosts must be able to read too."""
        self.need_host()
        return PackWriter(
            self.storage,
            recipients=self._keys.recipients if for_hosts else [self._keys.newest.recipient],
            mac_key=self._keys.newest.mac_key,
            known=self.known,
            storage_class=storage_class,
        )

    def sealer(self) -> Sealer:
        """For chunks that are packed anew: into the epoch that they belong to. Needs both keys."""
        self.need_host()
        self.need_identity("packing anew")
        return Sealer(self.storage, self._keys, self._objects)

    def known(self, mac: str) -> ChunkRef | None:
        """The stored chunk with this MAC, by the signed index, if its object is still there and no prune wants it.

        MACs of another epoch are keyed otherwise, so that its chunks are never found for new data.
        """
        with self._index_lock:
            index = self._index = self._index or self._load_index()
        return index.get(mac)

    def look_again(self) -> None:
        """What lies in the store may have changed: `known` reads it anew."""
        with self._index_lock:
            self._index = None

    def _load_index(self) -> KnownChunks:
        # Tombstones before data: one that is gone by then has taken its objects with it.
        unwanted = objects_in(open_tombstones(self).values())
        found = KnownChunks()
        lying = ((object_id(s.key), s.size) for s in self.storage.list("data/"))
        found.present((i, size) for i, size in lying if i and i not in unwanted)
        for key in self.index_keys():
            with suppress(KeyNotFound):  # a prune has just put a shorter one in its place
                found.load(self._index_if_ours(key))
        found.ready()
        return found

    def _index_if_ours(self, key: str) -> Iterator[ChunkRef]:
        try:
            yield from self.index(key)
        except WrongKey:
            return  # of before this host was added: its chunks are stored once more

    def index_keys(self) -> list[str]:
        """All index files."""
        return [s.key for s in self.believed(INDEX)]

    def index(self, key: str) -> Iterator[ChunkRef]:
        """The chunks of one index file."""
        yield from read_index([self._open_record("index", key)])

    def _open_object(self, ref: ObjectRef) -> tuple[bytearray, bytes]:
        """The decrypted object and the key of its chunks' MACs: that of the epoch which opened it."""
        opened, epoch = self._keys.open_data(
            self._objects.get(ref), object_key(ref.id), getattr(self._local, "epoch", 0)
        )
        self._local.epoch = epoch.number
        return opened, epoch.mac_key

    @property
    def notes(self) -> list[str]:
        """Files that were read in an older version, so far."""
        return self._objects.notes

    def read_chunk(self, ref: ChunkRef) -> Iterator[bytes]:
        """Plain bytes in pieces of at most 256 KiB; the MAC is checked at the end, so keep nothing before that."""
        opened, mac_key = self._opened(ref.object)
        what = f"a chunk of {object_key(ref.object.id)}"
        frame = memoryview(opened)[ref.offset : ref.offset + ref.stored]
        hasher = blake3(key=mac_key)
        length = 0
        for piece in decompress(frame, what, limit=ref.length):
            hasher.update(piece)
            length += len(piece)
            yield piece
        if length != ref.length or hasher.hexdigest() != ref.mac:
            raise Tampered(f"{what} is damaged", detail="its MAC differs")

    def read_bytes(self, ref: ChunkRef) -> bytes:
        """A whole chunk, checked."""
        if ref.length > ROOM_BYTES:
            return b"".join(self.read_chunk(ref))
        return bytes(read_into(bytearray(ref.length), ref, *self._opened(ref.object)))

    def read_rows(self, layer: Layer) -> Iterator[bytes]:
        """The rows of a chunk that count, in pieces; the chunk's MAC is checked at the end."""
        if layer.drops is None:
            yield from self.read_chunk(layer.chunk)
            return
        drops = read_drops(self.read_bytes(layer.drops), layer.dropped)
        sizes = unpack_sizes(self.read_bytes(layer.sizes)) if layer.sizes is not None else None
        ref, fits = layer.chunk, layer.chunk.length <= ROOM_BYTES
        with self._rooms.of(ref.length if fits else 0) as room:
            whole = read_into(room, ref, *self._opened(ref.object)) if fits else self.read_bytes(ref)
            yield from rows_left(whole, sizes, drops)

    def read_sizes(self, layer: Layer) -> Numbers:
        """Of a chunk of binary rows: the sizes of those that count."""
        sizes = unpack_sizes(self.read_bytes(layer.sizes)) if layer.sizes is not None else None
        if sizes is None or len(sizes) != layer.chunk.rows or int(sizes.sum()) != layer.chunk.length:
            raise Tampered("sizes of rows do not fit their chunk")
        if layer.drops is None:
            return sizes
        return np.delete(sizes, read_numbers(self.read_bytes(layer.drops)) - 1)

    def _opened(self, ref: ObjectRef) -> tuple[bytearray, bytes]:
        """The last few objects of this thread: the layers of neighbouring ranges lie in the same ones."""
        kept: dict[str, tuple[bytearray, bytes]] = self._local.__dict__.setdefault("opened", {})
        opened = kept.pop(ref.id, None)
        if opened is None:
            # Before it is opened, and is there twice: what is sealed is hardly longer than what is in it.
            while kept and sum(len(o) for o, _ in kept.values()) + ref.cipher_bytes > KEPT_BYTES:
                del kept[next(iter(kept))]
            opened = self._open_object(ref)
        kept[ref.id] = opened
        return opened

    # --- records of the index class

    def _seal_record(self, kind: str, key: str, payload: bytes | Iterable[bytes]) -> bytes:
        if self._keys.private is None:
            raise WrongKey(
                "a person's identity signs nothing",
                detail="records are signed by a host or by the root",
                hint="set PGKURA_HOST_KEY, or use the root's identity",
            )
        body = pack_record(payload, self._keys.recipients)
        return seal_signature(kind, self.repository_id, key, body, signer=self._keys.signer, private=self._keys.private)

    def _open_record(self, kind: str, key: str) -> bytes:
        return self.open_record(kind, key, self.storage.get(key))[1]

    def open_record(self, kind: str, key: str, data: bytes) -> tuple[str, bytes]:
        """(signer, payload) of a stored record, its signature checked before anything is decrypted."""
        signer, body = self._keys.open_signed(kind, key, data)
        self._belief.check(signer, key, data)
        return signer, unpack_record(body, self._keys.secrets, key)

    def _believe(self, signer: str, key: str, data: bytes) -> None:
        self._belief.check(signer, key, data)

    def believed(self, prefix: str) -> list[Stored]:
        """Files below `prefix`, by key, without those that a revoked host wrote after its revocation."""
        return self._belief.believed(prefix)

    @property
    def warnings(self) -> list[str]:
        """Files that were left out because a revoked host wrote them."""
        return self._belief.warnings

    def _append(self, kind: str, prefix: str, payload: bytes, suffix: str = "") -> str:
        """Store under the next free counter of this signer; a taken name is never overwritten."""
        with self._counting:  # backups of one process that share us; others are met by create-if-absent
            return self._append_next(kind, prefix, payload, suffix)

    def _append_next(self, kind: str, prefix: str, payload: bytes, suffix: str) -> str:
        mine = f"{prefix}{self._keys.signer}-"
        taken = [s.key.removeprefix(mine).partition("-")[0] for s in self.storage.list(mine)]
        counter = max((int(t) for t in taken if t.isdigit()), default=0) + 1
        while True:
            key = f"{mine}{counter:08d}-{secrets.token_hex(4)}{suffix}"  # a copy that lives on counts on from here too
            try:
                self.storage.create(key, self._seal_record(kind, key, payload))
            except KeyExists:
                counter += 1
            else:
                return key

    # --- snapshots

    def commit_snapshot(
        self,
        manifest: Manifest,
        new_chunks: Iterable[ChunkRef],
        state: Sequence[ChunkRef] = (),
        *,
        needed: Iterable[ChunkRef] = (),
    ) -> None:
        """Index, state, references, then manifest: after this returns the snapshot exists; before, it does not.

        `state`: the parts of what the next backup can go on from; without any it will read everything.
        `needed`: every chunk, new or reused, that a restore (`TableData.refs`) or the next backup must read.
        Raises PlanOutdated when a prune took away what it needs.
        """
        self.need_host()
        self.store_index(new_chunks)
        if state:
            self.write_state(manifest.id, state)
        objects = needed_objects(manifest, chain(state, needed))
        self.claim_and_commit(manifest.id, self.seal_manifest(manifest), objects)

    def store_index(self, chunks: Iterable[ChunkRef]) -> None:
        """Let this and later runs find chunks that are stored, whether or not a snapshot comes of this one."""
        for some in slices(chunks):
            self.append_index(some)
            if self._index is not None:
                self._index.add(some)

    def manifest_ids(self) -> list[str]:
        """Ids of all snapshots, oldest first."""
        return [s.key.removeprefix(SNAPSHOTS) for s in self.believed(SNAPSHOTS)]

    def manifests(self) -> list[Manifest]:
        """All snapshots, oldest first. Raises Tampered for any that does not open."""
        found = []
        for snapshot_id in self.manifest_ids():
            with suppress(KeyNotFound):  # a prune has just removed it
                found.append(self.exact_manifest(snapshot_id))
        return found

    def manifest(self, which: str) -> Manifest:
        """By id, unique beginning of one, or "latest". Raises RepositoryNotFound for no such snapshot."""
        ids = self.manifest_ids()
        if not ids:
            raise RepositoryNotFound(f"no snapshot in {self.url}", hint="`pgkura backup` makes the first")
        found = (
            ids[-1:] if which == "latest" else [i for i in ids if i == which] or [i for i in ids if i.startswith(which)]
        )
        if len(found) != 1:
            raise RepositoryNotFound(
                f"{'no' if not found else 'more than one'} snapshot {which!r}", hint="`pgkura snapshots` lists them"
            )
        return self.exact_manifest(found[0])

    def exact_manifest(self, snapshot_id: str) -> Manifest:
        """By its whole id. Raises KeyNotFound, Tampered."""
        key = SNAPSHOTS + snapshot_id
        made = manifests_format.decode(self._open_record("manifest", key), key)
        if made.id != snapshot_id:
            raise Tampered(f"{key} is the manifest of another snapshot", detail=made.id)
        return made

    def state(self, snapshot_id: str) -> Iterator[bytes] | None:
        """What a snapshot left for the next one, piece by piece; None if it left nothing."""
        try:
            parts = self.state_parts(snapshot_id)
        except KeyNotFound:
            return None
        return (piece for ref in parts for piece in self.read_chunk(ref))

    def state_objects(self, snapshot_id: str) -> dict[str, ObjectRef]:
        """The objects that hold a snapshot's state, and those that it names."""
        found = {ref.object.id: ref.object for ref in self.state_parts(snapshot_id)}
        lines = ListReader(self.state(snapshot_id) or (), "pgkura-state", "a state")
        for _ in lines:
            pass
        return found | {o.id: o for o in lines.objects.ascending()}

    def component(self, manifest: Manifest, name: str) -> bytes:
        """A component's bytes (b'' when empty). Raises Tampered when the manifest has none of that name."""
        component = manifest.components.get(name)
        if component is None:
            raise Tampered(f"snapshot {manifest.id} has no component {name!r}")
        return b"".join(map(self.read_bytes, component.refs))

    def chunk_list(self, manifest: Manifest) -> Iterator[TableData]:
        """The tables and their chunks, streamed."""
        refs = manifest.components["chunks"].refs
        if refs:
            yield from read_chunk_list(piece for ref in refs for piece in self.read_chunk(ref))

    def at(self, storage: Storage) -> "Repository":
        """A copy of this repository elsewhere, opened with the same keys."""
        return Repository(storage, self._keys)
