"""A folder as a store: temporary file, fsync, rename (or link), fsync of the folder."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgkura.core.errors import StoreError, StoreFull
from pgkura.storage.base import KeyExists, KeyNotFound, Properties, Stored
from pgkura.storage.direct import write_file
from pgkura.storage.keys import check_key

# Keys never begin a segment with a dot, so unfinished files can neither be listed nor named.
_UNFINISHED = ".unfinished-"


class LocalStorage:
    """Keeps the Storage contract in a folder, which is made when the first key is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser().absolute()

    @property
    def url(self) -> str:
        """The folder."""
        return str(self._folder)

    def properties(self) -> Properties:
        """Conditional create by hard links, no classes."""
        return Properties(conditional_create=True, storage_classes=frozenset(), local=True)

    def put(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Store or replace, durable and atomic."""
        path = self._path(key)
        with _translated(key), self._unfinished(path, data) as unfinished:
            unfinished.replace(path)
            _sync_folder(path.parent)

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Store, or raise KeyExists; exactly one of several writers wins."""
        path = self._path(key)
        with _translated(key), self._unfinished(path, data) as unfinished:
            try:
                os.link(unfinished, path)
            except FileExistsError:
                raise KeyExists(f"{key} exists in {self.url}") from None
            unfinished.unlink()
            _sync_folder(path.parent)

    def get(self, key: str) -> bytes:
        """Raises KeyNotFound."""
        try:
            with _translated(key):
                return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyNotFound(f"{key} does not exist in {self.url}") from None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Raises KeyNotFound."""
        try:
            with _translated(key), self._path(key).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyNotFound(f"{key} does not exist in {self.url}") from None

    def list(self, prefix: str) -> Iterator[Stored]:
        """All keys beginning with `prefix`."""
        start = self._folder / prefix.rpartition("/")[0]
        for folder, folders, names in os.walk(start, onerror=_walk_error):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for name in names:
                if name.startswith("."):
                    continue
                path = Path(folder) / name
                key = path.relative_to(self._folder).as_posix()
                if key.startswith(prefix):
                    try:
                        about = path.stat()
                    except FileNotFoundError:
                        continue
                    yield Stored(key=key, size=about.st_size, modified=about.st_mtime)

    def delete(self, key: str) -> None:
        """Idempotent."""
        with _translated(key):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / check_key(key)

    @contextmanager
    def _unfinished(self, path: Path, data: bytes) -> Iterator[Path]:
        """The data in a synced temporary file beside its destination; gone afterwards whatever happened."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                write_file(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield unfinished
        finally:
            unfinished.unlink(missing_ok=True)


def _walk_error(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise StoreError(f"cannot list {error.filename}", detail=error.strerror or "") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"no space left for {key}",
                detail=error.strerror or "",
                hint="nothing was half-written; make room and run it again",
            ) from error
        raise StoreError(f"cannot use {key}", detail=f"{error.strerror} ({error.filename})") from error
