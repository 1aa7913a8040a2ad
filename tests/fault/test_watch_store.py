"""A store that refuses, is slow, breaks in mid-word, is full or read-only: the log waits, and nothing gets lost."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_holes import write
from tests.postgres.test_watch import archived, the_log
from tests.support import ledger, stores
from tests.support.cli import Desk
from tests.support.killing import Killer
from tests.support.servers import server, versions
from tests.support.watchers import soon, watching
from tests.support.wire import Wire, random_cut

from pgkura.changes.log import Log, read_chain
from pgkura.changes.options import Options
from pgkura.core.errors import StoreError
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage
from pgkura.storage.s3 import S3Storage

NEWEST = versions()[-1]


@pytest.fixture
def source() -> Iterator[str]:
    """A watched database."""
    home = server(NEWEST)
    yield ledger.make(home, "stored")
    ledger.drop_slots(home, "stored")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


def numbers(url: str) -> list[int]:
    """What the ledger itself has."""
    with psycopg.connect(url) as connection:
        return [int(n) for (n,) in connection.execute("SELECT n FROM ledger ORDER BY n").fetchall()]


def wait_for(what: str, seconds: float, is_so: Callable[[], bool]) -> None:
    """Until it is so."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.1)


def remounted(folder: Path, how: str) -> bool:
    """Whether the kernel did it."""
    done = subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], capture_output=True, check=False)
    return done.returncode == 0


def bucket_log(desk: Desk, home: str) -> Log:
    """Of the only chain of a repository in a bucket."""
    bucket, _, prefix = home.removeprefix("s3://").partition("/")
    identity, host = Identity.parse(desk.identity.read_text()), HostKey.parse(desk.host_key.read_text())
    repo = Repository.open(S3Storage(bucket, prefix), identity=identity, host=host)
    (chain,) = repo.chain_ids()
    facts = read_chain(repo, chain)
    assert facts is not None and not facts.missing
    return Log(repo, facts)


def test_a_bucket_in_trouble(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 for a while, lines that break in the middle of an upload, then a slow one; one watcher lives through it."""
    s3 = stores.s3("moto")
    target = int(s3.endpoint.rpartition(":")[2])
    home = s3.new_prefix()
    desk = Desk(tmp_path, s3.environment | {"PGKURA_REPOSITORY": home})
    desk.run("init").expect()
    desk.run("watch", "--once", env={"DATABASE_URL": source}).expect()
    with Wire(target) as wire, ledger.Load(source, clients=2, seed=3) as load:
        env = {"DATABASE_URL": source, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{wire.port}"}
        child = desk.start("watch", "--period", "0.2s", "--segment-bytes", "8192", "--quiet", env=env)
        count = len(s3.keys(home, "changes/"))
        wait_for("a segment", 30, lambda: len(s3.keys(home, "changes/")) > count + 2)

        wire.refusing = True
        wire.hang_up()
        time.sleep(6)
        wire.refusing = False
        assert wire.refused > 0

        wire.toward, wire.cut = "far", random_cut(5, 500, 20_000)
        wire.hang_up()
        wait_for("cuts", 40, lambda: wire.cuts >= 10)
        wire.cut = None
        wire.hang_up()

        wire.delay = 0.3
        count = len(s3.keys(home, "changes/"))
        wait_for("a slow segment", 60, lambda: len(s3.keys(home, "changes/")) > count + 2)
        wire.delay = 0.0
        load.stop()
        assert child.poll() is None, f"it ended with {child.returncode}"
        child.terminate()
        assert child.wait(60) == 0
        last = desk.run("watch", "--once", "--json", env=env).expect().json
    assert last["holes"] == 0
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    log = bucket_log(desk, home)
    assert sorted(archived(log)) == sorted(load.committed) == numbers(source)


class Moody(LocalStorage):
    """Thinks for a while about every third segment, and refuses it; takes what comes next."""

    segments = 0
    calm = False

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """As a folder does, or not."""
        if "/segments/" in key:
            self.segments += 1
            if self.segments % 3 == 0 and not self.calm:
                time.sleep(1)
                raise StoreError("not now")
        super().create(key, data, storage_class=storage_class)


def test_nothing_is_stored_behind_a_refused_segment(source: str, desk: Desk) -> None:
    """Others wait behind it meanwhile: stored, they would make a gap where nothing was lost."""
    identity, host = Identity.parse(desk.identity.read_text()), HostKey.parse(desk.host_key.read_text())
    store = Moody(desk.repository)
    repo = Repository.open(store, identity=identity, host=host)
    with watching(source, repo, Options(period=0.1, beat=1.0)) as (_, done):
        soon(lambda: store.segments >= 1)
        with ledger.Load(source, clients=2, seed=6) as load:
            soon(lambda: store.segments >= 9, 60)
            store.calm = True
            count = store.segments
            soon(lambda: store.segments >= count + 3)
    assert done[0].holes == 0
    last = desk.run("watch", "--once", "--json", env={"DATABASE_URL": source}).expect().json
    assert last["holes"] == 0
    assert sorted(archived(the_log(desk))) == sorted(load.committed) == numbers(source)


class Slow(LocalStorage):
    """Takes its time with every segment."""

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """As a folder does, later."""
        if "/segments/" in key:
            time.sleep(0.4)
        super().create(key, data, storage_class=storage_class)


def test_once_ends_however_slow_the_store_and_busy_the_source(source: str, desk: Desk) -> None:
    """Something is always being stored: what it came for is there all the same."""
    identity, host = Identity.parse(desk.identity.read_text()), HostKey.parse(desk.host_key.read_text())
    repo = Repository.open(Slow(desk.repository), identity=identity, host=host)
    with ledger.Load(source, clients=2, seed=9), watching(source, repo, Options(period=0.1, once=True)) as (_, done):
        soon(lambda: bool(done), 40)
    assert done[0].segments > 1 and done[0].holes == 0


def test_a_store_that_is_full_then_read_only(source: str, tmp_path: Path) -> None:
    """The same watcher goes on when there is room again, and when it may write again. Its TMPDIR is as full."""
    tiny = stores.tiny_folder(tmp_path, megabytes=32)  # the load's changes take a few, on a quick machine more
    desk = Desk(tmp_path / "desk", {"PGKURA_REPOSITORY": str(tiny / "repository")})
    desk.run("init").expect()
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    scratch = tiny / "scratch"
    scratch.mkdir()
    with ledger.Load(source, clients=2, seed=4) as load:
        child = desk.start("watch", "--period", "0.2s", "--quiet", env=env | {"TMPDIR": str(scratch)})
        filler = tiny / "filler"

        def stored() -> int:
            return sum(1 for _ in (tiny / "repository" / "changes").rglob("*-*"))

        before = stored()
        wait_for("a segment", 30, lambda: stored() > before)
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        time.sleep(4)
        filler.unlink()
        before = stored()
        wait_for("a segment when there is room", 40, lambda: stored() > before)
        # Refused as busy while the watcher has a file open that it writes.
        wait_for("a moment between two writes", 30, lambda: remounted(tiny, "ro"))
        time.sleep(3)
        assert remounted(tiny, "rw")
        before = stored()
        wait_for("a segment when it may write", 40, lambda: stored() > before)
        load.stop()
        assert child.poll() is None, f"it ended with {child.returncode}"
        child.terminate()
        assert child.wait(60) == 0
    assert desk.run("watch", "--once", "--json", env=env).expect().json["holes"] == 0
    names = desk.run("timeline", "--json").expect().json
    assert [bool(c["ended"]) for c in names["chains"]] == [False]
    moved = Desk(tmp_path / "desk")  # the same keys; the repository where the helpers look for it
    os.symlink(tiny / "repository", moved.repository)
    assert sorted(archived(the_log(moved))) == sorted(load.committed) == numbers(source)


def test_killed_at_each_step_of_a_put(source: str, desk: Desk) -> None:
    """SIGKILL before and after each write, and each step of the file system in it; what comes next goes on."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    count, number = desk.folder / "count", 0
    for fine in (False, True):
        at = 0
        while True:
            at += 1
            number += 1
            write(source, number)
            count.unlink(missing_ok=True)
            when = ("before", "after")[at % 2]
            killer = Killer(count=count, at=at, when=when, whom="me", only="" if fine else "ch", fine=fine)
            done = desk.run("watch", "--once", "--json", env=env | killer.environment)
            if done.code == 0:
                break
            assert done.code == -9, done
        assert at >= (2 if not fine else 6), killer.writes
    assert desk.run("watch", "--once", "--json", env=env).expect().json["holes"] == 0
    assert archived(the_log(desk)) == list(range(1, number + 1))
