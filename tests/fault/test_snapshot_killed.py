"""SIGKILL at any moment: the repository opens, what it holds is whole, nothing of ours lingers, a rerun succeeds."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.access import resolve
from pgkura.core.outcome import Result

ROWS = 40_000
SRC = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A database of about 20 MB in three tables."""
    name = f"kill_{uuid4().hex[:12]}"
    host = newest()
    made = make_scene(host.create_database(name), tmp_path_factory.mktemp("kill") / "repository")
    for table in ("a", "b", "c"):
        made.sql(
            f"CREATE TABLE {table} AS SELECT g, md5(g::text) || repeat('x', 150) v FROM generate_series(1, {ROWS}) g"
        )
    yield made
    host.drop_database(name)


def _start(scene: Scene, executor: str, rate: int = 0) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "DATABASE_URL": scene.url,
        "PGKURA_HOST_KEY": resolve(scene.access.host_key),
        "PYTHONPATH": f"{SRC}/src:{SRC}:{os.environ.get('PYTHONPATH', '')}",
        "TMPDIR": str(_temporary(scene)),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.snapshot_child", scene.access.repository, executor, str(rate)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _temporary(scene: Scene) -> Path:
    folder = Path(scene.access.repository).parent / "temporary"
    folder.mkdir(exist_ok=True)
    return folder


def _in_clear(scene: Scene) -> list[Path]:
    """Files that a backup left lying about: definitions are nobody's business."""
    return [p for p in _temporary(scene).rglob("*") if p.is_file() and not _nothing_yet(p)]


def _nothing_yet(file: Path) -> bool:
    """A working database keeps its name for the moment in which it is made: a page of SQLite's own, one of no rows."""
    return file.name == "database" and file.stat().st_size <= 2 * 4096


def _await_stage(child: "subprocess.Popen[str]", beginning: str) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"ended before {beginning!r}")


def _end(child: "subprocess.Popen[str]") -> list[psutil.Process]:
    family = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
    child.kill()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()
    return family


def _whole(scene: Scene) -> None:
    for manifest in scene.repo.manifests():
        for table in scene.repo.chunk_list(manifest):
            assert sum(len(scene.repo.read_bytes(layer.chunk)) for layer in table.layers) == table.bytes
        assert manifest.counts["rows"] == 3 * ROWS


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize(
    "stage", ["looking", "locking", "taking the snapshot", "reading definitions", "reading rows", "finishing"]
)
def test_killed_when_a_stage_has_just_begun(scene: Scene, stage: str, executor: str) -> None:
    child = _start(scene, executor)
    _await_stage(child, stage)
    time.sleep(random.Random(stage + executor).uniform(0, 0.3))
    family = _end(child)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert scene.leftovers() == []
    assert _in_clear(scene) == []
    _whole(scene)


def test_killed_in_the_middle_of_reading_then_run_again(scene: Scene) -> None:
    child = _start(scene, "processes", rate=4_000_000)
    _await_stage(child, "reading rows")
    time.sleep(2.0)
    before = scene.repo.manifest_ids()
    family = _end(child)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert scene.leftovers() == []
    assert _in_clear(scene) == []
    assert scene.repo.manifest_ids() == before
    taken = scene.take()
    assert taken.result is Result.OK
    assert scene.repo.manifest("latest").id == taken.manifest.id
    _whole(scene)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_ends_everything(scene: Scene, number: signal.Signals) -> None:
    # Without the command line's handlers SIGTERM kills Python at once, and SIGINT raises in the main thread.
    child = _start(scene, "processes", rate=1_000_000)
    _await_stage(child, "reading rows")
    time.sleep(1.5)
    before = scene.repo.manifest_ids()
    family = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(number)
    assert child.wait(timeout=30) != 0
    if child.stdout is not None:
        child.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert scene.leftovers() == []
    assert _in_clear(scene) == []
    assert scene.repo.manifest_ids() == before
