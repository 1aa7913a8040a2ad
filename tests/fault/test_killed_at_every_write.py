"""SIGKILL before each write, and after the last, of init, backup and export: of the main process and of workers.

Local and on two S3 servers. After one write is before the next. What was there stays whole, what was cut short is no
snapshot, the same command again succeeds. Kills between writes are in the other files of this folder, by seeded delays.
"""

import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support import stores
from tests.support.cli import Desk
from tests.support.killing import Killer, install
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene

from pgkura.core.access import Access, hold
from pgkura.core.progress import Silent
from pgkura.operations.export import export
from pgkura.operations.init import initialise
from pgkura.repository.check import check_repository
from pgkura.repository.creating import create
from pgkura.repository.keys import HostKey, Identity, NewKeys, new_keys
from pgkura.repository.repository import Repository
from pgkura.storage.opening import open_storage

ROWS = 6000


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and keys for repositories of it."""

    url: str
    keys: NewKeys

    def open(self, where: str) -> Repository:
        """Anew, as the next command does."""
        return Repository.open(open_storage(where), identity=self.keys.identity, host=self.keys.host)

    def scene(self, where: str) -> Scene:
        """To back up in this process."""
        name = uuid4().hex
        access = Access(
            database=hold(f"d{name}", self.url), repository=where, host_key=hold(f"k{name}", self.keys.host_key_text)
        )
        return Scene(url=self.url, repo=self.open(where), access=access)

    def back_up(self, where: str, executor: str, killer: Killer, folder: Path) -> int:
        """In processes of their own, all in one group; the main one's return code."""
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.support.snapshot_child", where, executor, "0"],
            env=os.environ
            | {"DATABASE_URL": self.url, "PGKURA_HOST_KEY": self.keys.host_key_text, "TMPDIR": str(folder)}
            | killer.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        with child:
            assert child.stderr is not None
            said = child.stderr.read().decode()
            code = child.wait(timeout=120)
        assert code in (0, 1, -signal.SIGKILL), said
        return code

    def whole(self, where: str, snapshots: int) -> None:
        """Everything reads back, and there are this many snapshots."""
        repo = self.open(where)
        report = check_repository(repo, repo.manifest_ids(), deep=True, progress=Silent())
        assert report.problems == [] and report.snapshots == snapshots, (report.problems, report.snapshots)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Two tables, of several chunks."""
    server, name = newest(), f"writes_{uuid4().hex[:10]}"
    made = Place(server.create_database(name), new_keys(now=datetime.now(UTC)))
    scene = Scene(url=made.url, repo=None, access=None)  # type: ignore[arg-type]
    for table in ("a", "b"):
        scene.sql(
            f"CREATE TABLE {table} AS SELECT g, md5(g::text) || repeat('x', 150) v FROM generate_series(1, {ROWS}) g"
        )
    yield made
    server.drop_database(name)


@pytest.fixture(params=["local", "moto", "rclone"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store, its variables set."""
    chosen = str(request.param)
    if chosen != "local":
        for name, value in stores.s3(chosen).environment.items():
            monkeypatch.setenv(name, value)
    return chosen


def _fresh(kind: str, folder: Path) -> str:
    return str(folder / "repository") if kind == "local" else stores.s3(kind).new_prefix()


def test_backup(kind: str, place: Place, tmp_path: Path) -> None:
    """Local with worker processes, which write the rows; on S3 with threads, every other write per server."""
    executor = "processes" if kind == "local" else "threads"

    def repository(number: int) -> str:
        """A repository with one snapshot of before."""
        folder = tmp_path / str(number)
        folder.mkdir()
        where = _fresh(kind, folder)
        create(open_storage(where), place.keys)
        return where

    counted = Killer(count=tmp_path / "counted")
    first = repository(0)
    assert place.back_up(first, executor, counted, tmp_path / "0") == 0
    place.whole(first, 1)
    writes = [w for w in counted.writes if " probe/" not in w]
    kinds = {w.split()[1].partition("/")[0] for w in writes}
    assert kinds >= {"data", "index", "snapshots", "journal"}, writes
    total = len(counted.writes)
    every = kind == "local"
    chosen = {*range(2 if kind == "rclone" else 1, total + 1, 1 if every else 2), total}
    for at in sorted(chosen):
        where = repository(at)
        killer = Killer(count=tmp_path / f"count-{at}", at=at)
        assert place.back_up(where, executor, killer, tmp_path / str(at)) == -signal.SIGKILL, at
        # The journal comes last: by then the snapshot is one.
        place.whole(where, int(_is_there(killer, at)))
        place.scene(where).take()
        place.whole(where, 1 + int(_is_there(killer, at)))
    last = repository(total + 1)
    killer = Killer(count=tmp_path / "count-after", at=total, when="after")
    assert place.back_up(last, executor, killer, tmp_path / str(total + 1)) == -signal.SIGKILL
    place.whole(last, 1)


def _is_there(killer: Killer, at: int) -> bool:
    """Whether the manifest had been written: the writes that were counted before the one that was killed."""
    return any(w.startswith("create snapshots/") for w in killer.writes[: at - 1])


def test_a_killed_worker_ends_the_backup(place: Place, tmp_path: Path) -> None:
    """Only the worker process dies, at its first write of rows: an error or a second try, never half a snapshot."""
    where = str(tmp_path / "repository")
    create(open_storage(where), place.keys)
    killer = Killer(count=tmp_path / "count", at=1, whom="me", only="data/")
    code = place.back_up(where, "processes", killer, tmp_path)
    place.whole(where, int(code == 0))
    place.scene(where).take()
    place.whole(where, 1 + int(code == 0))


@pytest.mark.parametrize("kind", ["moto", "rclone"], indirect=True)
def test_init_on_s3(kind: str, tmp_path: Path) -> None:
    """Each write of the store and of key files; the local one, to the last step, is in test_killed_init.py."""
    server = stores.s3(kind)

    def run(number: int, at: int) -> tuple[str, Desk, Killer, int]:
        desk, where = Desk(tmp_path / str(number)), server.new_prefix()
        killer = Killer(count=desk.folder / "count", at=at)
        environment = desk.environment | server.environment | {"PGKURA_REPOSITORY": where} | killer.environment
        done = subprocess.run(
            [sys.executable, "-m", "pgkura", "init"],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False,
        )  # fmt: skip
        return where, desk, killer, done.returncode

    _, _, counted, code = run(0, 0)
    assert code == 0
    total = len(counted.writes)
    assert total > 10
    for at in range(1 if kind == "moto" else 2, total + 1, 2):
        where, desk, killer, code = run(at, at)
        assert code == -signal.SIGKILL, killer.writes
        storage = open_storage(where)
        initialise(storage, desk.identity, desk.host_key, now=datetime.now(UTC))
        identity, host = Identity.parse(desk.identity.read_text()), HostKey.parse(desk.host_key.read_text())
        assert Repository.open(storage, identity=identity, host=host).wrong_scripts == []
        assert sorted(p.name for p in desk.identity.parent.iterdir()) == ["host.key", "identity.txt"]


def test_export(place: Place, tmp_path: Path) -> None:
    """Each file, folder and the last rename: a folder of that name is whole or is not there."""
    where = str(tmp_path / "repository")
    create(open_storage(where), place.keys)
    place.scene(where).take()

    def child(directory: Path, killer: Killer) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            number = os.fork()
        if number == 0:
            try:
                install(killer)
                repo = place.open(where)
                export(repo, repo.manifest("latest"), directory, Silent())
            finally:
                os._exit(1)
        return os.WIFSIGNALED(os.waitpid(number, 0)[1])

    def files(directory: Path) -> dict[str, int]:
        return {str(p.relative_to(directory)): p.stat().st_size for p in directory.rglob("*") if p.is_file()}

    counted = Killer(count=tmp_path / "counted", whom="me", only="folder")
    assert not child(tmp_path / "whole", counted)
    wanted, total = files(tmp_path / "whole"), len(counted.writes)
    assert total >= 20 and len(wanted) >= 20
    for at, when in [*((n, "before") for n in range(1, total + 1)), (total, "after")]:
        directory = tmp_path / f"{at}-{when}"
        killer = Killer(count=tmp_path / f"count-{at}-{when}", at=at, when=when, whom="me", only="folder")
        assert child(directory, killer)
        assert directory.exists() == (when == "after")
        if not directory.exists():
            repo = place.open(where)
            export(repo, repo.manifest("latest"), directory, Silent())
        assert files(directory) == wanted
        assert not list(tmp_path.glob(".*.unfinished"))
        shutil.rmtree(directory)
