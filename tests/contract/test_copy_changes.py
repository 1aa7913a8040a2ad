"""`copy` of change logs between two stores without a database: byte for byte, resumed anywhere, pruned apart."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.contract.test_copy import Dies
from tests.support import stores
from tests.support.chains import Made, add_base, numbers, reached, the_log
from tests.support.shelf import Aged, Shelf

from pgkura.changes import spans
from pgkura.changes.bundling import bundle_groups, groups_of
from pgkura.changes.log import read_chain
from pgkura.core.errors import PgkuraError
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.operations.copy import CopyResult, copy_snapshots
from pgkura.operations.prune import GRACE_SECONDS, execute_prune, plan_prune
from pgkura.operations.timeline import timeline
from pgkura.operations.verify import verify_repository
from pgkura.repository.changes import HEAD
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.base import Storage
from pgkura.storage.local import LocalStorage
from pgkura.storage.opening import open_storage


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A folder in which time passes when told."""
    return Shelf(Aged(LocalStorage(tmp_path / "first")))


@pytest.fixture
def place(tmp_path: Path) -> Storage:
    """An empty folder, the same."""
    return Aged(LocalStorage(tmp_path / "second"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four segments are a bundle."""
    defaults = spans.plan_bundles.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "fan", 4)


def copy(repo: Repository, place: Storage, *which: str, check: bool = False, changes: bool = True) -> CopyResult:
    """All of them, unless some are named."""
    return copy_snapshots(repo, place, which, everything=not which, check=check, changes=changes, progress=Silent())


def bundle(shelf: Shelf, chain: str) -> None:
    """What can be."""
    repo = shelf.host()
    bundle_groups(repo, chain, groups_of(repo, chain, fan=4), Silent(), Stop())


def prune(shelf: Shelf, last: int = 9) -> None:
    """Twice, the grace time between."""
    for _ in range(2):
        assert execute_prune(plan_prune(shelf.host(), Rules(last=last), progress=Silent()), progress=Silent())
        assert isinstance(shelf.storage, Aged)
        shelf.storage.later(GRACE_SECONDS + 1)


def same(shelf: Shelf, place: Storage, *folders: str) -> None:
    """Both hold the same files there with the same bytes."""
    for folder in folders:
        one, other = ({s.key for s in store.list(folder)} for store in (shelf.storage, place))
        assert one == other, folder
        assert all(shelf.storage.get(key) == place.get(key) for key in one)


@pytest.mark.parametrize("key", ["host", "person"])
def test_byte_for_byte(key: str, shelf: Shelf, place: Storage) -> None:
    """With either key, marks and parts too; a second run has nothing to do; later segments follow."""
    made = Made(shelf.both(), part=3)
    made.add(7, mark="here")
    base = add_base(shelf, made, 2)
    repo = shelf.host() if key == "host" else shelf.person()
    done = copy(repo, place)
    assert done.result is Result.OK and done.log.chains == 1 and done.log.files == 4 + 7 + 2
    same(shelf, place, "chains/", "changes/")
    there = shelf.copy_at(place)
    assert reached(there.both(), made.id, base) == [3, 4, 5, 6, 7]
    one, other = (timeline(place.host()).as_json()["chains"][0] for place in (shelf, there))
    assert {k: v for k, v in one.items() if "silent" not in k} == {k: v for k, v in other.items() if "silent" not in k}
    assert verify_repository(there.both(), "", progress=Silent()).problems == ()
    for check in (False, True):
        again = copy(repo, place, check=check)
        assert (again.log.files, again.log.notes) == (0, []) and again.result is Result.OK
    made.add(3, mark="there")
    made.end()
    assert copy(repo, place).log.files == 3 + 1 + 2
    same(shelf, place, "chains/", "changes/")
    assert reached(there.both(), made.id, base) == list(range(3, 11))


def test_chosen_snapshots_bring_their_chain(shelf: Shelf, place: Storage) -> None:
    """And no other; or none."""
    one = Made(shelf.both(), at=datetime(2026, 11, 1, tzinfo=UTC))
    one.add(2)
    first = add_base(shelf, one, 1, ago=timedelta(days=2))
    one.end()
    two = Made(shelf.both(), at=datetime(2026, 11, 2, tzinfo=UTC))
    two.add(2)
    second = add_base(shelf, two, 1)
    assert copy(shelf.host(), place, second, changes=False).log.files == 0
    copy(shelf.host(), place, second)
    assert shelf.copy_at(place).host().chain_ids() == [two.id]
    copy(shelf.host(), place, first)
    assert shelf.copy_at(place).host().chain_ids() == [one.id, two.id]


def test_cut_short_anywhere(shelf: Shelf, place: Storage, tmp_path: Path) -> None:
    """Whatever is there is a log that ends earlier, never one with a gap; the next run goes on."""
    made = Made(shelf.both(), part=2)
    made.add(3)
    bundle(shelf, made.id)
    made.add(4, mark="m")
    bundle(shelf, made.id)
    base = add_base(shelf, made, 0)
    made.add(2)
    made.end()
    writes = 0
    lengths = set()
    ended = False
    while not ended:
        writes += 1
        store = LocalStorage(tmp_path / f"cut-{writes}")
        with suppress(KeyboardInterrupt):
            copy(shelf.host(), Dies(store, writes))
        there = shelf.copy_at(store)
        try:
            repo = there.both()
        except PgkuraError:
            continue  # its keys are not there yet
        for chain in repo.chain_ids():
            facts = read_chain(repo, chain)
            if facts is None:
                continue
            assert not facts.missing
            assert bool(facts.ended) <= (facts.end == made.position)
            found = numbers(the_log(repo, chain))
            assert found == list(range(1, len(found) + 1))
            lengths.add(len(found))
            ended = bool(facts.ended)
        again = copy(shelf.host(), store)
        assert again.result is Result.OK
        assert reached(there.both(), made.id, base) == list(range(1, 10))
    assert len(lengths) >= 4 and max(lengths) == 9


def test_each_is_pruned_for_itself(shelf: Shelf, place: Storage) -> None:
    """What one place bundled is not brought again in segments, nor what it cut away; the other way round neither."""
    made = Made(shelf.both())
    made.add(22)
    old = add_base(shelf, made, 0, ago=timedelta(days=2))
    copy(shelf.host(), place)
    there = shelf.copy_at(place)
    prune(there)
    files = {s.key for s in place.list("changes/")}
    assert len([k for k in files if "/segments/" in k]) == 2
    made.add(1)
    assert copy(shelf.host(), place).log.files == 1
    assert {s.key for s in place.list("changes/")} - files == {made.segments[-1].key(made.id)}
    # The copy lets the older base go, and the log of before the newer one.
    new = add_base(shelf, made, 20)
    copy(shelf.host(), place)
    prune(there, last=1)
    assert numbers(the_log(there.both(), made.id))[-3:] == [21, 22, 23]
    left = {s.key for s in place.list("changes/")}
    copy(shelf.host(), place, new)
    assert {s.key for s in place.list("changes/")} == left
    # The source does: what the copy has of it stays.
    assert reached(there.both(), made.id, new) == [21, 22, 23]
    assert reached(shelf.both(), made.id, old) == list(range(1, 24))


def test_a_source_that_was_cut(shelf: Shelf, place: Storage) -> None:
    """A new copy begins where the source does; an older one keeps what it has, if nothing between is missing."""
    made = Made(shelf.both())
    made.add(6)
    add_base(shelf, made, 0, ago=timedelta(days=3))
    copy(shelf.host(), place)
    made.add(6)
    base = add_base(shelf, made, 9)
    prune(shelf, last=1)
    assert numbers(the_log(shelf.both(), made.id))[0] > 1
    fresh = Aged(LocalStorage(Path(str(place.url) + "-fresh")))
    copy(shelf.host(), fresh)
    assert reached(shelf.copy_at(fresh).both(), made.id, base) == [10, 11, 12]
    copy(shelf.host(), place)
    # The copy lacks what came between: a log that begins anew, with no gap in it.
    there = shelf.copy_at(place).both()
    facts = read_chain(there, made.id)
    assert facts is not None and not facts.missing and facts.end == made.position
    assert reached(there, made.id, base) == [10, 11, 12]
    assert verify_repository(there, "", progress=Silent()).problems == ()


def test_an_older_copy_keeps_its_moments(shelf: Shelf, place: Storage) -> None:
    """The source cut away what the copy has."""
    made = Made(shelf.both())
    made.add(10)
    old = add_base(shelf, made, 0, ago=timedelta(days=3))
    add_base(shelf, made, 9)
    copy(shelf.host(), place)
    prune(shelf, last=1)
    made.add(2)
    copy(shelf.host(), place)
    assert reached(shelf.copy_at(place).both(), made.id, old) == list(range(1, 13))


def test_damage_stays_behind(shelf: Shelf, place: Storage) -> None:
    """Named; what came before it is there; once it is whole again the copy goes on."""
    made = Made(shelf.both())
    made.add(6)
    base = add_base(shelf, made, 0)
    key = made.segments[3].key(made.id)
    data = shelf.storage.get(key)
    shelf.storage.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    done = copy(shelf.host(), place)
    assert done.result is Result.INCOMPLETE and any(p.startswith(key) for p in done.problems)
    assert reached(shelf.copy_at(place).both(), made.id, base) == [1, 2, 3]
    shelf.storage.put(key, data)
    assert copy(shelf.host(), place).result is Result.OK
    assert reached(shelf.copy_at(place).both(), made.id, base) == [1, 2, 3, 4, 5, 6]


def test_damage_of_the_copy_is_put_right(shelf: Shelf, place: Storage) -> None:
    """By --check: records, segments, parts, bundles, bodies."""
    made = Made(shelf.both(), part=3)
    made.add(10)
    bundle(shelf, made.id)
    add_base(shelf, made, 0)
    copy(shelf.host(), place)
    head = f"chains/{made.id}/{HEAD}"
    keys = [s.key for s in place.list("changes/")]
    kinds = {k.split("/")[2]: k for k in keys}
    assert kinds.keys() == {"segments", "parts", "bundles", "bodies"}
    for key in (head, *kinds.values()):
        data = place.get(key)
        place.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    done = copy(shelf.host(), place, check=True)
    assert done.result is Result.OK and len(done.log.notes) == 5
    assert verify_repository(shelf.copy_at(place).both(), "", progress=Silent()).problems == ()


@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_to_a_bucket(kind: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hosts read in the standard class, sealed messages in the one asked for; read from there alone."""
    made = Made(shelf.both(), part=3)
    made.add(10)
    bundle(shelf, made.id)
    base = add_base(shelf, made, 1)
    server = stores.s3(kind)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    url = server.new_prefix()
    place = open_storage(url)
    done = copy_snapshots(
        shelf.host(), place, (), everything=True, storage_class="GLACIER_IR", workers=3, progress=Silent()
    )
    assert done.result is Result.OK
    if kind == "moto":
        for folder, wanted in (("segments", "STANDARD"), ("bundles", "STANDARD"), ("bodies", "GLACIER_IR")):
            keys = server.keys(url, f"changes/{made.id}/{folder}/")
            assert {server.storage_class(url, key) for key in keys} == {wanted}
    there = Repository.open(open_storage(url), identity=shelf.keys.identity)
    assert reached(there, made.id, base) == list(range(2, 11))
