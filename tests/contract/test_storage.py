"""One contract for every store: memory, folder, two real S3 servers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support import stores

from pgkura.core.errors import StoreError, StoreFull, UsageError
from pgkura.storage.base import KeyExists, KeyNotFound, Storage
from pgkura.storage.local import LocalStorage
from pgkura.storage.memory import MemoryStorage
from pgkura.storage.opening import open_storage
from pgkura.storage.s3 import _failure

KINDS = ("memory", "local", "moto", "rclone")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A fresh store of each kind."""
    kind = request.param
    if kind == "memory":
        yield MemoryStorage()
    elif kind == "local":
        yield LocalStorage(tmp_path / "store")
    else:
        server = stores.s3(kind)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield open_storage(server.new_prefix())


def keys(store: Storage, prefix: str = "") -> list[str]:
    """Listed keys, sorted."""
    return sorted(s.key for s in store.list(prefix))


def test_put_get_replace(store: Storage) -> None:
    """What was put is what is got; a second put replaces."""
    store.put("a/b", b"one")
    assert store.get("a/b") == b"one"
    store.put("a/b", b"")
    assert store.get("a/b") == b""


def test_missing_key(store: Storage) -> None:
    """A missing key is KeyNotFound, also next to existing ones."""
    store.put("a/b", b"x")
    for key in ("a/c", "a", "z"):
        with pytest.raises(KeyNotFound):
            store.get(key)


def test_create_never_overwrites(store: Storage) -> None:
    """The first writer's bytes stay."""
    store.create("k", b"first")
    with pytest.raises(KeyExists):
        store.create("k", b"second")
    assert store.get("k") == b"first"


def test_exactly_one_of_many_creators_wins(store: Storage) -> None:
    """Where conditional create is promised, it is atomic."""
    if not store.properties().conditional_create:
        assert "rclone" in os.environ.get("AWS_ACCESS_KEY_ID", ""), "only rclone lacks it here"
        return

    def winners(key: str) -> list[int]:
        def create(n: int) -> bool:
            try:
                store.create(key, str(n).encode())
            except KeyExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            return [n for n, won in enumerate(pool.map(create, range(8))) if won]

    # moto looks and then writes, and does not keep others out between: it may need more than one turn.
    turns = 5 if store.url.startswith("s3://") else 1
    found = [winners(f"claim/{turn}") for turn in range(turns)]
    assert all(found)
    assert any(len(won) == 1 and store.get(f"claim/{turn}") == str(won[0]).encode() for turn, won in enumerate(found))


def test_list_by_prefix(store: Storage) -> None:
    """Prefixes cut anywhere in a name; sizes are true; times are near now."""
    for key in ("data/aa/1", "data/ab/2", "data/b", "index/host-1", "index/host-2", "index2"):
        store.put(key, key.encode())
    assert keys(store) == ["data/aa/1", "data/ab/2", "data/b", "index/host-1", "index/host-2", "index2"]
    assert keys(store, "data/a") == ["data/aa/1", "data/ab/2"]
    assert keys(store, "index/host-") == ["index/host-1", "index/host-2"]
    assert keys(store, "nothing/") == []
    one = next(iter(store.list("data/b")))
    assert one.size == len("data/b") and abs(one.modified - time.time()) < 120


def test_delete_is_idempotent(store: Storage) -> None:
    """Deleting twice is no error; nothing else goes."""
    store.put("x/1", b"1")
    store.put("x/2", b"2")
    store.delete("x/1")
    store.delete("x/1")
    assert keys(store) == ["x/2"]


def test_large_object(store: Storage) -> None:
    """20 MB of noise, more than one part of an upload."""
    noise = os.urandom(20_000_000)
    store.create("big", noise)
    assert store.get("big") == noise
    assert next(iter(store.list("big"))).size == len(noise)


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "a\nb", "é", "a" * 600]
)
def test_keys_that_could_leave_the_store(store: Storage, key: str) -> None:
    """Refused before anything happens."""
    for act in (lambda: store.put(key, b""), lambda: store.create(key, b""), lambda: store.get(key)):
        with pytest.raises(StoreError):
            act()


def test_storage_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GLACIER_IR reaches the store; an unknown class is a usage error."""
    server = stores.s3("moto")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    url = server.new_prefix()
    store = open_storage(url)
    store.create("data/1", b"x", storage_class="GLACIER_IR")
    assert server.storage_class(url, "data/1") == "GLACIER_IR"
    with pytest.raises(UsageError):
        store.put("data/2", b"x", storage_class="GLACIERIR")


def test_full_disk(tmp_path: Path) -> None:
    """A full folder is StoreFull, and nothing half-written is listed."""
    full = stores.tiny_folder(tmp_path, megabytes=2)
    store = LocalStorage(full / "repository")
    store.put("a", b"1" * 100_000)
    with pytest.raises(StoreFull):
        store.put("b", os.urandom(4_000_000))
    assert keys(store) == ["a"]
    store.put("c", b"still works")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "reached"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret-key"}, ""),
    ],
)
def test_unreachable_or_refusing_store(change: dict[str, str], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error within half a minute, with a next step, without the secret."""
    server = stores.s3("rclone")
    for name, value in (server.environment | change).items():
        monkeypatch.setenv(name, value)
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        open_storage(server.new_prefix()).get("a")
    assert time.monotonic() - begun < 40
    assert word in str(caught.value) and caught.value.hint
    assert "wrong-secret-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Error performing GET http://127.0.0.1:1/b/40a/a in 580.401133ms - HTTP error; kind: Connect", "be reached"),
        ("Error performing GET https://s3/b/p403/a in 1.403956s - HTTP error; kind: Connect", "be reached"),
        (
            "Error performing GET https://s3/a - Server returned non-2xx status code: 403 Forbidden:",
            "may not do this",
        ),
        ("PermissionDenied { inner: Status { status: 403, body: None } }", "may not do this"),
        ("Error performing GET https://s3/a - Server returned non-2xx status code: 401 Unauthorized:", "not accept"),
    ],
)
def test_the_reason_is_read_from_the_status_alone(said: str, why: str) -> None:
    """Not from a duration or a name that has the same digits in it."""
    assert why in str(_failure("s3://b", "a", RuntimeError(said)))


def test_remote_store_without_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is waived in so many words."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example.org")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with pytest.raises(UsageError, match="without TLS"):
        open_storage("s3://bucket/x")
    assert open_storage("s3://bucket/x", insecure=True).url == "s3://bucket/x"


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://", "s3://key:secret@bucket/x", "file://host/x"])
def test_urls_that_are_no_store(url: str) -> None:
    """Usage errors."""
    with pytest.raises(UsageError):
        open_storage(url)


_WRITER = """
import sys, itertools
from pathlib import Path
from pgkura.storage.local import LocalStorage
store = LocalStorage(Path(sys.argv[1]))
print("ready", flush=True)
for n in itertools.count():
    store.put("same", bytes([n % 251]) * int(sys.argv[2]))
    store.create(f"new/{n}", bytes([n % 251]) * int(sys.argv[2]))
"""


@pytest.mark.parametrize("size", [300_000, 3_000_000])
def test_killed_writer_leaves_whole_files(tmp_path: Path, size: int) -> None:
    """SIGKILL at random moments: every listed file is whole, and no temporary one is listed."""
    store = LocalStorage(tmp_path / "store")
    for round_ in range(6):
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / "store"), str(size)], stdout=subprocess.PIPE, env=environment
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.05 + 0.03 * round_)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        for stored in list(store.list("")):
            data = store.get(stored.key)
            assert len(data) == size and len(set(data)) == 1, stored.key
            assert ".unfinished" not in stored.key
        for stored in list(store.list("new/")):
            store.delete(stored.key)
