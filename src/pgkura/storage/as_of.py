"""A bucket as it was at a moment: what somebody overwrote or deleted since then is seen as it was before."""

from collections.abc import Iterator
from datetime import datetime
from threading import Lock
from typing import NoReturn

from pgkura.core.errors import StoreError
from pgkura.storage.base import KeyNotFound, Properties, Storage, Stored
from pgkura.storage.retention import Version, need_versions


class AsOfStorage:
    """Keeps the reading half of the Storage contract; writing is refused."""

    def __init__(self, storage: Storage, when: datetime) -> None:
        self._storage = storage
        self._when = when
        self._retention = need_versions(storage)
        self._found: dict[str, Version] | None = None
        self._lock = Lock()

    @property
    def url(self) -> str:
        """The store's own."""
        return self._storage.url

    def properties(self) -> Properties:
        """Nothing can be written here, so nothing is probed."""
        return Properties(conditional_create=True, storage_classes=frozenset(), local=True)

    def put(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Refused."""
        self._refuse(key)

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Refused."""
        self._refuse(key)

    def delete(self, key: str) -> None:
        """Refused."""
        self._refuse(key)

    def get(self, key: str) -> bytes:
        """The version of that moment."""
        version = self._versions().get(key)
        if version is None:
            raise KeyNotFound(f"{key} did not exist in {self.url} at {self._when.isoformat()}")
        return self._retention.get_version(key, version.id)

    def list(self, prefix: str) -> Iterator[Stored]:
        """Keys of that moment."""
        for key, version in self._versions().items():
            if key.startswith(prefix):
                yield Stored(key=key, size=version.size, modified=version.modified.timestamp())

    def _versions(self) -> dict[str, Version]:
        with self._lock:
            if self._found is None:
                newest: dict[str, Version] = {}
                for version in self._retention.history(""):
                    have = newest.get(version.key)
                    if version.modified <= self._when and (have is None or version.modified > have.modified):
                        newest[version.key] = version
                self._found = {key: v for key, v in newest.items() if not v.deleted}
            return self._found

    def _refuse(self, key: str) -> NoReturn:
        raise StoreError(
            f"{key} cannot be written",
            detail=f"this is the repository as it was at {self._when.isoformat()}",
            hint="unset PGKURA_STORE_AS_OF to write",
        )
