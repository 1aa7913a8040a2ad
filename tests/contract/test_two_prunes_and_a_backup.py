"""Two prunes and a backup that tries again, interleaved by hand: what is being deleted stays marked till it is gone."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.test_prune import Locked, Meanwhile, prune
from tests.support.shelf import Aged, Shelf

from pgkura.core.errors import DataGone
from pgkura.core.refs import ChunkRef
from pgkura.repository.doomed import DEAD_AFTER
from pgkura.repository.packs import object_key
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage

ROWS = b"read by a backup that takes longer than the grace time\n"


class Slow:
    """A backup of which one object lies in the store already; it goes on as `back_up` does."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._repo = shelf.host()
        self._repo.known("0" * 64)  # the index is in its memory now
        writer = self._repo.pack_writer()
        writer.begin("slow")
        writer.write(ROWS)
        writer.end(1)
        writer.flush()
        ((_, ref, _),) = writer.drain()
        self.stored: ChunkRef = ref

    def is_refused(self) -> None:
        """It writes its index and its claim, and sees that a prune deletes what it needs."""
        self._repo.store_index([self.stored])
        with pytest.raises(DataGone):
            self._shelf.add({"slow": ROWS}, repo=self._repo)

    def tries_again(self) -> None:
        """At once, by what lies in the store now."""
        self._repo.look_again()
        self._shelf.add({"slow": ROWS}, repo=self._repo)


@pytest.fixture
def aged(tmp_path: Path) -> Aged:
    """A folder in which time passes when told."""
    return Aged(LocalStorage(tmp_path / "store"))


@pytest.fixture
def shelf(aged: Aged) -> Shelf:
    """A repository there, with a snapshot."""
    made = Shelf(aged)
    made.add({"t": b"1\n"}, ago=timedelta(days=1))
    return made


def opened(shelf: Shelf, aged: Aged, act: str, key: str, step: Callable[[], None]) -> Repository:
    """For a prune during which something happens."""
    return Repository.open(Meanwhile(aged, act, key, step), host=shelf.keys.host)


def test_the_other_prune_is_still_deleting(shelf: Shelf, aged: Aged) -> None:
    """A spared object of which another prune has written that it deletes it: what it wrote stays."""
    backup = Slow(shelf)

    def meanwhile() -> None:
        # Between the second prune's two looks the backup claims what the first one is about to delete.
        done = prune(opened(shelf, aged, "create", "tombstones/", backup.is_refused), last=5, grace=0)
        assert done.done.spared == 1 and done.done.deleted == 0
        backup.tries_again()

    first = prune(opened(shelf, aged, "delete", "data/", meanwhile), last=5, grace=0)
    assert first.done.deleted == 1 and object_key(backup.stored.object.id) not in shelf.files()
    assert len(shelf.files("snapshots/")) == 2
    shelf.assert_whole()
    assert shelf.files("tombstones/") == []


def test_the_store_refused_the_second_prune(shelf: Shelf, aged: Aged) -> None:
    """What the second one could not delete may be deleted by the first one yet."""
    backup = Slow(shelf)

    def meanwhile() -> None:
        done = prune(Repository.open(Locked(aged, "data/"), host=shelf.keys.host), last=5, grace=0)
        assert len(done.done.refused) == 1
        backup.is_refused()
        backup.tries_again()

    first = prune(opened(shelf, aged, "delete", "data/", meanwhile), last=5, grace=0)
    assert first.done.deleted == 1
    shelf.assert_whole()


def test_what_a_killed_prune_left(shelf: Shelf, aged: Aged) -> None:
    """Its tombstone goes once its objects are gone; where one is needed, once that prune is surely dead."""
    backup = Slow(shelf)

    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(opened(shelf, aged, "delete", "data/", killed), last=5, grace=0)
    backup.is_refused()
    backup.tries_again()
    prune(shelf.host(), last=5, grace=0)
    assert len(shelf.files("tombstones/")) == 1  # the claim that was refused needs the object yet
    aged.later(DEAD_AFTER + 1)
    prune(shelf.host(), last=5, grace=0)
    prune(shelf.host(), last=5, grace=0)
    assert shelf.files("tombstones/") == [] and shelf.check().orphans == 0
    shelf.assert_whole()
