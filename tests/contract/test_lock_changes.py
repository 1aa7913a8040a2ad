"""Object Lock of the change log: as long as the snapshots that lead over it, and no request twice. What was
overwritten or hidden: the version that was stored is locked, and named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.support import stores
from tests.support.chains import Made, add_base, numbers, the_log
from tests.support.shelf import Shelf

from pgkura.changes.bundling import bundle_groups
from pgkura.changes.spans import Group
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.operations.lock_changes import lock_log
from pgkura.repository.lock_versions import Locked
from pgkura.repository.locks import lock_snapshot
from pgkura.storage.opening import open_storage
from pgkura.storage.retention import LockMode, need_retention


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A bucket with Object Lock."""
    server = stores.s3("moto")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return Shelf(open_storage(server.new_bucket(locks=True)))


def days_left(shelf: Shelf, prefix: str) -> dict[str, int]:
    """Of each file below; 0 = not locked."""
    retention = need_retention(shelf.storage)
    now = datetime.now(UTC)
    found = {}
    for key in shelf.files(prefix):
        until = retention.locked_until(key)
        found[key] = 0 if until is None else round((until - now) / timedelta(days=1))
    return found


def lock(shelf: Shelf, snapshot: str) -> Locked:
    """What `backup --lock-days` does once the snapshot is there."""
    repo = shelf.host()
    manifest = repo.exact_manifest(snapshot)
    locked, told = lock_log(repo, manifest, lock_snapshot(repo, manifest, LockMode.GOVERNANCE))
    repo.append_journal("lock", {"snapshot": snapshot, **locked.as_json(), "log": told})
    return locked


def test_as_long_as_the_snapshot_that_leads_there(shelf: Shelf) -> None:
    """What lies before the base is not locked; what was stored since is, by the next backup, for the older base."""
    made = Made(shelf.both(), part=4)
    made.add(4, mark="m")
    first = add_base(shelf, made, 2, days=10)
    done = lock(shelf, first)
    segments = [n.key(made.id) for n in made.segments]
    assert done.refused == () and done.until
    left = days_left(shelf, "changes/")
    assert [left[k] for k in segments] == [0, 0, 10, 10]
    assert {d for k, d in left.items() if "/parts/" in k} == {10}
    assert set(days_left(shelf, f"chains/{made.id}/").values()) == {10}
    made.add(4)
    second = add_base(shelf, made, 7, days=5)
    lock(shelf, second)
    segments = [n.key(made.id) for n in made.segments]
    left = days_left(shelf, "changes/")
    assert [left[k] for k in segments] == [0, 0, 10, 10, 10, 10, 10, 10]
    third = add_base(shelf, made, 8, days=20)
    made.add(1)
    lock(shelf, third)
    left = days_left(shelf, "changes/")
    assert [left[n.key(made.id)] for n in made.segments] == [0, 0, 10, 10, 10, 10, 10, 10, 20]
    assert set(days_left(shelf, f"chains/{made.id}/").values()) == {20}


def test_what_is_locked_is_not_asked_for_again(shelf: Shelf) -> None:
    """By the journal: only new files, and those of the new snapshot. A bundle stands for its segments."""
    made = Made(shelf.both())
    made.add(6)
    bundle_groups(shelf.host(), made.id, [Group(runs=tuple(made.segments[:4]))], Silent(), Stop())
    one = lock(shelf, add_base(shelf, made, 0, days=10))
    left = days_left(shelf, "changes/")
    assert {k.split("/")[2] for k, d in left.items() if d} == {"bundles", "bodies", "segments"}
    assert [left[n.key(made.id)] for n in made.segments] == [0, 0, 0, 0, 10, 10]
    made.add(1)
    two = lock(shelf, add_base(shelf, made, 6, days=10))
    assert two.files < one.files
    assert days_left(shelf, "changes/")[made.segments[-1].key(made.id)] == 10
    assert numbers(the_log(shelf.both(), made.id)) == list(range(1, 8))


def test_a_snapshot_that_is_no_base(shelf: Shelf) -> None:
    """Locks its own files alone."""
    made = Made(shelf.both())
    made.add(1)
    snapshot = shelf.add({"a": b"1\n"})
    repo = shelf.host()
    until = f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"
    manifest = replace(repo.exact_manifest(snapshot), expires=until)
    before = lock_snapshot(repo, manifest, LockMode.GOVERNANCE)
    assert lock_log(repo, manifest, before) == (before, {})
    assert set(days_left(shelf, "changes/").values()) == {0}


def version_days(shelf: Shelf, key: str, version: str) -> int:
    """Left of one version's lock."""
    until = need_retention(shelf.storage).locked_until(key, version=version)
    return 0 if until is None else round((until - datetime.now(UTC)) / timedelta(days=1))


@pytest.mark.parametrize("harm", ["same size", "other size", "hidden"])
def test_what_was_overwritten_in_a_log(shelf: Shelf, harm: str) -> None:
    """A part, by its hash, and a segment, by its signature: before the first lock, and said again by each backup."""
    made = Made(shelf.both(), part=4)
    made.add(5)
    part = min(shelf.files(f"changes/{made.id}/parts/"))
    plain = made.segments[-1]
    stored = {key: (newest_version(shelf, key), shelf.storage.get(key)) for key in (part, plain.key(made.id))}
    for key, (_, data) in stored.items():
        if harm == "hidden" and key == part:
            shelf.storage.delete(key)
        else:
            shelf.storage.put(key, b"x" * (len(data) + (harm == "other size")))
    for days in (10, 20):
        done = lock(shelf, add_base(shelf, made, 0, days=days))
        assert {key for key, _ in done.overwritten} == stored.keys()
        left = {key: version_days(shelf, key, version) for key, (version, _) in stored.items()}
        assert left == dict.fromkeys(stored, days), done
    for key, (_, data) in stored.items():
        shelf.storage.put(key, data)
    healed = lock(shelf, add_base(shelf, made, 0, days=30))
    assert healed.overwritten == healed.refused == ()
    assert all(days_left(shelf, key)[key] == 30 for key in stored)


def newest_version(shelf: Shelf, key: str) -> str:
    """Its id."""
    return next(v.id for v in need_retention(shelf.storage).history(key) if v.key == key)


@pytest.mark.parametrize("harm", [b"garbage", None])
def test_what_was_overwritten_around_a_snapshot(shelf: Shelf, harm: bytes | None) -> None:
    """Before the first lock, or later: no hash names these files, so all their versions stay; data of another size or
    hidden is named as well. What the root wrote anew is no news."""
    repo = shelf.both()
    snapshot = shelf.add({"a": b"1\n"}, repo=repo)
    manifest = replace(
        repo.exact_manifest(snapshot), expires=f"{datetime.now(UTC) + timedelta(days=5):%Y-%m-%dT%H:%M:%SZ}"
    )
    for name in ("RESTORE.md", *shelf.files("keys/")):
        shelf.storage.put(name, shelf.storage.get(name))
    assert lock_snapshot(shelf.both(), manifest, LockMode.GOVERNANCE).overwritten == ()
    repo = shelf.both()
    manifest = replace(manifest, expires=f"{datetime.now(UTC) + timedelta(days=9):%Y-%m-%dT%H:%M:%SZ}")
    keys = [f"snapshots/{snapshot}", "RESTORE.md", *shelf.files("data/")[:1]]
    stored = {key: newest_version(shelf, key) for key in keys}
    for key in keys:
        if harm is None:
            shelf.storage.delete(key)
        else:
            shelf.storage.put(key, harm)
    done = lock_snapshot(repo, manifest, LockMode.GOVERNANCE)
    assert {key for key, _ in done.overwritten} == set(keys)
    assert all(version_days(shelf, key, version) == 9 for key, version in stored.items())


def test_a_log_that_cannot_be_read(shelf: Shelf) -> None:
    """The backup that locks names it, and ends with the locks of its own files."""
    made = Made(shelf.both())
    made.add(2)
    snapshot = add_base(shelf, made, 0, days=10)
    shelf.storage.put(made.segments[0].key(made.id), b"garbage")
    done = lock(shelf, snapshot)
    assert len(done.refused) == 1 and made.id in done.refused[0][0]
    assert days_left(shelf, "snapshots/") == {f"snapshots/{snapshot}": 10}
