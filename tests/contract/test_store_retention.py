"""Locks and versions: the contract on a real S3 server, and what stores without them say."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support import stores
from tests.support.cli import ROOT

from pgkura.core.errors import StoreError, UsageError
from pgkura.operations.deleting import deletes_versions, try_to_delete
from pgkura.storage.base import KeyNotFound
from pgkura.storage.local import LocalStorage
from pgkura.storage.opening import open_storage
from pgkura.storage.retention import Keeping, LockMode, need_retention, retention_of, versions_of

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[stores.S3Server]:
    """The environment reaches it."""
    running = stores.s3("moto")
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    yield running


def test_locks_grow_and_never_shrink(server: stores.S3Server) -> None:
    """Longer is done, shorter is not, weaker is not; the store refuses to delete what is locked."""
    store = open_storage(server.new_bucket(locks=True))
    store.create("data/1", b"abc")
    retention = need_retention(store)
    assert retention.keeping() is Keeping.LOCKS
    assert retention.locked_until("data/1") is None
    assert retention.lock("data/1", until=NOW + 2 * DAY, mode=LockMode.GOVERNANCE) is True
    assert retention.lock("data/1", until=NOW + DAY, mode=LockMode.GOVERNANCE) is False
    assert retention.locked_until("data/1") == NOW + 2 * DAY
    assert retention.lock("data/1", until=NOW + DAY, mode=LockMode.COMPLIANCE) is True
    assert retention.locked_until("data/1") == NOW + 2 * DAY
    assert retention.lock("data/1", until=NOW + 3 * DAY, mode=LockMode.GOVERNANCE) is True
    assert retention.locked_until("data/1") == NOW + 3 * DAY
    with pytest.raises(StoreError):
        retention.delete_version("data/1", versions_of(retention, "data/1")[0].id)
    with pytest.raises(KeyNotFound):
        retention.lock("data/2", until=NOW + DAY, mode=LockMode.GOVERNANCE)


def test_the_right_version_is_locked(server: stores.S3Server) -> None:
    """Where somebody overwrote or hid a file, its older version of the right size is the one."""
    store = open_storage(server.new_bucket(locks=True))
    retention = need_retention(store)
    store.put("data/1", b"right")
    store.put("data/1", b"something else")
    store.put("data/2", b"hidden")
    store.delete("data/2")
    for key, size in (("data/1", 5), ("data/2", 6)):
        retention.lock(key, until=NOW + DAY, mode=LockMode.GOVERNANCE, size=size)
        assert retention.locked_until(key, size=size) == NOW + DAY
        version = next(v for v in versions_of(retention, key) if v.size == size)
        assert len(retention.get_version(key, version.id)) == size
    assert retention.locked_until("data/1") is None


def test_as_of(server: stores.S3Server) -> None:
    """A bucket of before an attack: overwritten and deleted files are as they were; nothing can be written."""
    url = server.new_bucket(versions=True)
    store = open_storage(url)
    store.put("a/1", b"one")
    store.put("a/2", b"two")
    client = server.client()
    bucket = url.split("/")[2]
    when = max(v["LastModified"] for v in client.list_object_versions(Bucket=bucket)["Versions"])
    time.sleep(max(0.0, (when - datetime.now(UTC)).total_seconds() + 1.1))
    store.put("a/1", b"ransom")
    store.delete("a/2")
    store.put("a/3", b"three")
    past = open_storage(url, as_of=when)
    assert sorted((s.key, s.size) for s in past.list("a/")) == [("a/1", 3), ("a/2", 3)]
    assert (past.get("a/1"), past.get("a/2")) == (b"one", b"two")
    with pytest.raises(KeyNotFound):
        past.get("a/3")
    for act in (past.put, past.create):
        with pytest.raises(StoreError, match="cannot be written"):
            act("x", b"")
    with pytest.raises(StoreError, match="cannot be written"):
        past.delete("a/1")


def test_stores_without(server: stores.S3Server, tmp_path: Path) -> None:
    """A folder, and buckets without: usage errors that say so."""
    folder = LocalStorage(tmp_path)
    assert retention_of(folder) is None
    with pytest.raises(UsageError, match="cannot lock"):
        need_retention(folder)
    with pytest.raises(UsageError, match="no older versions"):
        open_storage(str(tmp_path), as_of=NOW)
    for url, keeping in ((server.new_prefix(), Keeping.NOTHING), (server.new_bucket(versions=True), Keeping.VERSIONS)):
        store = open_storage(url)
        found = retention_of(store)
        assert found is not None and found.keeping() is keeping
        with pytest.raises(UsageError, match="no Object Lock"):
            need_retention(store)


def test_whether_the_credential_can_delete(server: stores.S3Server, tmp_path: Path) -> None:
    """Tried, and said plainly."""
    assert "can delete every backup" in try_to_delete(LocalStorage(tmp_path)).found
    assert "can delete every backup" in try_to_delete(open_storage(server.new_prefix())).found
    versioned = try_to_delete(open_storage(server.new_bucket(versions=True)))
    assert "nothing protects" in versioned.found and "s3-policies" in versioned.change
    assert "locked stay" in try_to_delete(open_storage(server.new_bucket(locks=True))).found
    store = open_storage(server.new_bucket(locks=True))
    retention = need_retention(store)
    for key in ("probe/1", "probe/2"):
        store.create(key, b"x")
    retention.lock("probe/1", until=NOW + DAY, mode=LockMode.COMPLIANCE)
    assert [deletes_versions(retention, key) for key in ("probe/1", "probe/2")] == [False, True]


BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)


def test_shipped_policies_are_accepted(server: stores.S3Server) -> None:
    """Every JSON block of the how-to parses, and a server takes it: policies, lifecycle rules, lock defaults."""
    page = (ROOT / "docs" / "how-to" / "s3-policies.md").read_text()
    blocks = [json.loads(text.replace("example-backups", "kura-policies")) for text in BLOCK.findall(page)]
    client = server.client()
    client.create_bucket(Bucket="kura-policies", ObjectLockEnabledForBucket=True)
    kinds = {"Statement": 0, "Rules": 0}
    for number, block in enumerate(blocks):
        if "Statement" in block:
            kinds["Statement"] += 1
            actions = {a for s in block["Statement"] for a in s["Action"]}
            if any("Principal" in s for s in block["Statement"]):
                client.put_bucket_policy(Bucket="kura-policies", Policy=json.dumps(block))
            else:
                server.client("iam").create_policy(PolicyName=f"p{number}", PolicyDocument=json.dumps(block))
                allowed = {a for s in block["Statement"] if s["Effect"] == "Allow" for a in s["Action"]}
                assert ("s3:DeleteObject" in allowed) == ("prune" in json.dumps(block)), actions
        else:
            kinds["Rules"] += 1
            client.put_bucket_lifecycle_configuration(Bucket="kura-policies", LifecycleConfiguration=block)
    assert kinds["Statement"] >= 3 and kinds["Rules"] >= 1
