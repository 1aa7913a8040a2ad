"""Locks files one by one, and looks for those of which the store has several versions.

Files that a snapshot needs are written once. Of one that was overwritten or deleted since, the current version is not
what the snapshot needs: a lock of that one alone would let the stored bytes go. The look comes after the locks:
whatever becomes a second version later finds the stored one locked.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from pgkura.core.errors import StoreError, Tampered
from pgkura.storage.retention import LockMode, Retention, Version, several_versions

_AT_ONCE = 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """How many files a snapshot needs, how many locks had to be made longer, which the store refused, and which were
    overwritten or deleted since they were stored."""

    until: str
    mode: LockMode
    files: int
    extended: int
    refused: tuple[tuple[str, str], ...]
    overwritten: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the journal and `--json`."""
        return {
            "until": self.until,
            "mode": str(self.mode),
            "files": self.files,
            "extended": self.extended,
            "refused": len(self.refused),
            "overwritten": len(self.overwritten),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file, until when it shall be locked, and its size where somebody noted it."""

    key: str
    until: datetime
    size: int | None = None


# Whether these bytes are what was stored in a file; may raise Tampered instead.
Right = Callable[[bytes], bool]


class Locks:
    """Locks, and counts."""

    def __init__(self, retention: Retention, mode: LockMode) -> None:
        self._retention = retention
        self._mode = mode
        self._files = self._extended = 0
        self._refused: list[tuple[str, str]] = []
        self._overwritten: list[tuple[str, str]] = []

    def lock(self, wanted: Iterable[Wanted]) -> None:
        """The current version of each; the newest of its size where the current one has another."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for some in slices(wanted):
                for file, (changed, why) in zip(some, pool.map(self._lock, some), strict=True):
                    self._files += 1
                    self._extended += changed
                    if why:
                        self._refused.append((file.key, why))

    def _lock(self, file: Wanted, version: str = "") -> tuple[bool, str]:
        try:
            return self._retention.lock(
                file.key, until=file.until, mode=self._mode, size=file.size, version=version
            ), ""
        except StoreError as error:
            return False, error.reason

    def look(self, prefix: str, find: Callable[[str], tuple[Wanted, Right] | None]) -> None:
        """Below `prefix`: of each wanted file that has several versions, or is hidden, the right one is locked.

        Where that is not the current one the file is named, and all its versions of the right size are locked: reading
        them all to find the right one would take longer than the locks may wait.
        """
        try:
            for key, versions in several_versions(self._retention, prefix):
                if (found := find(key)) is not None:
                    self._settle(*found, versions)
        except StoreError as error:
            why = f"its versions cannot be listed, so what was overwritten is not noticed: {error.reason}"
            self._refused.append((prefix, why))

    def _settle(self, file: Wanted, right: Right, versions: list[Version]) -> None:
        current = versions[0]
        why = self._wrong(current, file, right)
        fitting = [v for v in versions if not v.deleted and file.size in (None, v.size)]
        refused = [said for v in ([current] if not why else fitting) if (said := self._lock(file, v.id)[1])]
        if refused:
            self._refused.append((file.key, refused[0]))
        if why:
            self._overwritten.append((file.key, f"{why}; {len(fitting) - len(refused)} versions of it are locked"))

    def _wrong(self, current: Version, file: Wanted, right: Right) -> str:
        """What became of a file that has several versions; '' where the current one is what was stored."""
        if current.deleted:
            return "it was deleted in the store"
        try:
            if file.size in (None, current.size) and right(self._retention.get_version(file.key, current.id)):
                return ""
        except Tampered:
            pass
        except StoreError as error:
            return f"it has several versions in the store, and the current one cannot be read: {error.reason}"
        return "it was overwritten in the store"

    def refuse(self, key: str, why: str) -> None:
        """What could not be done elsewhere."""
        self._refused.append((key, why))

    def done(self, until: str, before: Locked | None = None) -> Locked:
        """What was counted, with what was before."""
        return Locked(
            until=until,
            mode=self._mode,
            files=self._files + (before.files if before else 0),
            extended=self._extended + (before.extended if before else 0),
            refused=(*(before.refused if before else ()), *self._refused),
            overwritten=(*(before.overwritten if before else ()), *self._overwritten),
        )


def same_hash(sha256: str) -> Right:
    """For a file whose hash is noted where it is named."""
    return lambda data: hashlib.sha256(data).hexdigest() == sha256


def slices(items: Iterable[T]) -> Iterator[list[T]]:
    """Not all at once: a snapshot may need hundreds of thousands of files."""
    rest = iter(items)
    while some := list(islice(rest, 1_000)):
        yield some
