"""SIGKILL of a prune of the change log before every single write and delete, and of bundlers side by side."""

import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.chains import Made, add_base, numbers, reached, the_log
from tests.support.prune_child import Prune
from tests.support.shelf import Shelf

from pgkura.changes.log import read_chain
from pgkura.operations.timeline import timeline
from pgkura.repository.bundles import BundleName
from pgkura.storage.local import LocalStorage

FAN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A repository with three chains: one lives, one has ended, one has no base."""

    shelf: Shelf
    alive: Made
    ended: Made
    lost: Made
    base: str
    old: str


def scene(folder: Path) -> Scene:
    """The living chain's log begins before its only base that is kept."""
    shelf = Shelf(LocalStorage(folder))
    lost = Made(shelf.both(), at=datetime(2026, 11, 1, tzinfo=UTC), part=2)
    lost.add(3)
    lost.end()
    ended = Made(shelf.both(), at=datetime(2026, 11, 2, tzinfo=UTC))
    ended.add(5)
    ended.end()
    alive = Made(shelf.both(), at=datetime(2026, 11, 3, tzinfo=UTC), part=4)
    alive.add(17, mark="early")
    add_base(shelf, alive, 1)
    old = add_base(shelf, ended, 1)
    return Scene(shelf=shelf, alive=alive, ended=ended, lost=lost, base=add_base(shelf, alive, 4), old=old)


def check(shelf: Shelf, made: Scene, *, over: bool = False) -> None:
    """Every base leads to every later transaction, each once; the log goes without a gap to its end."""
    repo = shelf.both()
    assert reached(repo, made.alive.id, made.base) == list(range(5, 18))
    assert reached(repo, made.ended.id, made.old) == list(range(2, 6))
    for chain in (made.alive, made.ended):
        facts = read_chain(repo, chain.id)
        assert facts is not None and not facts.missing and facts.end == chain.position
        found = numbers(the_log(repo, chain.id))
        assert found == list(range(found[0], chain.done + 1))
    lines = {c.id: c for c in timeline(repo).chains}
    assert {made.alive.id, made.ended.id} <= lines.keys()
    assert made.lost.id not in lines or not over
    assert [s.snapshot for s in lines[made.ended.id].stretches] == [made.old]


@pytest.mark.timeout(900)
def test_killed_before_every_step(tmp_path: Path) -> None:
    """Whole after each kill; a watcher goes on; the next prune finishes, and nothing is left over."""
    made = scene(tmp_path / "made")
    check(made.shelf, made)
    shutil.copytree(tmp_path / "made", tmp_path / "whole")
    prune = Prune(folder=tmp_path / "whole", host_key=made.shelf.keys.host_key_text, last=2, fan=FAN)
    steps = prune.steps()
    assert steps > 45
    kinds = set()
    for step in range(1, steps + 1):
        folder = tmp_path / f"at-{step}"
        shutil.copytree(tmp_path / "made", folder)
        shelf = made.shelf.copy_at(LocalStorage(folder))
        mine = replace(prune, folder=folder)
        code, told = mine.run(step)
        assert code == -9, (step, told)
        check(shelf, made)
        kinds.add((len(shelf.files("changes/")), len(shelf.files("chains/"))))
        for _ in range(2):
            # What a kill left without a name goes once it is an hour old.
            code, told = replace(mine, age=4000).run(0)
            assert code == 0, (step, told)
        check(shelf, made, over=True)
        assert_tidy(shelf, made, step)
        shutil.rmtree(folder)
    assert len(kinds) > 30


def assert_tidy(shelf: Shelf, made: Scene, step: int) -> None:
    """Few files, none of them of no use."""
    repo = shelf.host()
    assert not shelf.files(f"changes/{made.lost.id}/") and not shelf.files(f"chains/{made.lost.id}/"), step
    for chain in (made.alive, made.ended):
        runs = repo.runs(chain.id)
        heads = [repo.bundle_head(chain.id, r) for r in runs if isinstance(r, BundleName)]
        assert set(repo.loose_files(chain.id, "bodies")) == {ref.id for h in heads for ref in h.bodies}, step
        assert len(repo.chain_cuts(chain.id)) <= 1, step
        assert len(runs) <= 1 + FAN + FAN, (step, runs)


def test_killed_bundlers_side_by_side(tmp_path: Path) -> None:
    """Several at once, killed anywhere: each transaction is there once, whoever won."""
    made = scene(tmp_path / "made")
    for round_, step in enumerate((3, 9, 14, 20, 30)):
        folder = tmp_path / f"round-{round_}"
        shutil.copytree(tmp_path / "made", folder)
        prune = Prune(folder=folder, host_key=made.shelf.keys.host_key_text, last=2, fan=FAN)
        for running in [prune.start(s) for s in (0, step, step + 5)]:
            running.result()
        shelf = made.shelf.copy_at(LocalStorage(folder))
        check(shelf, made)
        for _ in range(2):
            code, told = replace(prune, age=4000).run(0)
            assert code == 0, told
        check(shelf, made, over=True)
        assert_tidy(shelf, made, step)
