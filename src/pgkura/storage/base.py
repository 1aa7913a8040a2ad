"""The Storage contract, kept by one shared suite (tests/contract/test_storage.py) on every implementation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pgkura.core.errors import PgkuraError, StoreError


class KeyNotFound(StoreError):
    """Nothing under this key."""


class KeyExists(StoreError):
    """`create` found the key taken; the stored bytes are untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One listed key: its size in bytes and the store's own time of last change, seconds since 1970."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """What a store can promise. Unsupported is an error, never a silent no-op.

    conditional_create  `create` is atomic against other writers (probed, not assumed)
    storage_classes     names accepted by `put(storage_class=…)`; empty = none
    local               on this machine: TLS is not asked for
    """

    conditional_create: bool
    storage_classes: frozenset[str]
    local: bool


class Storage(Protocol):
    """Keys are relative POSIX paths of [A-Za-z0-9._-] segments. Safe to use from several threads."""

    @property
    def url(self) -> str:
        """For people and journals; never holds a credential."""
        ...

    def properties(self) -> Properties:
        """Probed at most once."""
        ...

    def put(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Store or replace. Atomic and durable: after it returns, power loss keeps the new bytes; a crash
        inside leaves the old or the new bytes, never a mixture. Raises StoreFull, StoreError."""
        ...

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """As `put`, but raises KeyExists when the key is taken. Where `conditional_create` is false this is a
        check followed by a put, and only one declared writer is safe."""
        ...

    def get(self, key: str) -> bytes:
        """Raises KeyNotFound."""
        ...

    def list(self, prefix: str) -> Iterator[Stored]:
        """All keys beginning with `prefix` ("" = all), in no order; unfinished writes are never listed."""
        ...

    def delete(self, key: str) -> None:
        """Idempotent: deleting a missing key is not an error."""
        ...


@runtime_checkable
class Ranged(Protocol):
    """A store that can read a part of a file."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Fewer bytes where the file ends before. Raises KeyNotFound."""
        ...


def read_range(storage: Storage, key: str, start: int, length: int) -> bytes:
    """So many bytes from there, fewer at the end; of a store that cannot, out of the whole file. Raises KeyNotFound."""
    if isinstance(storage, Ranged):
        return storage.get_range(key, start, length) if length else b""
    return storage.get(key)[start : start + length]


__all__ = [
    "KeyExists",
    "KeyNotFound",
    "PgkuraError",
    "Properties",
    "Ranged",
    "Storage",
    "StoreError",
    "Stored",
    "read_range",
]
