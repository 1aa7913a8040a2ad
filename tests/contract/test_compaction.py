"""Packs of which little is needed, packed anew: what it frees, what it never harms, and who may be at work meanwhile."""

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.packed import Days, assert_states_open
from tests.support.shelf import Aged, Shelf, Through

from pgkura.core.errors import StoreError, UsageError, WrongKey
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.operations.copy import copy_snapshots
from pgkura.operations.prune import GRACE_SECONDS, PlannedPrune, PruneResult, execute_prune, plan_prune
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.local import LocalStorage
from pgkura.storage.memory import MemoryStorage

DAY = timedelta(days=1)


def plan(repo: Repository, *, last: int = 2, grace: int = GRACE_SECONDS, share: float | None = 0.8) -> PlannedPrune:
    """However little it frees."""
    return plan_prune(repo, Rules(last=last), grace=grace, repack_below=share, repack_least=1, progress=Silent())


def prune(repo: Repository, *, last: int = 2, grace: int = GRACE_SECONDS, share: float | None = 0.8) -> PruneResult:
    """The same, done."""
    return execute_prune(plan(repo, last=last, grace=grace, share=share), progress=Silent())


def stored(shelf: Shelf) -> int:
    """Bytes of data."""
    return sum(s.size for s in shelf.storage.list("data/"))


def whole(shelf: Shelf) -> None:
    """All snapshots give back what was put in; hosts can go on from each."""
    shelf.assert_whole()
    assert_states_open(shelf)


@pytest.mark.parametrize("seed", range(12))
def test_random_days(seed: int) -> None:
    """Some days pass, some snapshots go, packs are packed anew, the next day goes on: always whole, and smaller."""
    chance = random.Random(seed)
    aged = Aged(MemoryStorage())
    shelf = Shelf(aged)
    days = Days(shelf, chance, tables=chance.randrange(1, 6))
    ago = iter(DAY * n for n in range(99, 0, -1))
    saved = 0
    for _ in range(4):
        for _ in range(chance.randrange(2, 6)):
            days.next(ago=next(ago))
        last = chance.randrange(1, 4)
        aged.later(GRACE_SECONDS + 1)
        prune(shelf.host(), last=last, share=None)
        aged.later(GRACE_SECONDS + 1)
        prune(shelf.host(), last=last, share=None)
        before = stored(shelf)
        planned = plan(shelf.both(), last=last, share=chance.choice((0.5, 0.7, 1.0)))
        done = execute_prune(planned, progress=Silent())
        assert done.result is Result.OK, done.problems
        assert done.done.repacked.packs == planned.as_json()["repack"]["packs"]
        assert done.done.repacked.bytes_copied == planned.as_json()["repack"]["bytes_copied"]
        whole(shelf)
        aged.later(GRACE_SECONDS + 1)
        assert prune(shelf.both(), last=9, share=0).result is Result.OK
        after = stored(shelf)
        assert after < before if planned.compaction.packs else after == before
        saved += before - after
        days.next(ago=next(ago))
        whole(shelf)
    aged.later(GRACE_SECONDS + 1)
    for _ in range(4):
        prune(shelf.both(), last=1, grace=0)
        whole(shelf)
    assert saved > 0 and plan(shelf.both(), last=1).compaction.packs == ()
    assert shelf.check().orphans == 0 and shelf.files("tombstones/") == []
