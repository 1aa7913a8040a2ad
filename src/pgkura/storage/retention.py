"""Locks and versions of a store that has them (S3 Object Lock, bucket versioning); the client library is optional."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Protocol, runtime_checkable

from pgkura.core.errors import UsageError
from pgkura.storage.base import Storage


class LockMode(StrEnum):
    """COMPLIANCE: nobody shortens it, not even the account's owner. GOVERNANCE: a special permission may."""

    COMPLIANCE = "COMPLIANCE"
    GOVERNANCE = "GOVERNANCE"


class Keeping(StrEnum):
    """What a bucket keeps when a file is overwritten or deleted."""

    NOTHING = "nothing"
    VERSIONS = "versions"
    LOCKS = "locks"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a file; `deleted` marks a delete marker, which hides the older ones."""

    key: str
    id: str
    size: int
    modified: datetime
    deleted: bool = False


class Retention(Protocol):
    """Safe to use from several threads. All methods raise StoreError when the store refuses."""

    def keeping(self) -> Keeping:
        """What the bucket is set to; UNKNOWN when this credential may not ask."""
        ...

    def lock(self, key: str, *, until: datetime, mode: LockMode, size: int | None = None, version: str = "") -> bool:
        """Lock this version, or the current one (or, if its size is not `size`, the newest that has it), at least
        until then.

        Never shortens and never weakens. Whether anything had to be changed. Raises KeyNotFound.
        """
        ...

    def locked_until(self, key: str, *, size: int | None = None, version: str = "") -> datetime | None:
        """When the lock of the same version ends; None without one. Raises KeyNotFound."""
        ...

    def history(self, prefix: str) -> Iterator[Version]:
        """All versions of all keys beginning with `prefix`, of each key the newest first."""
        ...

    def get_version(self, key: str, version_id: str) -> bytes:
        """Raises KeyNotFound."""
        ...

    def delete_version(self, key: str, version_id: str) -> None:
        """For good; a locked one is refused."""
        ...


@runtime_checkable
class Retaining(Protocol):
    """A store that may have locks and versions."""

    def retention(self) -> Retention:
        """Raises UsageError where the client library is not installed."""
        ...


def retention_of(storage: Storage) -> Retention | None:
    """The store's locks and versions; None where it has none, or the library for them is not installed."""
    if not isinstance(storage, Retaining):
        return None
    try:
        return storage.retention()
    except UsageError:
        return None


def need_retention(storage: Storage) -> Retention:
    """Raises UsageError, saying why, where files cannot be locked."""
    if not isinstance(storage, Retaining):
        raise UsageError(
            f"{storage.url} cannot lock files",
            detail="only an S3 bucket with Object Lock can",
            hint="leave out --lock-days, or use a bucket that was made with Object Lock",
        )
    found = storage.retention()
    if found.keeping() in (Keeping.NOTHING, Keeping.VERSIONS):
        raise UsageError(
            f"the bucket of {storage.url} has no Object Lock",
            hint="it is switched on when a bucket is made; see docs/how-to/s3-policies.md",
        )
    return found


def keeping_of(storage: Storage) -> Keeping:
    """What the store keeps of what is deleted; UNKNOWN also where the library to ask it with is not installed."""
    if not isinstance(storage, Retaining):
        return Keeping.NOTHING
    found = retention_of(storage)
    return Keeping.UNKNOWN if found is None else found.keeping()


def need_versions(storage: Storage) -> Retention:
    """Raises UsageError where the store has no versions to look back at."""
    found = storage.retention() if isinstance(storage, Retaining) else None
    if found is None or found.keeping() is Keeping.NOTHING:
        raise UsageError(
            f"{storage.url} keeps no older versions",
            hint="a bucket does when versioning is on; unset PGKURA_STORE_AS_OF",
        )
    return found


def versions_of(retention: Retention, key: str) -> list[Version]:
    """The versions of one key that hold bytes, newest first."""
    return [v for v in retention.history(key) if v.key == key and not v.deleted]


def several_versions(retention: Retention, prefix: str) -> Iterator[tuple[str, list[Version]]]:
    """(key, its versions, newest first) of the keys below that somebody wrote again, or hid."""
    for key, found in groupby(retention.history(prefix), key=lambda v: v.key):
        versions = list(found)
        if len(versions) > 1 or versions[0].deleted:
            yield key, versions
