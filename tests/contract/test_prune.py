"""`prune` on a store without a database: what goes, what stays, when, and what is said."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import stores
from tests.support.shelf import Aged, Shelf, Through

from pgkura.core.errors import PlanOutdated, StoreError, UsageError, WrongKey
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.operations.prune import GRACE_SECONDS, PlannedPrune, PruneResult, execute_prune, plan_prune
from pgkura.repository.packs import object_key
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.local import LocalStorage
from pgkura.storage.memory import MemoryStorage
from pgkura.storage.opening import open_storage

DAY = timedelta(days=1)


def plan(repo: Repository, *, last: int = 1, grace: int = GRACE_SECONDS, single_writer: bool = False) -> PlannedPrune:
    """Keep the newest."""
    return plan_prune(repo, Rules(last=last), grace=grace, single_writer=single_writer, progress=Silent())


def prune(repo: Repository, *, last: int = 1, grace: int = GRACE_SECONDS, single_writer: bool = False) -> PruneResult:
    """The same, done."""
    return execute_prune(plan(repo, last=last, grace=grace, single_writer=single_writer), progress=Silent())


def three_days(shelf: Shelf) -> list[str]:
    """Three snapshots: one table stays, one changes each day."""
    return [shelf.add({"same": b"1\n" * 50, "moving": b"day %d\n" % day}, ago=DAY * (3 - day)) for day in range(3)]


@pytest.fixture
def aged(tmp_path: Path) -> Aged:
    """A folder in which time passes when told."""
    return Aged(LocalStorage(tmp_path / "store"))


@pytest.fixture
def shelf(aged: Aged) -> Shelf:
    """A repository there."""
    return Shelf(aged)


@pytest.fixture(params=["host", "person"])
def opened(request: pytest.FixtureRequest, shelf: Shelf) -> Callable[[], Repository]:
    """Either key is enough."""
    return shelf.host if request.param == "host" else shelf.person


def test_two_phases(shelf: Shelf, aged: Aged, opened: Callable[[], Repository]) -> None:
    """First manifests go and data waits; after the grace time the data goes; what is shared stays."""
    ids = three_days(shelf)
    before = len(shelf.files("data/"))
    first = prune(opened())
    assert first.result is Result.OK and first.done.snapshots == ids[:2]
    assert first.done.deleted == 0 and first.done.marked == 3  # two `moving`, one pack of components
    assert len(shelf.files("data/")) == before
    assert shelf.files("snapshots/") == [f"snapshots/{ids[2]}"]
    assert shelf.files("references/") == [f"references/{ids[2]}"]
    shelf.assert_whole()
    again = prune(opened())
    assert (again.done.snapshots, again.done.marked, again.done.deleted) == ([], 0, 0)
    aged.later(GRACE_SECONDS + 1)
    last = prune(opened())
    assert last.result is Result.OK and last.done.deleted == 3 and last.done.bytes_deleted > 0
    assert len(shelf.files("data/")) == before - 3 and shelf.files("tombstones/") == []
    shelf.assert_whole()
    kinds = [r.kind for r in shelf.host().journal("prune")]
    assert len(kinds) == 3


def test_dry_run_touches_nothing_and_tells_the_truth(shelf: Shelf) -> None:
    """The plan's figures are those of the run."""
    three_days(shelf)
    before = shelf.files()
    planned = plan(shelf.host(), grace=0)
    assert shelf.files() == before
    told = planned.as_json()
    done = execute_prune(planned, progress=Silent())
    assert told["result"] == "planned" and [r["snapshot"] for r in told["removed"]] == done.done.snapshots
    assert (told["objects_to_delete"], told["bytes_freed"]) == (done.done.deleted, done.done.bytes_deleted) != (0, 0)
    assert ["newest" in k["why"] for k in told["kept"]] == [True]


def test_marked_data_is_not_reused_and_stored_again(shelf: Shelf, aged: Aged) -> None:
    """A backup after the tombstone stores anew what waits to be deleted."""
    ids = three_days(shelf)
    prune(shelf.host())
    back = shelf.add({"moving": b"day 0\n"})
    aged.later(GRACE_SECONDS + 1)
    done = prune(shelf.host(), last=5)
    assert done.done.deleted == 3 and done.done.spared == 0
    assert [m.id for m in shelf.host().manifests()] == [ids[2], back]
    shelf.assert_whole()


def test_a_backup_begun_before_the_tombstone_keeps_its_data(shelf: Shelf, aged: Aged) -> None:
    """Its index was read before; its claim spares what it reuses."""
    three_days(shelf)
    running = shelf.host()
    assert running.known("0" * 64) is None  # the index is in its memory now
    prune(shelf.host())
    shelf.add({"moving": b"day 0\n"}, repo=running)
    aged.later(GRACE_SECONDS + 1)
    done = prune(shelf.host(), last=5)
    assert done.result is Result.OK and done.done.deleted == 2
    shelf.assert_whole()
    assert shelf.files("tombstones/") == []


def test_a_backup_that_outlived_the_grace_time_is_no_snapshot(shelf: Shelf, aged: Aged) -> None:
    """What it reuses is gone: a clear error, and nothing that looks like a snapshot."""
    three_days(shelf)
    running = shelf.host()
    running.known("0" * 64)
    prune(shelf.host())
    aged.later(GRACE_SECONDS + 1)
    prune(shelf.host())
    before = shelf.files("snapshots/")
    with pytest.raises(PlanOutdated, match="no longer in the store"):
        shelf.add({"moving": b"day 0\n"}, repo=running)
    assert shelf.files("snapshots/") == before
    shelf.assert_whole()


class Meanwhile(Through):
    """Runs a step before the first act of a kind on keys that begin so."""

    def __init__(self, storage: Aged, act: str, key: str, step: Callable[[], None]) -> None:
        super().__init__(storage)
        self._when = (act, key)
        self._step: Callable[[], None] | None = step

    def before(self, act: str, key: str) -> None:
        """Once."""
        if self._step is not None and act == self._when[0] and key.startswith(self._when[1]):
            step, self._step = self._step, None
            step()


def test_a_backup_that_needs_condemned_data_is_no_snapshot(shelf: Shelf, aged: Aged) -> None:
    """Exactly while a prune deletes: the backup that comes second sees it."""
    three_days(shelf)
    running = shelf.host()
    running.known("0" * 64)
    prune(shelf.host())
    aged.later(GRACE_SECONDS + 1)
    failed = []

    def back_up() -> None:
        with pytest.raises(PlanOutdated, match="prune is deleting"):
            shelf.add({"moving": b"day 0\n"}, repo=running)
        failed.append(True)

    done = prune(Repository.open(Meanwhile(aged, "delete", "data/", back_up), host=shelf.keys.host))
    assert failed == [True] and done.done.deleted == 3
    shelf.assert_whole()


def test_a_claim_made_before_the_data_is_condemned_wins(shelf: Shelf, aged: Aged) -> None:
    """The prune that comes second sees the claim and spares the data, though there is no manifest yet."""
    three_days(shelf)
    running = shelf.host()
    running.known("0" * 64)
    prune(shelf.host())
    aged.later(GRACE_SECONDS + 1)
    done = []

    def sweep() -> None:
        done.append(prune(shelf.host(), last=5))

    slow = Repository.open(Meanwhile(aged, "create", "snapshots/", sweep), host=shelf.keys.host)
    slow._index = running._index
    shelf.add({"moving": b"day 0\n"}, repo=slow)
    assert [d.done.deleted for d in done] == [2]
    shelf.assert_whole()


def test_a_writer_that_stood_still_for_days_is_no_snapshot(shelf: Shelf, aged: Aged) -> None:
    """Its claim was taken for an abandoned one between its last look and its manifest."""
    three_days(shelf)

    def days_pass() -> None:
        aged.later(GRACE_SECONDS + 1)
        prune(shelf.host(), grace=0)

    slow = Repository.open(Meanwhile(aged, "create", "snapshots/", days_pass), host=shelf.keys.host)
    with pytest.raises(PlanOutdated, match="overtaken"):
        shelf.add({"moving": b"new\n"}, repo=slow)
    assert len(shelf.files("snapshots/")) == 1
    shelf.assert_whole()


def test_orphans_of_killed_backups_go_after_the_grace_time(shelf: Shelf, aged: Aged) -> None:
    """Objects that no list names: too young first, then marked, then gone."""
    shelf.add({"t": b"1\n"})
    writer = shelf.host().pack_writer()
    writer.begin(1)
    writer.write(b"half a backup\n")
    writer.end(1)
    writer.flush()
    ((_, ref, _),) = writer.drain()
    planned = plan(shelf.host())
    assert planned.as_json()["bytes_too_young"] == ref.object.cipher_bytes and not planned.needs_confirmation
    aged.later(GRACE_SECONDS + 1)
    assert prune(shelf.host()).done.marked == 1
    aged.later(GRACE_SECONDS + 1)
    assert prune(shelf.host()).done.deleted == 1
    assert object_key(ref.object.id) not in shelf.files()
    shelf.assert_whole()


def test_the_index_loses_the_dead_and_keeps_the_living(shelf: Shelf, aged: Aged) -> None:
    """Whatever is still needed is found by its MAC; what is gone is in no index file."""
    ids = three_days(shelf)
    prune(shelf.host(), grace=0)
    repo = shelf.both()
    needed = repo.references(ids[2])
    named = {ref.object.id for key in repo.index_keys() for ref in repo.index(key)}
    assert named == set(needed)
    for table in repo.chunk_list(repo.manifest(ids[2])):
        assert all(repo.known(ref.mac) is not None for ref in table.refs())
    assert shelf.check().orphans == 0


def test_databases_are_judged_apart(shelf: Shelf) -> None:
    """One of each stays, and the newest complete one."""
    ids = [
        shelf.add({"t": b"%d\n" % n}, ago=DAY * (9 - n), database="ab"[n % 2], result="ok" if n < 6 else "incomplete")
        for n in range(8)
    ]
    assert prune(shelf.host()).done.snapshots == ids[:4]
    shelf.assert_whole()


def test_the_newest_proven_stays(shelf: Shelf) -> None:
    """A proof that was equal; one that was not does not count."""
    ids = three_days(shelf)
    shelf.host().append_journal("proof", {"snapshot": ids[0], "equal": True})
    shelf.host().append_journal("proof", {"snapshot": ids[1], "equal": False})
    assert prune(shelf.host()).done.snapshots == [ids[1]]


def test_a_damaged_proof_is_named(shelf: Shelf) -> None:
    """It does not count, and the result is not green."""
    three_days(shelf)
    shelf.storage.put("journal/root-00000001-proof", b"junk")
    done = prune(shelf.host())
    assert done.result is Result.INCOMPLETE and any("root-00000001-proof" in p for p in done.problems)


def test_snapshots_of_the_future_stay(shelf: Shelf) -> None:
    """A clock that ran ahead: kept and named, and not counted as the newest."""
    ids = three_days(shelf)
    ahead = shelf.add({"t": b"1\n"}, ago=-DAY)
    planned = plan(shelf.host())
    told = {v.id: v.reasons for v in planned.verdicts}
    assert told[ahead] == ("dated in the future",) and "newest" in told[ids[2]]
    assert execute_prune(planned, progress=Silent()).done.snapshots == ids[:2]


@pytest.mark.parametrize("which", ["snapshots", "references"])
def test_what_does_not_open_blocks(which: str, shelf: Shelf, aged: Aged) -> None:
    """Nobody knows what it needs: no object goes, it is named, exit 3; the file itself is never touched."""
    ids = three_days(shelf)
    shelf.storage.put(f"{which}/{ids[2]}", b"damaged")
    before = shelf.files("data/")
    aged.later(GRACE_SECONDS + 1)
    done = prune(shelf.host(), grace=0)
    assert done.result is Result.INCOMPLETE and any(f"{which}/{ids[2]}" in p for p in done.problems)
    assert done.done.deleted == 0 and shelf.files("data/") == before
    assert shelf.storage.get(f"{which}/{ids[2]}") == b"damaged"
    if which == "references":  # the identity can read what the snapshot needs, and both keys write it again
        healed = prune(shelf.both(), grace=0)
        assert healed.result is Result.OK and healed.done.deleted > 0
        shelf.assert_whole()


def test_old_snapshots_need_the_identity_once(shelf: Shelf) -> None:
    """Without references files: refused with a host key, computed with the identity, written with both."""
    ids = three_days(shelf)
    for key in shelf.files("references/"):
        shelf.storage.delete(key)
    with pytest.raises(WrongKey, match="identity alone"):
        prune(shelf.host())
    assert plan(shelf.person()).removed == tuple(ids[:2])
    assert prune(shelf.both(), grace=0).result is Result.OK
    assert shelf.files("references/") == [f"references/{ids[2]}"]
    shelf.assert_whole()
    assert prune(shelf.host()).result is Result.OK


class Locked(Through):
    """A store that deletes nothing below these prefixes, as a bucket under Object Lock."""

    def __init__(self, storage: Aged, *prefixes: str) -> None:
        super().__init__(storage)
        self.prefixes = prefixes

    def before(self, act: str, key: str) -> None:
        """Refuse."""
        if act == "delete" and key.startswith(self.prefixes):
            raise StoreError(f"cannot use {key}", detail="the credentials may not do this")


@pytest.mark.parametrize("prefix", ["snapshots/", "references/", "index/", "data/", "tombstones/"])
def test_refused_deletes_are_named(prefix: str, shelf: Shelf, aged: Aged) -> None:
    """Incomplete, everything still whole; when the lock is over, the next runs finish."""
    ids = three_days(shelf)
    locked = Locked(aged, prefix)
    repo = Repository.open(locked, host=shelf.keys.host)
    done = prune(repo, grace=0)
    assert done.result is Result.INCOMPLETE
    assert done.as_json()["refused"] > 0 and any(f"{prefix}" in p and "may not" in p for p in done.problems)
    shelf.assert_whole()
    count = len(shelf.files("index/"))
    prune(repo, grace=0)
    assert len(shelf.files("index/")) == count
    locked.prefixes = ("nothing",)
    aged.later(4000)
    prune(repo, grace=0)
    assert prune(repo, grace=0).result is Result.OK
    assert shelf.files("snapshots/") == [f"snapshots/{ids[2]}"] and shelf.files("tombstones/") == []
    assert shelf.check().orphans == 0
    shelf.assert_whole()


def test_the_world_moved_on(shelf: Shelf) -> None:
    """Another prune was faster; a new snapshot does not matter."""
    three_days(shelf)
    planned = plan(shelf.host())
    shelf.add({"t": b"new\n"})
    prune(shelf.host(), last=2)
    with pytest.raises(PlanOutdated, match="vanished"):
        execute_prune(planned, progress=Silent())


def test_a_snapshot_made_between_plan_and_execution(shelf: Shelf) -> None:
    """It is not in the plan, and loses nothing by it."""
    three_days(shelf)
    planned = plan(shelf.host(), grace=0)
    shelf.add({"moving": b"day 0\n", "same": b"1\n" * 50})
    execute_prune(planned, progress=Silent())
    assert len(shelf.files("snapshots/")) == 2
    shelf.assert_whole()


def test_no_rule_and_no_conditional_create(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage errors; --single-writer waives the second."""
    with pytest.raises(UsageError, match="no rule"):
        plan_prune(Shelf(MemoryStorage()).host(), Rules(), progress=Silent())
    server = stores.s3("rclone")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    shelf = Shelf(open_storage(server.new_prefix()))
    three_days(shelf)
    with pytest.raises(UsageError, match="two writers"):
        plan(shelf.host())
    assert prune(shelf.host(), grace=0, single_writer=True).done.deleted == 3
    shelf.assert_whole()


def test_on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own times, in whole seconds."""
    server = stores.s3("moto")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    shelf = Shelf(open_storage(server.new_prefix()))
    ids = three_days(shelf)
    assert prune(shelf.host(), grace=0).done.deleted == 3
    assert shelf.files("snapshots/") == [f"snapshots/{ids[2]}"]
    shelf.assert_whole()


def test_a_false_references_file_is_named(shelf: Shelf) -> None:
    """Well signed (by a thief of the host key), yet it leaves out what the snapshot needs: the identity sees it."""
    ids = three_days(shelf)
    repo = shelf.host()
    true = repo.references(ids[2])
    false = dict(list(true.items())[1:])
    shelf.storage.put(f"references/{ids[2]}", repo.seal_references(ids[2], false))
    problems = [str(p) for p in shelf.check().problems]
    assert len(problems) == 1 and f"references/{ids[2]}" in problems[0] and "does not name" in problems[0]
