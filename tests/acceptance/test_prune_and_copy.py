"""prune, copy and `backup --also` by the command line, with a database to back up and to restore into."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.support import compare, stores
from tests.support.cli import Desk
from tests.support.servers import Server, needs, newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A database and a repository with two snapshots of it."""

    desk: Desk
    home: Server
    source: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """About 12 MB that do not compress."""
    home = newest()
    source = home.create_database("keep_source")
    desk = Desk(tmp_path_factory.mktemp("keep"))
    desk.run("init").expect()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE noise AS SELECT g, gen_random_uuid() a, gen_random_uuid() b "
                           "FROM generate_series(1, 150000) g")  # fmt: skip
        desk.run("backup", env={"DATABASE_URL": source}).expect()
        connection.execute("CREATE TABLE later AS SELECT g FROM generate_series(1, 100) g")
        desk.run("backup", env={"DATABASE_URL": source}).expect()
    yield Scene(desk=desk, home=home, source=source)
    home.drop_database("keep_source")


def copied(scene: Scene, folder: Path) -> Desk:
    """The same repository and keys elsewhere."""
    copy = Desk(folder)
    shutil.copytree(scene.desk.repository, copy.repository)
    shutil.copytree(scene.desk.identity.parent, copy.identity.parent)
    return copy


def ids(desk: Desk) -> list[str]:
    """All snapshots."""
    return [s["id"] for s in desk.run("snapshots", "--json").expect().json["snapshots"]]


def test_prune_asks_first(scene: Scene, tmp_path: Path) -> None:
    """No rule: 2. No terminal and no --yes: 21, nothing touched. A dry run prints the plan. Host key alone does."""
    desk = copied(scene, tmp_path)
    desk.identity.unlink()
    before = ids(desk)
    assert "--keep-last" in desk.run("prune").expect(2).err
    desk.run("prune", "--keep-within", "soon").expect(2)
    desk.run("prune", "--keep-last", "1").expect(21)
    shown = desk.run("prune", "--keep-last", "1", "--dry-run").expect()
    assert "REMOVE" in shown.out and "newest" in shown.out
    plan = desk.run("prune", "--keep-last", "1", "--dry-run", "--json").expect().json
    assert plan["result"] == "planned" and [r["snapshot"] for r in plan["removed"]] == before[:1]
    assert ids(desk) == before
    done = desk.run("prune", "--keep-last", "1", "--yes", "--json").expect().json
    assert done["result"] == "ok" and done["removed"] == before[:1] and done["objects_deleted"] == 0
    assert ids(desk) == before[1:]
    assert desk.run("prune", "--keep-within", "30d").expect().out.count("removed") == 1
    desk.run("verify").expect()


def test_prune_keeps_what_was_proven(scene: Scene, tmp_path: Path) -> None:
    """A restore's proof in the journal protects its snapshot."""
    desk = copied(scene, tmp_path)
    first = ids(desk)[0]
    target = scene.home.create_database("keep_proven")
    desk.run("restore", first, "--to", target).expect()
    done = desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes", "--json").expect().json
    assert done["removed"] == [] and first in ids(desk)


def test_two_repositories_at_once(scene: Scene, tmp_path: Path) -> None:
    """Each by the same rules for what it holds; one that fails is named and ends nothing."""
    desk = copied(scene, tmp_path / "first")
    place = tmp_path / "second"
    desk.run("copy", "--all", "--to-repository", str(place)).expect()
    away = {"PGKURA_REPOSITORY": str(place)}
    extra = desk.run("backup", "--json", env=away | {"DATABASE_URL": scene.source}).expect().json["snapshot"]
    words = ("prune", "--keep-last", "1", "--grace", "0", "--also", str(place))
    plan = desk.run(*words, "--dry-run", "--json").expect().json
    assert [len(p["removed"]) for p in (plan, *plan["also"])] == [1, 2]
    desk.run(*words).expect(21)
    newest_here = ids(desk)[-1]
    done = desk.run(*words, "--yes", "--json").expect().json
    assert done["result"] == "ok" and [len(p["removed"]) for p in (done, *done["also"])] == [1, 2]
    assert done["also"][0]["repository"] == str(place)
    assert ids(desk) == [newest_here]
    listed = desk.run("snapshots", "--json", env=away).expect().json["snapshots"]
    assert [s["id"] for s in listed] == [extra]
    for env in ({}, away):
        desk.run("verify", env=env).expect()
    desk.run(*words[:-1], str(tmp_path / "nowhere"), "--yes").expect(10)


def test_prune_of_a_damaged_repository(scene: Scene, tmp_path: Path) -> None:
    """A manifest that does not open: named, exit 3, no data deleted, and the file stays."""
    desk = copied(scene, tmp_path)
    made = desk.run("backup", "--json", env={"DATABASE_URL": scene.source}).expect().json["snapshot"]
    bad = desk.repository / "snapshots" / ids(desk)[1]
    bad.write_bytes(bad.read_bytes()[:-1])
    count = len(list(desk.repository.glob("data/*/*")))
    done = desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes", "--json").expect(3).json
    assert bad.name in " ".join(done["problems"]) and done["objects_deleted"] == 0
    assert bad.exists() and len(list(desk.repository.glob("data/*/*"))) >= count
    target = scene.home.create_database("keep_damaged")
    assert desk.run("restore", made, "--to", target, "--json").expect().json["proof"]["equal"] is True


def test_a_delete_that_the_store_refuses(scene: Scene, tmp_path: Path) -> None:
    """A file that cannot be removed, as under Object Lock: named and counted, exit 3, all else done and whole."""
    desk = copied(scene, tmp_path)
    with psycopg.connect(scene.source, autocommit=True) as connection:
        connection.execute("DROP TABLE later")
        desk.run("backup", env={"DATABASE_URL": scene.source}).expect()
        connection.execute("CREATE TABLE later AS SELECT g FROM generate_series(1, 100) g")
    before = list(desk.repository.glob("data/*/*"))
    trial = copied(Scene(desk=desk, home=scene.home, source=scene.source), tmp_path / "trial")
    trial.run("prune", "--keep-last", "1", "--grace", "0", "--yes").expect()
    names = sorted(str(p.relative_to(desk.repository)) for p in before)
    gone = [name for name in names if not (trial.repository / name).exists()]
    busy = desk.repository / gone[0]
    mounted = subprocess.run(["mount", "--bind", str(busy), str(busy)], capture_output=True, check=False)
    needs("root and mount", mounted.returncode == 0)
    try:
        done = desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes", "--json").expect(3).json
        assert done["refused"] == 1 and gone[0] in done["problems"][0]
        assert len(done["removed"]) == 2 and done["objects_deleted"] == len(gone) - 1
        desk.run("verify").expect()
    finally:
        subprocess.run(["umount", str(busy)], check=False)
    desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes").expect()
    assert desk.run("verify", "--json").expect().json["proof"]["orphans"] == 0 and not busy.exists()


def test_copy_killed_and_run_again(scene: Scene, tmp_path: Path) -> None:
    """SIGKILL at several moments, then once more: the copy alone verifies and restores."""
    place = tmp_path / "second"
    bare = {k: v for k, v in scene.desk.environment.items() if k != "PGKURA_IDENTITY"} | {"HOME": str(tmp_path)}
    desk = Desk(scene.desk.folder, bare)
    del desk.environment["PGKURA_IDENTITY"]
    for delay in (0.4, 0.6, 0.8, 1.0):
        child = desk.start("copy", "--all", "--to-repository", str(place), "-j", "1")
        time.sleep(delay)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    done = desk.run("copy", "--all", "--to-repository", str(place), "--json").expect().json
    assert done["result"] == "ok" and sorted(done["copied"] + done["present"]) == ids(scene.desk)
    away = {"PGKURA_REPOSITORY": str(place)}
    assert scene.desk.run("verify", "--json", env=away).expect().json["problems"] == []
    assert desk.run("verify", "--json", env=away).expect().json["proof"]["form"] == "sealed"
    target = scene.home.create_database("keep_copied")
    restored = scene.desk.run("restore", "latest", "--to", target, "--json", env=away).expect().json
    assert restored["proof"]["equal"] is True
    compare.assert_same(scene.source, target)


def test_copy_says_what_it_did(scene: Scene, tmp_path: Path) -> None:
    """Text, usage errors, another repository, damage at the source."""
    desk = copied(scene, tmp_path / "first")
    place = str(tmp_path / "second")
    desk.run("copy", "--to-repository", place).expect(2)
    desk.run("copy", "--all").expect(2)
    desk.run("copy", "latest", "--all", "--to-repository", place).expect(2)
    told = desk.run("copy", "latest", "--to-repository", place).expect()
    assert "1 snapshots copied" in told.out and "copying objects" in told.err
    other = Desk(tmp_path / "other")
    other.run("init").expect()
    desk.run("copy", "--all", "--to-repository", str(other.repository)).expect(11)
    largest = max(desk.repository.glob("data/*/*"), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"x")
    done = desk.run("copy", "--all", "--to-repository", str(tmp_path / "third"), "--json").expect(3).json
    assert done["copied"] == [] and sorted(done["failed"]) == ids(desk)
    assert largest.name in " ".join(done["problems"])


def test_backup_also(scene: Scene, tmp_path: Path) -> None:
    """A folder and a bucket get the snapshot too; a place that refuses is named, and the rest is done."""
    desk = copied(scene, tmp_path / "first")
    server = stores.s3("moto")
    bucket = server.new_prefix()
    (tmp_path / "in the way").write_text("a file")
    places = [str(tmp_path / "second"), bucket]
    env = server.environment | {"DATABASE_URL": scene.source}
    arguments = [a for place in places for a in ("--also", place)]
    made = desk.run("backup", "--json", *arguments, env=env).expect().json
    assert [c["result"] for c in made["copies"]] == ["ok", "ok"]
    for place in places:
        listed = desk.run("snapshots", "--json", env=env | {"PGKURA_REPOSITORY": place}).expect().json["snapshots"]
        assert [s["id"] for s in listed] == [made["snapshot"]]
        desk.run("verify", env=env | {"PGKURA_REPOSITORY": place}).expect()
    again = (
        desk.run("backup", "--json", "--also", str(tmp_path / "in the way" / "x"), *arguments, env=env).expect(3).json
    )
    assert [c["result"] for c in again["copies"]] == ["failed", "ok", "ok"] and again["result"] == "incomplete"
    assert "in the way" in again["skipped"][-1]["object"]
    desk.run("verify", env=env | {"PGKURA_REPOSITORY": bucket}).expect()


def test_the_next_backup_goes_on_from_what_is_left(scene: Scene, tmp_path: Path) -> None:
    """After a prune that deleted at once, and in a copy: still incremental, and what it makes restores equal."""
    desk = copied(scene, tmp_path / "first")
    source = scene.home.create_database("keep_going")
    whole = 0
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE long AS SELECT g, gen_random_uuid() a FROM generate_series(1, 200000) g")
        for day in range(4):
            made = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json
            whole = whole or made["bytes_read"]
            assert day == 0 or made["bytes_read"] < whole / 3, (day, made)
            done = desk.run("prune", "--keep-last", "1", "--grace", "0", "--yes", "--json").expect().json
            assert day == 0 or len(done["removed"]) == 1
            assert desk.run("verify", "--json").expect().json["proof"]["orphans"] == 0
            connection.execute(
                "UPDATE long SET a = gen_random_uuid() WHERE g BETWEEN %s AND %s", (day * 9, day * 9 + 5)
            )
            connection.execute("DELETE FROM long WHERE g = %s", (1000 + day,))
    place = str(tmp_path / "second")
    desk.run("copy", "latest", "--to-repository", place).expect()
    away = {"DATABASE_URL": source, "PGKURA_REPOSITORY": place}
    made = desk.run("backup", "--json", env=away).expect().json
    assert made["bytes_read"] < whole / 3
    target = scene.home.create_database("keep_went")
    assert desk.run("restore", "latest", "--to", target, "--json", env=away).expect().json["proof"]["equal"] is True
    compare.assert_same(source, target)
