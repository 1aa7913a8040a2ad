"""SIGKILL of a prune that packs anew, before every single write and delete."""

import os
import random
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from tests.support.cli import ROOT
from tests.support.packed import Days, assert_states_open
from tests.support.shelf import Shelf

from pgkura.core.progress import Silent
from pgkura.operations.prune import execute_prune, plan_prune
from pgkura.repository.keys import NewKeys
from pgkura.repository.retention import Rules
from pgkura.storage.local import LocalStorage

KEPT = 3


def child(folder: Path, keys: NewKeys, step: int) -> tuple[int, str]:
    """(exit code, stdout) of one prune that dies before its step."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.prune_child", str(folder), str(step), str(KEPT), "0"],
        env={
            **os.environ,
            "PGKURA_HOST_KEY": keys.host_key_text,
            "IDENTITY": keys.identity_text,
            "GRACE": "0",
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout or done.stderr


def prune(shelf: Shelf, last: int, share: float) -> list[str]:
    """Its problems."""
    planned = plan_prune(shelf.both(), Rules(last=last), grace=0, repack_below=share, repack_least=1, progress=Silent())
    return list(execute_prune(planned, progress=Silent()).problems)


def test_killed_before_every_step(tmp_path: Path) -> None:
    """Whole after the kill, for hosts too; the next backup goes on; the next prunes finish and leave nothing behind."""
    made = Shelf(LocalStorage(tmp_path / "made"))
    days = Days(made, random.Random(3), tables=3)
    for day in range(6):
        days.next(ago=timedelta(days=9 - day))
    ids = made.host().manifest_ids()[-KEPT:]
    assert prune(made, KEPT, 0) == []
    shutil.copytree(tmp_path / "made", tmp_path / "whole")
    code, told = child(tmp_path / "whole", made.keys, 0)
    assert code == 0, told
    steps = int(told)
    assert steps > 30
    for step in range(1, steps + 1):
        folder = tmp_path / f"at-{step}"
        shutil.copytree(tmp_path / "made", folder)
        shelf = Shelf.__new__(Shelf)
        shelf.storage, shelf.keys, shelf.contents = LocalStorage(folder), made.keys, dict(made.contents)
        code, told = child(folder, made.keys, step)
        assert code == -9, (step, told)
        shelf.assert_whole()
        assert_states_open(shelf)
        assert shelf.host().manifest_ids() == ids, step
        Days(shelf, random.Random(step), tables=3).next()
        # references that a kill left too long are shortened by the first, and what they named goes with it
        assert prune(shelf, KEPT + 1, 0.8) == prune(shelf, KEPT + 1, 0.8) == [], step
        shelf.assert_whole()
        assert_states_open(shelf)
        assert shelf.host().manifest_ids()[:-1] == ids, step
        assert shelf.files("tombstones/") == [] and shelf.check().orphans == 0, step
        repo = shelf.both()
        named = {i for snapshot in repo.manifest_ids() for i in repo.references(snapshot)}
        assert {k.rpartition("/")[2] for k in shelf.files("data/")} == named, step
        shutil.rmtree(folder)
