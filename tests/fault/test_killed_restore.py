"""SIGKILL of restore and backup at many moments: what was there stays whole, a rerun succeeds, nothing lingers."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support import compare, nasty, soak
from tests.support.cli import Desk
from tests.support.servers import Server, newest, server, versions

RESTORE_STAGES = (
    "reading the snapshot", "looking at the target", "definitions", "rows", "large objects", "indexes, constraints",
    "sequences", "materialized views", "permissions", "database settings", "statistics",
)  # fmt: skip
PROOF_STAGES = ("comparing the catalog", "comparing rows", "checking foreign keys")
BACKUP_STAGES = (
    "looking at the database", "locking tables", "taking the snapshot", "reading definitions", "reading rows",
    "finishing",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A nasty database, its backup, and where to restore it."""

    desk: Desk
    home: Server
    source: str
    target_name: str


def make_scene(folder: Path) -> Scene:
    """A database large enough to be killed in; 15 has contrib everywhere."""
    home = server(15) if 15 in versions() else newest()
    name = f"killed_{uuid4().hex[:8]}"
    source = nasty.fill(home, name, scale=4).url
    desk = Desk(folder)
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    return Scene(desk=desk, home=home, source=source, target_name=f"{name}_back")


def end_scene(scene: Scene) -> None:
    """Both databases."""
    scene.home.drop_database(scene.target_name)
    scene.home.drop_database(scene.target_name.removesuffix("_back"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """To be restored: its source stays as it is."""
    made = make_scene(tmp_path_factory.mktemp("restored"))
    yield made
    end_scene(made)


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """To be backed up again and again: its source changes."""
    made = make_scene(tmp_path_factory.mktemp("backed_up"))
    yield made
    end_scene(made)


def kill_at(desk: Desk, arguments: tuple[str, ...], stage: str, delay: float, database: str) -> list[str]:
    """Run until stderr says `stage`, wait, SIGKILL the whole group; all it said, the lines of the delay too."""
    told: list[str] = []
    child = subprocess.Popen(
        [sys.executable, "-m", "pgkura", *arguments],
        env=desk.environment | {"DATABASE_URL": database},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stderr is not None
    with child, child.stderr as said:
        for line in said:
            told.append(line.lower())
            if told[-1].startswith(stage):
                break
        time.sleep(delay)
        os.killpg(child.pid, signal.SIGKILL)
        told.extend(line.lower() for line in said)
    assert any(line.startswith(stage) for line in told), f"it never said {stage!r}: {told}"
    return told


def begun(told: list[str], stages: tuple[str, ...]) -> bool:
    """Whether one of these stages was said."""
    return any(line.startswith(stages) for line in told)


def alone(url: str) -> None:
    """Wait until the server has ended the sessions of the killed one."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(200):
            rest = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend'"
            ).fetchone()
            if rest == (0,):
                return
            time.sleep(0.05)
    pytest.fail("sessions of the killed one are still there after 10 s")


def leftovers(url: str) -> list[str]:
    """Roles and schemas of ours that should be gone."""
    with psycopg.connect(url, autocommit=True, options="-c search_path=pg_catalog") as connection:
        return [
            str(row[0])
            for row in connection.execute(
                "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^pgkura_guest_' UNION ALL "
                "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^pgkura'"
            )
        ]


@pytest.mark.parametrize("stage", RESTORE_STAGES)
def test_killed_restore_is_done_again(stage: str, scene: Scene) -> None:
    """The same command again clears what the killed one made, and ends equal to the source."""
    # the last stage is short, and after it the restore is whole
    _killed_restore(scene, stage, 0.0 if stage == RESTORE_STAGES[-1] else random.Random(stage).uniform(0, 0.15))


def _killed_restore(scene: Scene, stage: str, delay: float) -> None:
    target = scene.home.create_database(scene.target_name)
    told = kill_at(scene.desk, ("restore", "latest", "--to", target, "--yes"), stage, delay, target)
    alone(target)
    if begun(told, ("definitions",)) and "pgkura_restore" not in leftovers(target):
        proven(scene, target)  # a fast machine: it was whole before it was killed
        return
    done = scene.desk.run("restore", "latest", "--to", target, "--yes", "--json")
    assert done.code == 0, f"killed {delay:.3f} s into {stage!r}: exit {done.code}\n{done.out}\n{done.err}"
    assert done.json["result"] == "ok" and done.json["proof"]["equal"] is True
    assert leftovers(target) == [], f"killed {delay:.3f} s into {stage!r}"
    compare.assert_same(scene.source, target)


@pytest.mark.parametrize("stage", PROOF_STAGES)
def test_killed_proof_is_made_again(stage: str, scene: Scene) -> None:
    """Everything is back, only the proof is not: the target is never cleared again, `verify --against` proves it."""
    target = scene.home.create_database(scene.target_name)
    kill_at(scene.desk, ("restore", "latest", "--to", target, "--yes"), stage, 0, target)
    alone(target)
    proven(scene, target)


def proven(scene: Scene, target: str) -> None:
    """A whole restore without its proof: refused as a target, proven by `verify --against`."""
    assert leftovers(target) == []
    again = scene.desk.run("restore", "latest", "--to", target, "--yes", "--json").expect(18)
    assert again.json["result"] == "failed"
    proven = scene.desk.run("verify", "latest", "--against", target, "--json").expect().json
    assert proven["proof"]["equal"] is True
    compare.assert_same(scene.source, target)


@pytest.mark.parametrize("stage", BACKUP_STAGES)
def test_killed_backup_is_no_backup(stage: str, living: Scene) -> None:
    """Earlier snapshots stay whole, the killed one is none, and the next is."""
    _killed_backup(living, stage, random.Random(stage).uniform(0, 0.2))


def _killed_backup(living: Scene, stage: str, delay: float) -> None:
    desk = living.desk
    with psycopg.connect(living.source, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS public.changing (v text)")
        connection.execute("INSERT INTO public.changing SELECT md5(random()::text) FROM generate_series(1, 30000)")
    before = [s["id"] for s in desk.run("snapshots", "--json").expect().json["snapshots"]]
    told = kill_at(desk, ("backup",), stage, delay, living.source)
    after = [s["id"] for s in desk.run("snapshots", "--json").expect().json["snapshots"]]
    assert after[: len(before)] == before and len(after) - len(before) <= begun(told, ("finishing",)), (stage, delay)
    assert desk.run("verify", "--json").expect().json["problems"] == []
    backup = desk.run("backup", "--json", env={"DATABASE_URL": living.source}).expect().json
    assert backup["result"] == "ok"
    assert desk.run("verify", "--json").expect().json["problems"] == []


def test_after_all_that_the_last_snapshot_restores(living: Scene) -> None:
    """The proof of the pudding: whatever the killed ones left in the repository, the newest one comes back."""
    target = living.home.create_database(living.target_name)
    living.desk.run("backup", env={"DATABASE_URL": living.source}).expect()
    living.desk.run("restore", "latest", "--to", target).expect()
    compare.assert_same(living.source, target)


@pytest.mark.soak
@pytest.mark.timeout(soak.TIMEOUT)
def test_killed_at_random_for_long(scene: Scene, living: Scene) -> None:
    """Restores and backups, any stage, any delay."""
    for seed in soak.rounds():
        dice = random.Random(seed)
        if dice.random() < 0.5:
            _killed_restore(scene, dice.choice(RESTORE_STAGES[:-1]), dice.uniform(0, 0.6))
        else:
            _killed_backup(living, dice.choice(BACKUP_STAGES), dice.uniform(0, 0.6))
