"""Files of a folder that go past the page cache: every size, and what the system may answer to it."""

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pgkura.storage import direct
from pgkura.storage.local import LocalStorage

MIB = 1024 * 1024
SIZES = [
    0,
    1,
    MIB - 1,
    MIB,
    MIB + 1,
    MIB + 4095,
    MIB + 4096,
    3 * MIB + 4097,
    8 * MIB + 123,
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("folder", ["disk", "memory"])
def test_any_size_comes_back(size: int, folder: str, tmp_path: Path) -> None:
    """Where the file system knows no such way (a memory disk of an older Linux), too."""
    place = tmp_path if folder == "disk" else Path("/dev/shm") / f"pgkura-test-{os.getpid()}-{size}"
    store = LocalStorage(place)
    data = os.urandom(size)
    store.create("a", data)
    store.put("b", data)
    try:
        assert store.get("a") == data == store.get("b")
    finally:
        for key in ("a", "b"):
            store.delete(key)
        if folder == "memory":
            place.rmdir()


def _refuses(count: int, code: int = errno.EINVAL) -> Callable[[int, memoryview], int]:
    """The device wants larger blocks: only that of the first bytes is taken."""
    written = 0

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal written
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT and written >= count:
            raise OSError(code, os.strerror(code))
        written += len(data)
        return _write(descriptor, data)

    return write


def _stops_short(descriptor: int, data: memoryview) -> int:
    """Within a block: a signal came, or a network file system had enough."""
    return _write(descriptor, data[: len(data) // 3 + 1])


_write = os.write


@pytest.mark.parametrize("answer", [_refuses(0), _refuses(2 * MIB), _refuses(0, errno.ENOTSUP), _stops_short])
def test_what_is_refused_or_cut_short_is_written_all_the_same(
    answer: Callable[[int, memoryview], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(5 * MIB + 77)
    monkeypatch.setattr("pgkura.storage.direct.os.write", answer)
    LocalStorage(tmp_path).create("a", data)
    monkeypatch.undo()
    assert LocalStorage(tmp_path).get("a") == data


def test_what_goes_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong on either way."""

    def broken(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pgkura.storage.direct.os.write", broken)
    with pytest.raises(OSError, match="Input/output"), (tmp_path / "a").open("wb") as file:
        direct.write_file(file.fileno(), bytes(2 * MIB))


def test_the_cache_is_left_alone(tmp_path: Path) -> None:
    """Of 16 MB nothing but the end is in the system's cache, where the disk of the tests has such a way at all."""
    data = os.urandom(16 * MIB + 5)
    LocalStorage(tmp_path).create("a", data)
    cached = _cached_pages(tmp_path / "a")
    assert cached <= 16 or not _passes_by_the_cache(tmp_path / "probe")
    assert LocalStorage(tmp_path).get("a") == data


def _passes_by_the_cache(path: Path) -> bool:
    """Tried: a memory disk takes the flag and is a cache itself."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, MIB) as room:
            os.write(descriptor, room)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return _cached_pages(path) == 0


def _cached_pages(path: Path) -> int:
    """By mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as mapped:
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        place = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(place, size, pages) == 0, os.strerror(ctypes.get_errno())
        return sum(byte & 1 for byte in pages.raw)
