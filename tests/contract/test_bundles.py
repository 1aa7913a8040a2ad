"""Bundles on stores without a database: the same messages, in fewer files, whoever else was at work."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support import stores
from tests.support.chains import Made, numbers, the_log
from tests.support.shelf import Shelf, Through

from pgkura.changes.bundling import BODY_BYTES, Bundled, Bundler, bundle_groups, can_delete, groups_of
from pgkura.changes.chains import last_record
from pgkura.changes.searching import Question, search
from pgkura.changes.spans import replaced
from pgkura.core.errors import StoreError, Tampered, WrongKey
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.replay.moments import parse_moment, time_text
from pgkura.replay.resolving import resolve
from pgkura.repository.admin import Root
from pgkura.repository.bundles import BundleName, Entry
from pgkura.repository.keys import HostKey
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyNotFound, Storage, read_range
from pgkura.storage.local import LocalStorage
from pgkura.storage.memory import MemoryStorage
from pgkura.storage.opening import open_storage


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A repository in a folder."""
    return Shelf(LocalStorage(tmp_path / "store"))


def bundle(repo: Repository, chain: str, *, ended: bool = False, fan: int = 4) -> Bundled:
    """All that can be."""
    return bundle_groups(repo, chain, groups_of(repo, chain, ended=ended, fan=fan), Silent(), Stop())


def remove_loose(shelf: Shelf) -> None:
    """As a prune would once the grace time is over."""
    repo = shelf.host()
    for chain in repo.chain_ids():
        runs = repo.runs(chain)
        for run in replaced(runs, [r for r in runs if isinstance(r, BundleName)]):
            shelf.storage.delete(run.key(chain))


def test_the_same_messages_from_fewer_files(shelf: Shelf) -> None:
    """By a host that cannot read them; with the segments still there, and without; then larger ones of these."""
    made = Made(shelf.host(), part=7)
    made.add(30)
    with pytest.raises(WrongKey):
        numbers(the_log(shelf.host(), made.id))
    done = bundle(shelf.host(), made.id)
    assert (done.bundles, done.segments, done.left) == (1 + 3, 28, {})
    for remove in (False, True):
        if remove:
            remove_loose(shelf)
            made.add(1)
        log = the_log(shelf.both(), made.id)
        assert numbers(log) == list(range(1, made.done + 1))
        assert len(log.names) == made.done and len(log.names.runs) <= 6 + made.done - 30
        assert [log.at(p).first_time for p in range(len(log.names))] == [made.time(n + 1) for n in range(made.done)]
        names = [n for n in the_log(shelf.both(), made.id).names if n.end <= made.segments[27].end]
        assert names == made.segments[:28]


def test_a_moment_is_found_by_halving(shelf: Shelf) -> None:
    """Few files are opened: of hundreds of segments a handful of bundles, and one short piece of a body."""
    made = Made(shelf.both())
    made.add(320)
    bundle(shelf.host(), made.id, fan=4)
    bundle(shelf.host(), made.id, fan=4)
    remove_loose(shelf)
    counted = Counted(shelf.storage)
    repo = Repository.open(counted, identity=shelf.keys.identity, host=shelf.keys.host)
    log = the_log(repo, made.id)
    counted.gets.clear()
    until = resolve(repo, log, parse_moment(time_text(made.time(123))))
    assert log.names[until.place] == made.segments[123] and until.last < made.segments[123].end
    bundles = [k for k in counted.gets if "/bundles/" in k]
    assert len(bundles) <= 8, counted.gets
    assert not [k for k in counted.gets if "/segments/" in k]
    first = list(counted.gets)
    assert [n for n in numbers(log) if n <= 123] == list(range(1, 124))
    bodies = [k for k in counted.gets[len(first) :] if "/bodies/" in k]
    assert len(bodies) <= 2 * 20


def test_a_search_passes_bundles_over(shelf: Shelf) -> None:
    """By their short record: times and tables."""
    made = Made(shelf.both())
    made.add(64)
    bundle(shelf.host(), made.id, fan=4)
    remove_loose(shelf)
    counted = Counted(shelf.storage)
    repo = Repository.open(counted, identity=shelf.keys.identity, host=shelf.keys.host)
    log = the_log(repo, made.id)
    assert len(log.names.runs) == 4
    assert log.size(0, 63) == sum(log.at(p).bytes for p in range(64))
    assert log.size(3, 40) == sum(log.at(p).bytes for p in range(3, 41))
    asked = Question(table="ledger", since=made.time(20), until=made.time(21))
    counted.gets.clear()
    assert [f.xid for f in search(log, asked, keep_events=1)] == [1020, 1021]
    assert len([k for k in counted.gets if "/bodies/" in k]) <= 2
    assert list(search(log, Question(table="other"), keep_events=1)) == []
    assert len(list(search(log, Question(), keep_events=0))) == 64


class Counted(Through):
    """Keys that are read."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.gets: list[str] = []

    def before(self, act: str, key: str) -> None:
        """Count."""
        if act == "get":
            self.gets.append(key)


def test_a_watcher_goes_on_behind_a_bundle(shelf: Shelf) -> None:
    """What it asks of the newest segment is in the bundle's record."""
    made = Made(shelf.both())
    made.add(8)
    bundle(shelf.host(), made.id)
    remove_loose(shelf)
    runs = shelf.host().runs(made.id)
    assert all(isinstance(r, BundleName) for r in runs)
    record = last_record(shelf.host(), made.id, max(runs, key=lambda r: r.end))
    assert (record["top_xid"], record["end"]) == (1008, f"0/{made.position:X}")
    made.add(1)
    assert numbers(the_log(shelf.both(), made.id)) == list(range(1, 10))


def test_two_at_once(shelf: Shelf) -> None:
    """Both end well, bodies that lost their race are taken back, everything is read once."""
    made = Made(shelf.both())
    made.add(40)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: bundle(shelf.host(), made.id), range(4)))
    assert all(not d.left for d in done) and sum(d.bundles for d in done) >= 4
    remove_loose(shelf)
    log = the_log(shelf.both(), made.id)
    assert numbers(log) == list(range(1, 41))
    repo = shelf.host()
    named = {b.id for r in repo.runs(made.id) if isinstance(r, BundleName) for b in repo.bundle_head(made.id, r).bodies}
    assert set(repo.loose_files(made.id, "bodies")) == named


def test_two_that_cut_elsewhere(shelf: Shelf) -> None:
    """Bundles that overlap in part: each transaction counts once."""
    made = Made(shelf.both())
    made.add(22)
    repo = shelf.host()
    for a, b in ((0, 9), (5, 14), (5, 8), (13, 22)):
        entries = [repo_entry(repo, made, n) for n in range(a, b)]
        repo.put_bundle(made.id, entries, ())
    remove_loose(shelf)
    log = the_log(shelf.both(), made.id)
    assert numbers(log) == list(range(1, 23)) and len(log.names.runs) == 3
    for fan in (2, 3):
        bundle(shelf.host(), made.id, ended=True, fan=fan)
        assert numbers(the_log(shelf.both(), made.id)) == list(range(1, 23))


def repo_entry(repo: Repository, made: Made, n: int) -> Entry:
    """A segment in a body of its own."""
    record, sealed = repo.segment(made.id, made.segments[n])
    return Entry.of(made.segments[n], record, sealed).placed(repo.put_body(made.id, [sealed]), 0)


def test_large_bodies_are_not_written_again(shelf: Shelf) -> None:
    """A larger bundle names the bodies of the smaller ones, once these are large enough."""
    made = Made(shelf.both(), noise=BODY_BYTES // 3)
    made.add(4)
    bundle(shelf.host(), made.id, fan=2)
    before = shelf.host().loose_files(made.id, "bodies")
    bundle(shelf.host(), made.id, ended=True, fan=3)
    (large,) = the_log(shelf.host(), made.id).names.runs
    assert isinstance(large, BundleName) and large.count == 4
    assert {b.id for b in shelf.host().bundle_head(made.id, large).bodies} == set(before)
    assert set(shelf.host().loose_files(made.id, "bodies")) == set(before)
    remove_loose(shelf)
    assert numbers(the_log(shelf.both(), made.id)) == [1, 2, 3, 4]


def test_a_damaged_segment_stays_out(shelf: Shelf) -> None:
    """Its group is left as it is, by name; the others are made."""
    made = Made(shelf.both())
    made.add(12)
    key = made.segments[5].key(made.id)
    data = bytearray(shelf.storage.get(key))
    data[-1] ^= 1
    shelf.storage.put(key, bytes(data))
    done = bundle(shelf.host(), made.id, fan=4)
    assert done.bundles == 2 and list(done.left) == [made.segments[4].key(made.id)]
    assert "damaged or forged" in done.left[made.segments[4].key(made.id)]


@pytest.mark.parametrize("what", ["move", "name", "flip", "host"])
def test_a_bundle_that_is_not_ours(what: str, shelf: Shelf) -> None:
    """Moved, renamed, flipped, of another host's hand: refused before anything of it is used."""
    made, other = Made(shelf.both()), Made(shelf.both(), at=datetime(2026, 11, 2, tzinfo=UTC))
    for chain in (made, other):
        chain.add(8)
        bundle(shelf.host(), chain.id, fan=4)
    (name, _) = [r for r in shelf.host().runs(made.id) if isinstance(r, BundleName)]
    key = name.key(made.id)
    data = shelf.storage.get(key)
    if what == "move":
        shelf.storage.put(name.key(other.id), data)
        key = name.key(other.id)
    elif what == "name":
        shelf.storage.delete(key)
        name = BundleName(start=name.start, end=made.segments[-1].end, count=8)
        key = name.key(made.id)
        shelf.storage.put(key, data)
    else:
        place = data.index(b"\n") + 1 if what == "host" else len(data) // 2
        shelf.storage.put(key, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(Tampered, match=key):
        shelf.host().bundle(key.split("/")[1], name)


def test_a_damaged_body(shelf: Shelf) -> None:
    """One flipped bit is told by name, in a first look and in the whole."""
    made = Made(shelf.both())
    made.add(4)
    bundle(shelf.host(), made.id, fan=2)
    bundle(shelf.host(), made.id, fan=2, ended=True)
    remove_loose(shelf)
    for key in [k for k in shelf.files("changes/") if "/bodies/" in k]:
        data = shelf.storage.get(key)
        shelf.storage.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Tampered, match="bodies/"):
        numbers(the_log(shelf.both(), made.id))


def test_the_word_of_a_revoked_host(shelf: Shelf) -> None:
    """A bundle passes on what its segments' host wrote: it falls with that host, unless it was there in good time."""
    root = Root.open(shelf.storage, shelf.keys.identity)
    second: list[HostKey] = []
    root.add_host("second", second.append)
    watcher = Repository.open(shelf.storage, host=second[0])
    made = Made(watcher)
    made.add(8)
    bundle(shelf.host(), made.id, fan=4)
    (one, *_) = [r for r in shelf.host().runs(made.id) if isinstance(r, BundleName)]
    assert shelf.host().bundle_head(made.id, one).hosts == (watcher.host_id,)
    Root.open(shelf.storage, shelf.keys.identity).revoke(watcher.host_id, since=datetime.now(UTC) + timedelta(hours=1))
    remove_loose(shelf)
    assert numbers(the_log(shelf.both(), made.id)) == list(range(1, 9))
    # Made after the revocation of what counts: the word of its own writer.
    done = bundle(shelf.host(), made.id, ended=True, fan=3)
    assert done.bundles == 1
    (whole,) = the_log(shelf.both(), made.id).names.runs
    assert isinstance(whole, BundleName) and shelf.host().bundle_head(made.id, whole).hosts == ()


def test_lies_of_a_revoked_host(shelf: Shelf) -> None:
    """What it wrote after the break-in counts for nothing, also where an honest host had bundled it."""
    root = Root.open(shelf.storage, shelf.keys.identity)
    second: list[HostKey] = []
    root.add_host("second", second.append)
    watcher = Repository.open(shelf.storage, host=second[0])
    made = Made(watcher)
    made.add(8)
    bundle(shelf.host(), made.id, fan=4)
    Root.open(shelf.storage, shelf.keys.identity).revoke(watcher.host_id, since=datetime(2020, 1, 1, tzinfo=UTC))
    repo = shelf.both()
    assert repo.chain_ids() == [] and repo.runs(made.id) == []
    with pytest.raises(Tampered, match="revoked"):
        repo.bundle(made.id, BundleName(start=made.segments[0].start, end=made.segments[3].end, count=4))
    assert any("/bundles/" in w for w in repo.warnings)


class NoDelete(Through):
    """A host's store under the policies."""

    def delete(self, key: str) -> None:
        """Refused."""
        raise StoreError("denied")


def test_who_may_not_delete_leaves_it_to_prune(shelf: Shelf) -> None:
    """Unless told otherwise."""
    assert can_delete(shelf.storage) and not can_delete(NoDelete(shelf.storage))
    made = Made(shelf.both())
    made.add(70)
    repo = Repository.open(NoDelete(shelf.storage), host=shelf.keys.host)
    for wanted, count in ((None, 0), (False, 0), (True, 1)):
        bundler = Bundler(repo, wanted, Silent())
        bundler.stored(made.id)
        bundler.close(patiently=True)
        assert len([r for r in repo.runs(made.id) if isinstance(r, BundleName)]) == count


def test_a_body_that_went_before_its_bundle_came(shelf: Shelf) -> None:
    """A machine that stood still: no bundle, the segments stay."""

    class Late(Through):
        """Somebody removes what nobody names."""

        def before(self, act: str, key: str) -> None:
            """Between body and bundle."""
            if act == "create" and "/bundles/" in key:
                for k in [s.key for s in self.inner.list("changes/")]:
                    if "/bodies/" in k:
                        self.inner.delete(k)

    made = Made(shelf.both())
    made.add(4)
    repo = Repository.open(Late(shelf.storage), host=shelf.keys.host)
    done = bundle(repo, made.id, fan=4)
    assert done.bundles == 0 and "removed before" in next(iter(done.left.values()))
    assert numbers(the_log(shelf.both(), made.id)) == [1, 2, 3, 4]


@pytest.fixture(params=["folder", "memory", "moto", "rclone"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Stores of each kind."""
    if request.param == "folder":
        return LocalStorage(tmp_path / "ranges")
    if request.param == "memory":
        return MemoryStorage()
    server = stores.s3(request.param)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_storage(server.new_prefix())


def test_a_part_of_a_file(place: Storage) -> None:
    """Where a store can read it, and where it cannot."""
    place.put("changes/a/bodies/x", bytes(range(100)))
    assert read_range(place, "changes/a/bodies/x", 10, 5) == bytes(range(10, 15))
    assert read_range(place, "changes/a/bodies/x", 0, 100) == bytes(range(100))
    assert read_range(place, "changes/a/bodies/x", 3, 0) == b""
    with pytest.raises(KeyNotFound):
        read_range(place, "changes/a/bodies/y", 0, 5)
