"""A store in memory, for tests and for small work without a trace."""

import time
from collections.abc import Iterator
from threading import Lock

from pgkura.storage.base import KeyExists, KeyNotFound, Properties, Stored
from pgkura.storage.keys import check_key


class MemoryStorage:
    """Keeps the Storage contract in a dictionary."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, float]] = {}
        self._lock = Lock()

    @property
    def url(self) -> str:
        """`memory:`."""
        return "memory:"

    def properties(self) -> Properties:
        """Conditional create, no classes."""
        return Properties(conditional_create=True, storage_classes=frozenset(), local=True)

    def put(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Store or replace."""
        with self._lock:
            self._files[check_key(key)] = (bytes(data), time.time())

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Store, or raise KeyExists."""
        with self._lock:
            if check_key(key) in self._files:
                raise KeyExists(f"{key} exists")
            self._files[key] = (bytes(data), time.time())

    def get(self, key: str) -> bytes:
        """Raises KeyNotFound."""
        with self._lock:
            if check_key(key) not in self._files:
                raise KeyNotFound(f"{key} does not exist")
            return self._files[key][0]

    def list(self, prefix: str) -> Iterator[Stored]:
        """All keys beginning with `prefix`."""
        with self._lock:
            found = [
                Stored(key=k, size=len(d), modified=t) for k, (d, t) in self._files.items() if k.startswith(prefix)
            ]
        yield from found

    def delete(self, key: str) -> None:
        """Idempotent."""
        with self._lock:
            self._files.pop(check_key(key), None)
