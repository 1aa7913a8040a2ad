"""Packs of which little is needed, packed anew: what it frees, what it never harms, who may be at work meanwhile."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support import stores
from tests.support.packed import Days, assert_states_open
from tests.support.shelf import Aged, Shelf, Through

from pgkura.core.errors import PlanOutdated, StoreError, WrongKey
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.operations.copy import copy_snapshots
from pgkura.operations.prune import GRACE_SECONDS, PlannedPrune, PruneResult, execute_prune, plan_prune
from pgkura.repository.admin import Root
from pgkura.repository.packs import object_key
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.local import LocalStorage
from pgkura.storage.memory import MemoryStorage
from pgkura.storage.opening import open_storage

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


@pytest.fixture
def aged() -> Aged:
    """A store in which time passes when told."""
    return Aged(MemoryStorage())


@pytest.fixture
def days(aged: Aged) -> Days:
    """Six days, of which the last two are kept; the others' garbage is gone."""
    shelf = Shelf(aged)
    made = Days(shelf, random.Random(7))
    for day in range(6):
        made.next(ago=DAY * (9 - day))
    prune(shelf.host(), share=None)
    aged.later(GRACE_SECONDS + 1)
    prune(shelf.host(), share=None)
    return made


def test_two_phases(days: Days, aged: Aged) -> None:
    """The old packs stay for the grace time; what was planned is what is done and what is said; then they go."""
    shelf = days.shelf
    before = set(shelf.files("data/"))
    ids = shelf.host().manifest_ids()
    planned = plan(shelf.both())
    told = planned.as_json()["repack"]
    assert told["packs"] > 3 and told["bytes_freed"] > told["bytes_copied"] // 4 and told["snapshots"] == ids
    assert set(shelf.files("data/")) == before and shelf.host().manifest_ids() == ids
    done = execute_prune(planned, progress=Silent()).as_json()
    assert (done["packs_repacked"], done["bytes_copied"]) == (told["packs"], told["bytes_copied"])
    assert done["snapshots_repointed"] == len(ids) and done["objects_deleted"] == 0
    assert before < set(shelf.files("data/"))
    whole(shelf)
    assert shelf.host().manifest_ids() == ids
    size = stored(shelf)
    aged.later(GRACE_SECONDS + 1)
    assert prune(shelf.host(), share=None).as_json()["objects_deleted"] >= told["packs"]
    assert size - stored(shelf) >= told["bytes_freed"]
    whole(shelf)
    record = next(r for r in shelf.host().journal("prune") if r.body["packs_repacked"])
    assert record.body["bytes_copied"] == told["bytes_copied"]
    index = [ref for key in shelf.host().index_keys() for ref in shelf.host().index(key)]
    assert {ref.object.id for ref in index} == {k.rpartition("/")[2] for k in shelf.files("data/")}


def test_who_may(days: Days) -> None:
    """Both keys: done by default. One: told, and refused where it is asked for. None wanted: nothing is read."""
    shelf = days.shelf
    for repo in (shelf.host(), shelf.person()):
        planned = plan(repo, share=None)
        assert planned.compaction.packs == () and "identity" in planned.notes[0] and planned.problems == ()
        with pytest.raises(WrongKey, match="packing anew"):
            plan(repo, share=0.5)
    assert plan(shelf.both(), share=None).compaction.packs
    assert plan(shelf.both(), share=0).compaction.packs == () == plan(shelf.host(), share=0).notes
    little = plan_prune(shelf.both(), Rules(last=2), progress=Silent())
    assert little.compaction.packs == ()  # it would free less than a megabyte


class Meanwhile(Through):
    """Runs a step before the nth act of a kind on keys that begin so."""

    def __init__(self, storage: Aged, act: str, key: str, step: Callable[[], object], nth: int = 1) -> None:
        super().__init__(storage)
        self._when = (act, key)
        self._step: Callable[[], object] | None = step
        self._left = nth

    def before(self, act: str, key: str) -> None:
        """Once."""
        if self._step is not None and act == self._when[0] and key.startswith(self._when[1]):
            self._left -= 1
            if not self._left:
                step, self._step = self._step, None
                step()


# The writes of one run, and of one snapshot in it.
MOMENTS = [
    ("create", "data/", 1),
    ("create", "index/", 1),
    ("put", "references/", 1),
    ("put", "state/", 1),
    ("put", "snapshots/", 1),
    ("put", "references/", 2),
    ("put", "references/", 3),
    ("create", "tombstones/", 1),
    ("delete", "index/", 1),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: "-".join(map(str, m)))
@pytest.mark.parametrize("grace", [0, GRACE_SECONDS])
def test_a_backup_at_any_moment(moment: tuple[str, str, int], grace: int, days: Days, aged: Aged) -> None:
    """It began before (and names the old places) and ends in the midst: it is whole, and so is everything else.

    Without a grace time it may fail; it is no snapshot then.
    """
    shelf = days.shelf
    running = shelf.host()
    running.known("0" * 64)
    days.recall()

    def backup() -> None:
        days.next(repo=running)

    repo = Repository.open(
        Meanwhile(aged, moment[0], moment[1], backup, moment[2]), identity=shelf.keys.identity, host=shelf.keys.host
    )
    try:
        done = prune(repo, grace=grace)
        assert done.result is Result.OK, done.problems
    except PlanOutdated:
        assert grace == 0
    whole(shelf)
    days.recall()
    days.next()
    for _ in range(3):
        aged.later(GRACE_SECONDS + 3601)
        assert prune(shelf.both(), last=3).result is Result.OK
        whole(shelf)
    assert shelf.check().orphans == 0


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: "-".join(map(str, m)))
@pytest.mark.parametrize("share", [None, 0.9])
@pytest.mark.parametrize("grace", [0, GRACE_SECONDS])
def test_a_prune_at_any_moment(
    moment: tuple[str, str, int], share: float | None, grace: int, days: Days, aged: Aged
) -> None:
    """Another one, that removes a snapshot or packs anew too: no manifest without what it needs, no snapshot back."""
    shelf = days.shelf
    ids = shelf.host().manifest_ids()

    def other() -> None:
        prune(shelf.host() if share is None else shelf.both(), last=1, grace=grace, share=share)

    repo = Repository.open(
        Meanwhile(aged, moment[0], moment[1], other, moment[2]), identity=shelf.keys.identity, host=shelf.keys.host
    )
    done = prune(repo, grace=grace)
    assert all("not packed anew" in p and "meanwhile" in p for p in done.problems), done.problems
    whole(shelf)
    assert shelf.host().manifest_ids() == ids[1:]
    for _ in range(3):
        aged.later(GRACE_SECONDS + 3601)
        assert prune(shelf.both(), last=1).result is Result.OK
        whole(shelf)
    assert shelf.check().orphans == 0 and shelf.files("tombstones/") == []


def test_references_of_another_run_forbid_to_delete(days: Days, aged: Aged) -> None:
    """Two ran at once and one was killed: the manifest is one's, the references are the other's. Seen by every host."""
    shelf = days.shelf
    kept = {key: shelf.storage.get(key) for key in shelf.files("references/")}
    prune(shelf.both())
    for key, data in kept.items():
        shelf.storage.put(key, data)
    aged.later(GRACE_SECONDS + 1)
    before = shelf.files("data/")
    done = prune(shelf.host(), share=None)
    assert done.result is Result.INCOMPLETE and done.done.deleted == 0 == done.done.marked
    assert "does not name" in done.problems[0] and shelf.files("data/") == before
    whole_rows(shelf)
    assert prune(shelf.both(), share=0).result is Result.OK
    assert prune(shelf.host(), share=None).result is Result.OK
    whole(shelf)


def whole_rows(shelf: Shelf) -> None:
    """Rows only: records may be false."""
    repo = shelf.both()
    for manifest in repo.manifests():
        for table in repo.chunk_list(manifest):
            rows = b"".join(b"".join(repo.read_rows(layer)) for layer in table.layers)
            assert rows == shelf.contents[manifest.id][table.name]


def test_damage_is_left_where_it_is(days: Days, aged: Aged) -> None:
    """A damaged pack is named and not packed anew; the others are."""
    shelf = days.shelf
    planned = plan(shelf.both())
    bad = object_key(planned.compaction.packs[0].id)
    data = shelf.storage.get(bad)
    shelf.storage.put(bad, data[:-1] + bytes([data[-1] ^ 1]))
    done = execute_prune(planned, progress=Silent())
    assert done.result is Result.INCOMPLETE and bad in done.problems[0]
    assert done.done.repacked.packs == len(planned.compaction.packs) - 1
    shelf.storage.put(bad, data)
    whole(shelf)


class Forgetful(Through):
    """A store that gives back other bytes than it took, of new packs."""

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Cut short."""
        self.inner.create(key, data[:-1] if key.startswith("data/") else data, storage_class=storage_class)


def test_a_store_that_loses_bytes(days: Days, aged: Aged) -> None:
    """New packs are read back before anybody relies on them."""
    shelf = days.shelf
    repo = Repository.open(Forgetful(aged), identity=shelf.keys.identity, host=shelf.keys.host)
    with pytest.raises(StoreError, match="other bytes"):
        prune(repo)
    whole(shelf)


def test_what_is_locked_stays_as_it_is(days: Days, aged: Aged) -> None:
    """A snapshot with a lock, and every pack that it needs; told. When the lock is over, they follow."""
    shelf = days.shelf
    repo = shelf.both()
    newest = repo.manifests()[-1]
    locked = replace(newest, expires=f"{datetime.now(UTC) + DAY:%Y-%m-%dT%H:%M:%SZ}")
    shelf.storage.put(f"snapshots/{newest.id}", repo.seal_manifest(locked))
    needed = repo.references(newest.id)
    planned = plan(shelf.both())
    assert newest.id not in planned.compaction.snapshots and "locked until" in planned.notes[0]
    assert not any(p.id in needed for p in planned.compaction.packs)
    shelf.storage.put(f"snapshots/{newest.id}", repo.seal_manifest(newest))
    assert any(p.id in needed for p in plan(shelf.both()).compaction.packs)


def test_epochs_stay_apart(days: Days, aged: Aged) -> None:
    """What belongs to an older epoch is sealed to it again, and opens for nobody else."""
    shelf = days.shelf
    Root.open(shelf.storage, shelf.keys.identity).new_epoch()
    days.forget()
    for _ in range(2):
        days.next()
    done = prune(shelf.both(), last=9)
    assert done.result is Result.OK and done.done.repacked.packs > 3
    whole(shelf)
    assert [m.epoch for m in shelf.both().manifests()] == [1, 1, 2, 2]


def test_a_copy_follows(days: Days, aged: Aged, tmp_path: Path) -> None:
    """The next copy brings the new places; before, in between and after, the copy is whole and prunes itself."""
    shelf = days.shelf
    place = Aged(LocalStorage(tmp_path / "copy"))
    copy_snapshots(shelf.host(), place, (), everything=True, progress=Silent())
    second = shelf.copy_at(place)
    prune(shelf.both())
    done = copy_snapshots(shelf.host(), place, (), everything=True, progress=Silent())
    assert done.result is Result.OK and len(done.done.present) == 2
    assert all(place.get(k) == shelf.storage.get(k) for k in shelf.files() if k.startswith(("snapshots", "ref", "sta")))
    whole(second)
    place.later(GRACE_SECONDS + 1)
    prune(second.host(), share=None)
    place.later(GRACE_SECONDS + 1)
    assert prune(second.host(), share=None).done.deleted >= 0
    aged.later(GRACE_SECONDS + 1)
    prune(shelf.host(), share=None)
    assert second.files("data/") == shelf.files("data/")
    whole(second)


def test_on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own times, in whole seconds; everything within one or two."""
    server = stores.s3("moto")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    shelf = Shelf(open_storage(server.new_prefix()))
    days = Days(shelf, random.Random(5), tables=2)
    for day in range(4):
        days.next(ago=DAY * (9 - day))
    size = stored(shelf)
    done = prune(shelf.both(), grace=0)
    assert done.result is Result.OK and done.done.repacked.packs and stored(shelf) < size
    whole(shelf)
    days.next()
    assert prune(shelf.both(), grace=0).result is Result.OK
    whole(shelf)
