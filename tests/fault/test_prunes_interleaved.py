"""A prune that stands still before any one of its reads, writes and deletes while another runs from end to end."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.fault.test_killed_bundling import FAN, check, scene
from tests.support.shelf import Aged

from pgkura.changes import spans
from pgkura.core.errors import PgkuraError
from pgkura.core.progress import Silent
from pgkura.operations.prune import execute_prune, plan_prune
from pgkura.repository.keys import NewKeys
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.base import Storage
from pgkura.storage.local import LocalStorage


class Held(Aged):
    """Calls `meanwhile` before its nth act of any kind."""

    acts = 0
    at = 0

    def __init__(self, storage: Storage, meanwhile: Callable[[], None]) -> None:
        super().__init__(storage, seconds=0)
        self.meanwhile = meanwhile

    def before(self, act: str, key: str) -> None:
        """Count."""
        super().before(act, key)
        self.acts += 1
        if self.acts == self.at:
            self.meanwhile()


def prune(store: Storage, keys: NewKeys) -> None:
    """Whole, without a grace time: the hardest case."""
    repo = Repository.open(store, host=keys.host)
    planned = plan_prune(repo, Rules(last=2), grace=0, progress=Silent())
    execute_prune(planned, progress=Silent())


@pytest.mark.timeout(900)
def test_another_prune_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a kept snapshot needs is lost, and whoever cannot go on says so in words of ours."""
    monkeypatch.setitem(spans.plan_bundles.__kwdefaults__ or {}, "fan", FAN)
    made = scene(tmp_path / "made")
    keys = made.shelf.keys
    shutil.copytree(tmp_path / "made", tmp_path / "alone")
    alone = Held(LocalStorage(tmp_path / "alone"), lambda: None)
    prune(alone, keys)
    assert alone.acts > 120
    for at in range(1, alone.acts + 1):
        folder = tmp_path / f"at-{at}"
        shutil.copytree(tmp_path / "made", folder)
        store = Held(LocalStorage(folder), partial(prune, LocalStorage(folder), keys))
        store.at = at
        try:
            prune(store, keys)
        except PgkuraError as error:
            assert error.hint, (at, error)
        shelf = made.shelf.copy_at(LocalStorage(folder))
        check(shelf, made)
        prune(LocalStorage(folder), keys)
        check(shelf, made)
        shutil.rmtree(folder)
