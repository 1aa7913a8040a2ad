"""SIGKILL of prune before every single write and delete; and prune, backups and verify at the same time."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from tests.support import compare
from tests.support.cli import Desk
from tests.support.prune_child import Prune
from tests.support.servers import Server, newest
from tests.support.shelf import Shelf

from pgkura.core.errors import PlanOutdated
from pgkura.storage.local import LocalStorage

# Longer than five processes at once on a slow machine take for one backup or verify.
GRACE = 20


def snapshots_in(shelf: Shelf) -> list[str]:
    """Four, sharing some of their data, and the remains of a killed backup."""
    ids = [
        shelf.add(
            {"same": b"1\n" * 50, "moving": b"day %d\n" % d, "often": b"%d\n" % (d // 2)}, ago=timedelta(days=4 - d)
        )
        for d in range(4)
    ]
    writer = shelf.host().pack_writer()
    writer.begin(1)
    writer.write(b"half a backup\n")
    writer.end(1)
    writer.flush()
    return ids


def test_killed_before_every_step(tmp_path: Path) -> None:
    """Without a database, hence at every step: whole after the kill, a backup is possible, the next prune finishes."""
    made = Shelf(LocalStorage(tmp_path / "made"))
    ids = snapshots_in(made)
    shutil.copytree(tmp_path / "made", tmp_path / "whole")
    steps = Prune(folder=tmp_path / "whole", host_key=made.keys.host_key_text, last=2).steps()
    assert steps > 12
    for step in range(1, steps + 1):
        folder = tmp_path / f"at-{step}"
        shutil.copytree(tmp_path / "made", folder)
        shelf = made.copy_at(LocalStorage(folder))
        prune = Prune(folder=folder, host_key=made.keys.host_key_text, last=2)
        code, told = prune.run(step)
        assert code == -9, (step, told)
        shelf.assert_whole()
        left = shelf.host().manifest_ids()
        assert set(ids[2:]) <= set(left) <= set(ids), step
        try:
            shelf.add({"same": b"1\n" * 50, "moving": b"day 0\n", "later": b"%d\n" % step})
        except PlanOutdated:
            pytest.fail(f"killed before step {step}: no backup is possible")
        shelf.assert_whole()
        for _ in range(2):
            code, told = replace(prune, last=3).run(0)
            assert code == 0, (step, told)
        shelf.assert_whole()
        assert shelf.host().manifest_ids()[:-1] == ids[2:], step
        assert shelf.files("tombstones/") == [] and shelf.check().orphans == 0, step
        shutil.rmtree(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A database, and its repository with three snapshots."""

    desk: Desk
    home: Server
    source: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Killed prunes work on copies."""
    home = newest()
    source = home.create_database("prune_source")
    desk = Desk(tmp_path_factory.mktemp("prune"))
    desk.run("init").expect()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE lessons (id int PRIMARY KEY, title text)")
        connection.execute("INSERT INTO lessons SELECT g, md5(g::text) FROM generate_series(1, 3000) g")
        for day in range(3):
            connection.execute(f"CREATE TABLE day_{day} AS SELECT g FROM generate_series(1, 100) g")
            connection.execute("UPDATE lessons SET title = title || '.' WHERE id = 1")
            desk.run("backup", env={"DATABASE_URL": source}).expect()
    yield Scene(desk=desk, home=home, source=source)
    home.drop_database("prune_source")


def copied(scene: Scene, folder: Path) -> Desk:
    """The same repository and keys elsewhere."""
    copy = Desk(folder)
    shutil.copytree(scene.desk.repository, copy.repository)
    shutil.copytree(scene.desk.identity.parent, copy.identity.parent)
    return copy


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_after_a_kill_everything_works(share: float, scene: Scene, tmp_path: Path) -> None:
    """Backup, verify and a proven restore by the command line; then a rerun of prune."""
    key = scene.desk.host_key.read_text()
    counting = copied(scene, tmp_path / "counting")
    steps = Prune(folder=counting.repository, host_key=key, last=1).steps()
    desk = copied(scene, tmp_path / "killed")
    step = 1 + round(share * (steps - 1))
    assert Prune(folder=desk.repository, host_key=key, last=1).run(step)[0] == -9
    assert desk.run("verify", "--json").expect().json["problems"] == []
    old = desk.run("snapshots", "--json").expect().json["snapshots"][-1]["id"]
    made = desk.run("backup", "--json", env={"DATABASE_URL": scene.source}).expect().json["snapshot"]
    for snapshot in (old, made):
        target = scene.home.create_database("prune_target")
        restored = desk.run("restore", snapshot, "--to", target, "--json").expect().json
        assert restored["proof"]["equal"] is True
        compare.assert_same(scene.source, target)
    desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes", "--json").expect()
    again = desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes", "--json").expect().json
    assert again["problems"] == [] and again["removed"] == []
    assert desk.run("verify", "--json").expect().json["proof"]["orphans"] == 0


@contextmanager
def changing(url: str) -> Iterator[None]:
    """The database is changed all the while, so that every backup stores something that a prune soon takes away."""
    stop = threading.Event()

    def change() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            n = 0
            while not stop.wait(0.05):
                n += 1
                connection.execute("UPDATE lessons SET title = md5(title) WHERE id %% 50 = %s", (n % 50,))
                connection.execute("INSERT INTO lessons VALUES (%s, 'new')", (10_000 + n,))
                connection.execute("DELETE FROM lessons WHERE id = %s", (9_990 + n,))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(change)
        try:
            yield
        finally:
            stop.set()
            done.result()


def test_all_at_once(scene: Scene, tmp_path: Path) -> None:
    """Two backups, two prunes and a verify, until data was deleted among them: no failure, nothing is lost."""
    desk = copied(scene, tmp_path / "busy")
    url = scene.home.create_database("prune_changing")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE lessons (id int PRIMARY KEY, title text)")
        connection.execute("INSERT INTO lessons SELECT g, md5(g::text) FROM generate_series(1, 3000) g")
    source = {"DATABASE_URL": url}
    running: dict[str, subprocess.Popen[bytes]] = {}
    ends: dict[str, list[int]] = {}
    verbs = {
        "backup a": ("backup",),
        "backup b": ("backup",),
        "prune a": ("prune", "--keep-last", "1", "--grace", f"{GRACE}s", "--yes"),
        "prune b": ("prune", "--keep-last", "2", "--grace", f"{GRACE}s", "--yes"),
        "verify": ("verify",),
    }
    ever: set[str] = set()
    deleted = 0
    begun = time.monotonic()
    with changing(url):
        while True:
            seconds = time.monotonic() - begun
            goes_on = seconds < 5 * GRACE and (seconds < GRACE or deleted < 20)
            for name, verb in verbs.items():
                if name in running and running[name].poll() is not None:
                    ends.setdefault(name, []).append(running.pop(name).returncode)
                if name not in running and goes_on:
                    running[name] = desk.start(*verb, env=source)
            if not running:
                break
            there = {file.name for file in (desk.repository / "data").rglob("*") if file.is_file()}
            ever |= there
            deleted = len(ever - there)
            time.sleep(0.02)
    assert deleted >= 20
    # a prune may find that the other one removed what it had planned to keep or remove: 22, and it did nothing
    assert all(
        code in ((0, 22) if name.startswith("prune") else (0,)) for name, codes in ends.items() for code in codes
    ), ends
    assert all(0 in codes for codes in ends.values()), ends
    assert desk.run("verify", "--json").expect().json["problems"] == []
    desk.run("backup", env=source).expect()
    desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes").expect()
    target = scene.home.create_database("prune_busy")
    assert desk.run("restore", "latest", "--to", target, "--json").expect().json["proof"]["equal"] is True
    compare.assert_same(url, target)


def test_no_grace_at_all(scene: Scene, tmp_path: Path) -> None:
    """Prunes that delete at once beside backups: a backup may fail (22), a snapshot that exists is always whole."""
    desk = copied(scene, tmp_path / "hasty")
    source = {"DATABASE_URL": scene.source}
    until = time.monotonic() + 15
    running: dict[str, subprocess.Popen[bytes]] = {}
    codes: list[int] = []
    while running or time.monotonic() < until:
        for name in ("backup a", "backup b", "prune"):
            if name in running and running[name].poll() is not None:
                codes.append(running.pop(name).returncode)
            if name not in running and time.monotonic() < until:
                verb = ("prune", "--keep-last", "1", "--grace", "0", "--yes") if name == "prune" else ("backup",)
                running[name] = desk.start(*verb, env=source)
        time.sleep(0.02)
    assert set(codes) <= {0, 22} and 0 in codes
    assert desk.run("verify", "--json").expect().json["problems"] == []
    target = scene.home.create_database("prune_hasty")
    assert desk.run("restore", "latest", "--to", target, "--json").expect().json["proof"]["equal"] is True
