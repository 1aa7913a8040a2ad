"""Objects for chunks that are stored already: frames as they are, sealed to whoever could open them before."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from pgkura.core.errors import StoreError, Tampered
from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.repository.keyring import Epoch, Keyring
from pgkura.repository.packs import PackWriter, object_key
from pgkura.repository.seal import ONE_OBJECT, count_recipients, decompress, seal
from pgkura.repository.versions import Objects
from pgkura.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose an object is: those of an epoch; `hosts`: and the hosts (lists of places, drops and sizes)."""

    epoch: int
    hosts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An object in clear."""

    ref: ObjectRef
    owner: Owner
    plain: bytearray = field(repr=False)


class Sealer:
    """Opens objects and seals new ones of the same epochs. One thread."""

    def __init__(self, storage: Storage, keys: Keyring, objects: Objects) -> None:
        self._storage = storage
        self._keys = keys
        self._objects = objects
        self._last = 0

    def open(self, ref: ObjectRef) -> Opened:
        """Raises Tampered, WrongKey."""
        sealed = self._objects.get(ref)
        plain, epoch = self._keys.open_data(sealed, object_key(ref.id), self._last)
        self._last = epoch.number
        # Data is sealed to its epoch alone; what hosts read, to the epoch and to at least one of them.
        return Opened(ref=ref, owner=Owner(epoch=epoch.number, hosts=count_recipients(sealed) > 1), plain=plain)

    def frame(self, opened: Opened, ref: ChunkRef) -> bytes:
        """A chunk as it is stored, after a look at what it says. Raises Tampered."""
        what = f"a chunk of {object_key(opened.ref.id)}"
        frame = bytes(memoryview(opened.plain)[ref.offset : ref.offset + ref.stored])
        hasher = blake3(key=self._keys.mac_key(opened.owner.epoch))
        length = 0
        for piece in decompress(frame, what, limit=ref.length):
            hasher.update(piece)
            length += len(piece)
        if length != ref.length or hasher.hexdigest() != ref.mac:
            raise Tampered(f"{what} is damaged", detail="its MAC differs")
        return frame

    def store(self, frames: Sequence[bytes], owner: Owner, storage_class: str) -> ObjectRef:
        """A new object, read back before anybody relies on it. Raises StoreError."""
        with ONE_OBJECT:
            sealed = seal(b"".join(frames), self._recipients(owner))
        ref = ObjectRef(id=secrets.token_hex(16), cipher_bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest())
        key = object_key(ref.id)
        self._storage.create(key, sealed, storage_class=storage_class)
        if hashlib.sha256(self._storage.get(key)).hexdigest() != ref.sha256:
            raise StoreError(
                f"{key} came back with other bytes than were stored", hint="check the store before all else"
            )
        return ref

    def writer(self, owner: Owner, storage_class: str = "") -> PackWriter:
        """A writer of new chunks that belong to this epoch."""
        return PackWriter(
            self._storage,
            recipients=self._recipients(owner),
            mac_key=self._epoch(owner.epoch).mac_key,
            known=lambda _: None,
            storage_class=storage_class,
        )

    def _recipients(self, owner: Owner) -> list[str]:
        epoch = self._epoch(owner.epoch).recipient
        if not owner.hosts:
            return [epoch]
        newest = self._keys.newest.recipient
        return [epoch, *(r for r in self._keys.recipients if r not in (epoch, newest))]

    def _epoch(self, number: int) -> Epoch:
        self._keys.mac_key(number)  # says why, where it is not known
        return next(e for e in self._keys.epochs if e.number == number)
