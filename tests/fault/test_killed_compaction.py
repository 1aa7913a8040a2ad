"""SIGKILL of a prune that packs anew, before every single write and delete."""

import random
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tests.support.packed import Days, assert_states_open
from tests.support.prune_child import Prune
from tests.support.shelf import Shelf

from pgkura.core.progress import Silent
from pgkura.operations.prune import execute_prune, plan_prune
from pgkura.repository.retention import Rules
from pgkura.storage.local import LocalStorage

KEPT = 3


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
    keys = made.keys
    killed = Prune(folder=tmp_path / "whole", host_key=keys.host_key_text, last=KEPT, identity=keys.identity_text)
    steps = killed.steps()
    assert steps > 30
    for step in range(1, steps + 1):
        folder = tmp_path / f"at-{step}"
        shutil.copytree(tmp_path / "made", folder)
        shelf = made.copy_at(LocalStorage(folder))
        code, told = replace(killed, folder=folder).run(step)
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
