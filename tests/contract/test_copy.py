"""`copy` between two stores without a database: byte for byte, resumed anywhere, damage named and left behind."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import stores
from tests.support.shelf import Shelf, Through

from pgkura.core.errors import RepositoryExists, RepositoryNotFound, UsageError
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.operations.copy import CopyResult, copy_snapshots
from pgkura.operations.prune import execute_prune, plan_prune
from pgkura.repository.check import check_repository
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.base import Storage
from pgkura.storage.local import LocalStorage
from pgkura.storage.memory import MemoryStorage
from pgkura.storage.opening import open_storage


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Three snapshots that share a table, and a proof."""
    made = Shelf(LocalStorage(tmp_path / "first"))
    for day in range(3):
        made.add({"same": b"1\n" * 50, "moving": b"day %d\n" % day}, ago=timedelta(days=3 - day))
    made.host().append_journal("proof", {"snapshot": made.host().manifest_ids()[0], "equal": True})
    return made


@pytest.fixture
def place(tmp_path: Path) -> Storage:
    """An empty folder."""
    return LocalStorage(tmp_path / "second")


def copy(repo: Repository, place: Storage, *which: str, check: bool = False) -> CopyResult:
    """All of them, unless some are named."""
    return copy_snapshots(repo, place, which, everything=not which, check=check, progress=Silent())


def same_files(shelf: Shelf, place: Storage) -> None:
    """Both hold the same keys with the same bytes."""
    one, other = ({s.key for s in store.list("")} for store in (shelf.storage, place))
    assert one == other
    assert all(shelf.storage.get(key) == place.get(key) for key in one)


def assert_whole(shelf: Shelf, place: Storage) -> None:
    """Opened from the copy alone, everything reads back."""
    shelf.copy_at(place).assert_whole()


@pytest.mark.parametrize("key", ["host", "person"])
def test_byte_for_byte(key: str, shelf: Shelf, place: Storage) -> None:
    """With either key; a second run has nothing to do, also when it reads everything back."""
    repo = shelf.host() if key == "host" else shelf.person()
    done = copy(repo, place)
    assert done.result is Result.OK and done.done.snapshots == repo.manifest_ids()
    same_files(shelf, place)
    assert_whole(shelf, place)
    for check in (False, True):
        again = copy(repo, place, check=check)
        assert (again.done.snapshots, again.done.objects, again.done.records) == ([], 0, 0)
        assert again.done.present == repo.manifest_ids() and again.done.notes == []
    same_files(shelf, place)


def test_later_snapshots_follow(shelf: Shelf, place: Storage) -> None:
    """Only what is new travels."""
    copy(shelf.host(), place)
    new = shelf.add({"same": b"1\n" * 50, "moving": b"day 4\n"})
    done = copy(shelf.host(), place)
    assert done.done.snapshots == [new] and done.done.objects == 2
    same_files(shelf, place)


def test_chosen_snapshots(shelf: Shelf, place: Storage) -> None:
    """By id and by `latest`; nothing that only others need; verify of both forms is content."""
    ids = shelf.host().manifest_ids()
    done = copy(shelf.host(), place, ids[0], "latest", "latest")
    assert done.done.snapshots == [ids[0], ids[2]]
    assert len(list(place.list("data/"))) < len(shelf.files("data/"))
    assert_whole(shelf, place)
    for which in ((), ("latest", "--all")):
        with pytest.raises(UsageError):
            copy_snapshots(shelf.host(), place, which, everything=bool(which), progress=Silent())
    with pytest.raises(RepositoryNotFound):
        copy(shelf.host(), place, "2001")
    with pytest.raises(UsageError, match="same place"):
        copy(shelf.host(), shelf.storage)


class Dies(Through):
    """Ends the run before its nth write."""

    def __init__(self, storage: Storage, last: int) -> None:
        super().__init__(storage)
        self.left = last

    def before(self, act: str, key: str) -> None:
        """Count."""
        if act in ("put", "create"):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def test_ended_before_every_write_and_run_again(shelf: Shelf, tmp_path: Path) -> None:
    """Whatever is there is whole; the next run finishes; what was there is not sent twice."""
    step = 0
    while True:
        step += 1
        for key in [k for k in shelf.files("journal/") if k.endswith("-copy")]:
            shelf.storage.delete(key)  # what the runs before have noted would make this one longer
        place = LocalStorage(tmp_path / f"at-{step}")
        try:
            copy(shelf.host(), Dies(place, step))
            break
        except KeyboardInterrupt:
            pass
        if any(s.key == "pgkura-repository" for s in place.list("")):
            assert_whole(shelf, place)
        there = len(list(place.list("data/")))
        done = copy(shelf.host(), place)
        assert done.result is Result.OK and done.done.objects_present == there
        assert_whole(shelf, place)
        assert {s.key for s in place.list("data/")} == set(shelf.files("data/"))
    assert step > 20


@pytest.mark.parametrize("how", ["damaged", "missing", "short"])
def test_damaged_data_stays_behind(how: str, shelf: Shelf, place: Storage) -> None:
    """Named with its snapshots, which are not in the copy; the others are, and whole; exit 3."""
    ids = shelf.host().manifest_ids()
    others = set(shelf.host().references(ids[0])) | set(shelf.host().references(ids[1]))
    bad = next(iter(shelf.host().references(ids[2]).keys() - others))
    key = f"data/{bad[:2]}/{bad}"
    whole = shelf.storage.get(key)
    if how == "missing":
        shelf.storage.delete(key)
    else:
        shelf.storage.put(key, whole[:-1] + (bytes([whole[-1] ^ 1]) if how == "damaged" else b""))
    done = copy(shelf.host(), place)
    assert done.result is Result.INCOMPLETE
    assert done.done.snapshots == ids[:2] and done.done.failed == ids[2:]
    assert any(key in p for p in done.problems) and any(ids[2] in p for p in done.problems)
    assert key not in {s.key for s in place.list("data/")}
    assert_whole(shelf, place)
    shelf.storage.put(key, whole)
    assert copy(shelf.host(), place).done.snapshots == ids[2:]


@pytest.mark.parametrize("kind", ["snapshots/", "references/", "index/", "journal/"])
def test_damaged_records_stay_behind(kind: str, shelf: Shelf, place: Storage) -> None:
    """Signatures are checked on the way."""
    key = shelf.files(kind)[-1]
    data = bytearray(shelf.storage.get(key))
    data[-1] ^= 1
    shelf.storage.put(key, bytes(data))
    done = copy(shelf.host(), place)
    assert done.result is Result.INCOMPLETE
    assert any(key.partition("/")[2] in p for p in done.problems)
    assert key not in {s.key for s in place.list(kind)}
    assert_whole(shelf, place)
    if kind == "references/":  # the identity knows what the snapshot needs
        assert copy(shelf.both(), place).result is Result.OK
        assert_whole(shelf, place)


@pytest.mark.parametrize("prefix", ["index/", "journal/"])
def test_damaged_records_of_the_copy_are_mended(prefix: str, shelf: Shelf, place: Storage) -> None:
    """Another size: seen always; the same size: by --check."""
    copy(shelf.host(), place)
    first, second = shelf.files(prefix)[:2]
    place.put(first, b"short")
    done = copy(shelf.host(), place)
    assert done.done.notes == [f"{first} was not that of the source: put right"]
    place.put(second, b"x" * len(place.get(second)))
    assert copy(shelf.host(), place).done.records == 0
    assert copy(shelf.host(), place, check=True).done.notes == [f"{second} was not that of the source: put right"]
    same_files(shelf, place)
    assert_whole(shelf, place)


def test_check_finds_and_mends_damage_of_the_copy(shelf: Shelf, place: Storage) -> None:
    """Same size, other bytes: seen by --check; another size: seen always."""
    copy(shelf.host(), place)
    first, second = sorted(s.key for s in place.list("data/"))[:2]
    place.put(first, b"x" * len(place.get(first)))
    place.put(second, b"short")
    assert copy(shelf.host(), place).done.objects == 1
    assert copy(shelf.host(), place, check=True).done.objects == 1
    same = {k: place.get(k) == shelf.storage.get(k) for k in (first, second)}
    assert all(same.values())
    assert_whole(shelf, place)


def test_another_repository_is_refused(shelf: Shelf, place: Storage) -> None:
    """A repository with other keys; a folder with other things."""
    Shelf(place)
    before = {s.key: place.get(s.key) for s in place.list("")}
    with pytest.raises(RepositoryExists, match="another repository"):
        copy(shelf.host(), place)
    assert {s.key: place.get(s.key) for s in place.list("")} == before
    other = MemoryStorage()
    other.put("holiday.jpg", b"x")
    with pytest.raises(RepositoryExists, match="not empty"):
        copy(shelf.host(), other)


def test_a_copy_that_lives_on(shelf: Shelf, place: Storage) -> None:
    """Backups and prunes of its own in the copy: counters meet, nothing is lost on either side."""
    copy(shelf.host(), place)
    away = shelf.host().at(place)
    own = shelf.add({"same": b"1\n" * 50, "moving": b"only here\n"}, repo=away)
    execute_prune(plan_prune(away, Rules(last=2), grace=0, progress=Silent()), progress=Silent())
    away.append_journal("backup", {"snapshot": own})
    new = shelf.add({"same": b"1\n" * 50, "moving": b"day 5\n"})
    shelf.host().append_journal("backup", {"snapshot": new, "and": "more"})
    done = copy(shelf.host(), place, "latest")
    assert done.result is Result.OK and done.done.snapshots == [new]
    assert_whole(shelf, place)
    away = Repository.open(place, host=shelf.keys.host)
    named = {ref.object.id for key in away.index_keys() for ref in away.index(key)}
    assert set(away.references(new)) <= named and set(away.references(own)) <= named
    assert set(shelf.files("index/")) | set(shelf.files("journal/")) <= {s.key for s in place.list("")}
    assert done.done.notes == []


def _reseal(repo: Repository, kind: str, key: str, name: str, size: int) -> int:
    """Put the file of `key` under a name without random digits, as long as `size` if that is not 0; its size."""
    payload = repo.open_record(kind, key, repo.storage.get(key))[1]
    for _ in range(20_000):  # what is sealed has a random length
        data = repo._seal_record(kind, name, payload)
        if size in (0, len(data)):
            break
    repo.storage.create(name, data)
    repo.storage.delete(key)
    return len(data)


def test_names_that_were_given_twice(shelf: Shelf, place: Storage) -> None:
    """As until 2026-11-28: files of one name and one size, of the repository and of its copy, are still two files."""
    copy(shelf.host(), place)
    host, names = shelf.host(), {"index": "00000007", "journal": "00000008-note"}
    away = host.at(place)
    for repo in (host, away):
        shelf.add({"same": b"1\n" * 50, "moving": repo.url[-5:].encode() + b"\n"}, repo=repo)
        repo.append_journal("note", {"where": repo.url[-5:]})
    sizes: dict[str, int] = {}
    for repo in (host, away):
        for kind, name in names.items():
            key = max(s.key for s in repo.storage.list(f"{kind}/{host.host_id}-"))
            sizes[kind] = _reseal(repo, kind, key, f"{kind}/{host.host_id}-{name}", sizes.get(kind, 0))
    for kind, name in names.items():
        key = f"{kind}/{host.host_id}-{name}"
        assert len(host.storage.get(key)) == len(place.get(key)) and host.storage.get(key) != place.get(key)
    done = copy(shelf.host(), place)
    assert done.done.notes == [
        f"journal/{host.host_id}-00000008-note is a record of the copy's own; the source's was not copied"
    ]
    assert_whole(shelf, place)
    away = Repository.open(place, host=shelf.keys.host)
    named = {ref.object.id for key in away.index_keys() for ref in away.index(key)}
    assert all(set(away.references(i)) <= named for i in away.manifest_ids())


def test_old_snapshots_without_references(shelf: Shelf, place: Storage) -> None:
    """Named and left behind without the identity; copied with it, and the file is made."""
    ids = shelf.host().manifest_ids()
    shelf.storage.delete(f"references/{ids[1]}")
    done = copy(shelf.host(), place)
    assert done.done.failed == [ids[1]] and "identity" in done.problems[0]
    assert copy(shelf.person(), place).result is Result.OK
    assert copy(shelf.person(), place).done.notes == []
    assert_whole(shelf, place)
    assert f"references/{ids[1]}" in {s.key for s in place.list("references/")}


@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_to_a_bucket(kind: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local and remote; row data in the storage class that was asked for."""
    server = stores.s3(kind)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    url = server.new_prefix()
    place = open_storage(url)
    done = copy_snapshots(
        shelf.host(), place, (), everything=True, storage_class="GLACIER_IR", workers=3, progress=Silent()
    )
    assert done.result is Result.OK
    same_files(shelf, place)
    if kind == "moto":
        assert {server.storage_class(url, key) for key in server.keys(url, "data/")} == {"GLACIER_IR"}
        assert {server.storage_class(url, key) for key in server.keys(url, "references/")} == {"STANDARD"}
    repo = Repository.open(open_storage(url), identity=shelf.keys.identity)
    assert check_repository(repo, repo.manifest_ids(), deep=True, progress=Silent()).problems == []
