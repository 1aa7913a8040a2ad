"""Files that somebody overwrote or hid: the store may keep the version that was stored."""

import hashlib

from pgkura.core.errors import StoreError, Tampered
from pgkura.core.refs import ObjectRef
from pgkura.repository.packs import object_key
from pgkura.storage.base import KeyNotFound, Storage
from pgkura.storage.retention import retention_of, versions_of


class Objects:
    """Reads stored objects and checks their bytes; safe to use from several threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._notes: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """Files that were read in an older version, so far."""
        return [note for _, note in sorted(self._notes.items())]

    def get(self, ref: ObjectRef) -> bytes:
        """The stored bytes; an older version's where somebody overwrote or hid them and the store keeps versions.

        Raises Tampered naming the file.
        """
        key = object_key(ref.id)
        try:
            sealed = self._storage.get(key)
            if len(sealed) == ref.cipher_bytes and hashlib.sha256(sealed).hexdigest() == ref.sha256:
                return sealed
            wrong = Tampered(f"{key} is damaged", detail="its bytes are not those that were stored")
            became = "overwritten"
        except KeyNotFound:
            wrong = Tampered(f"{key} is missing", hint="get it back from a copy of the repository")
            became = "deleted"
        older = older_version(self._storage, key, ref)
        if older is None:
            raise wrong
        self._notes[key] = f"{key} was {became} in the store; its older version {older[0]} is used"
        return older[1]


def older_version(storage: Storage, key: str, ref: ObjectRef) -> tuple[str, bytes] | None:
    """(version id, bytes) of an older version that is what the reference says, where the store keeps versions."""
    retention = retention_of(storage)
    if retention is None:
        return None
    try:
        for version in versions_of(retention, key):
            if version.size == ref.cipher_bytes:
                data = retention.get_version(key, version.id)
                if hashlib.sha256(data).hexdigest() == ref.sha256:
                    return version.id, data
    except StoreError:
        return None  # this credential may not look; the file counts as it is
    return None
