"""Object Lock and versions by the real command line, on an S3 server that has them."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support import stores
from tests.support.cli import Desk
from tests.support.servers import Server, newest

SCHEMA = """
CREATE TABLE public.lessons (id integer PRIMARY KEY, title text NOT NULL);
INSERT INTO public.lessons SELECT g, 'lesson ' || md5(g::text) FROM generate_series(1, 2000) g;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A repository in a bucket with Object Lock."""

    desk: Desk
    server: Server
    source: str
    bucket: str
    client: Any

    def backup(self, *words: str) -> dict[str, Any]:
        """Another snapshot."""
        return self.desk.run("backup", "--json", *words, env={"DATABASE_URL": self.source}).expect().json

    def sql(self, text: str) -> None:
        """Run by the owner."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            connection.execute(text.encode())

    def locked(self, prefix: str) -> dict[str, datetime | None]:
        """Current versions below the repository: when their locks end, asked through another library."""
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"home/{prefix}").get("Contents", [])
        return {
            str(o["Key"]).removeprefix("home/"): self.client.head_object(Bucket=self.bucket, Key=o["Key"]).get(
                "ObjectLockRetainUntilDate"
            )
            for o in found
        }


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Fresh."""
    store = stores.s3("moto")
    server = newest()
    url = store.new_bucket(locks=True)
    desk = Desk(tmp_path, environment=store.environment | {"PGKURA_REPOSITORY": url})
    desk.run("init").expect()
    source = server.create_database("locks_source")
    made = Scene(desk=desk, server=server, source=source, bucket=url.split("/")[2], client=store.client())
    made.sql(SCHEMA)
    yield made


def _days(until: datetime | None) -> float:
    return 0.0 if until is None else (until - datetime.now(UTC)) / timedelta(days=1)


def test_everything_a_snapshot_needs_is_locked_as_long_as_it(scene: Scene) -> None:
    """Also files of before that it refers to; never shorter; `verify` looks."""
    first = scene.backup("--lock-days", "10")
    assert first["lock"]["refused"] == 0 and first["lock"]["extended"] == first["lock"]["files"]
    data = [d for d in scene.locked("data/").values() if d is not None]  # the others hold state for the next backup
    assert data and all(9.9 < _days(d) < 10.1 for d in data)
    needed = ("index/", "snapshots/", "keys/", "pgkura-repository", "RESTORE.md", "restore.sh")
    for prefix in needed:
        assert scene.locked(prefix) and all(9.9 < _days(d) < 10.1 for d in scene.locked(prefix).values()), prefix
    second = scene.backup("--lock-days", "20", "--lock-mode", "GOVERNANCE")
    assert second["chunks_unchanged"] == second["chunks"]
    shared = {k: d for k, d in scene.locked("data/").items() if _days(d) > 19}
    assert shared and all(_days(d) > 19.9 for d in scene.locked("keys/").values())
    scene.backup("--lock-days", "5")
    assert all(_days(d) > 19 for d in scene.locked("keys/").values())
    assert {k: d for k, d in scene.locked("data/").items() if k in shared} == shared
    assert scene.desk.run("verify", "--json").expect().json["result"] == "ok"
    shown = scene.desk.run("show", first["snapshot"], "--json").expect().json["facts"]
    assert shown["locked until"] == first["lock"]["until"]


def test_prune_keeps_what_is_locked(scene: Scene) -> None:
    """The store would hide it all the same. It counts as little where nothing locks: in a copy in a folder."""
    keep = ("prune", "--keep-last", "1", "--grace", "0", "--no-repack")
    change = "UPDATE public.lessons SET title = 'lesson ' || md5(title)"
    locked = scene.backup("--lock-days", "10")["snapshot"]
    scene.sql(change)
    free = scene.backup("--full")["snapshot"]
    scene.sql(change)
    newest = scene.backup("--full")["snapshot"]
    copy = Desk(scene.desk.folder / "copy")
    scene.desk.run("copy", "--all", "--to-repository", str(copy.repository)).expect()
    before = scene.locked("")

    planned = scene.desk.run(*keep, "--dry-run", "--json").expect().json
    assert [r["snapshot"] for r in planned["removed"]] == [free]
    why = {k["snapshot"]: k["why"] for k in planned["kept"]}
    assert why.keys() == {locked, newest}
    assert len(why[locked]) == 1 and why[locked][0].startswith("locked until 20")
    assert any("lifecycle" in n for n in planned["notes"])
    done = scene.desk.run(*keep, "--yes", "--json").expect().json
    assert done["removed"] == [free] and done["objects_deleted"] > 0
    after = scene.locked("")
    gone = {k for k, until in before.items() if until is not None} - after.keys()
    assert all(k.startswith("index/") for k in gone), gone  # an older index file; a newer one says what it said
    assert scene.desk.run("verify", "--json").expect().json["result"] == "ok"
    target = scene.server.create_database("locks_target")
    assert scene.desk.run("restore", locked, "--to", target, "--json").expect().json["proof"]["equal"] is True

    elsewhere = {"PGKURA_REPOSITORY": str(copy.repository)}
    planned = scene.desk.run(*keep, "--dry-run", "--json", env=elsewhere).expect().json
    assert [r["snapshot"] for r in planned["removed"]] == [locked, free] and planned["notes"] == []


def test_verify_names_a_lock_that_is_too_short(scene: Scene) -> None:
    """Shortened by somebody with the permission, or never made."""
    made = scene.backup("--lock-days", "10", "--lock-mode", "GOVERNANCE")
    key = min(k for k, d in scene.locked("data/").items() if d is not None)
    scene.client.put_object_retention(
        Bucket=scene.bucket,
        Key=f"home/{key}",
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)},
        BypassGovernanceRetention=True,
    )
    problems = scene.desk.run("verify", "--json").expect(16).json["problems"]
    assert len(problems) == 1
    assert problems[0].startswith(f"{key}: its lock ends") and made["snapshot"] in problems[0]


def test_restores_by_version(scene: Scene) -> None:
    """Data that somebody overwrote or deleted is read in its older version, and named; `verify` names it too."""
    made = scene.backup("--lock-days", "10")
    keys = sorted(k for k, d in scene.locked("data/").items() if d is not None)
    assert len(keys) > 2
    for key in keys[1:]:
        scene.client.put_object(Bucket=scene.bucket, Key=f"home/{key}", Body=b"ransom")
    scene.client.delete_object(Bucket=scene.bucket, Key=f"home/{keys[0]}")
    target = scene.server.create_database("locks_target")
    done = scene.desk.run("restore", "latest", "--to", target, "--json").expect()
    assert done.json["proof"]["equal"] is True
    assert any(f"{key} was overwritten in the store" in done.err for key in keys[1:]), "not all are read by a restore"
    problems = scene.desk.run("verify", "--json").expect(16).json["problems"]
    for key in keys:
        assert any(p.startswith(key) and "older version" in p and made["snapshot"] in p for p in problems), key


def test_the_repository_as_it_was(scene: Scene) -> None:
    """Somebody deleted everything: the bucket as of before lists, verifies and restores, and writes nothing."""
    scene.backup("--lock-days", "10")
    keys = sorted(scene.locked(""))
    time.sleep(1.1)
    when = datetime.now(UTC).isoformat()
    time.sleep(1.1)
    for key in keys:
        scene.client.delete_object(Bucket=scene.bucket, Key=f"home/{key}")
    scene.desk.run("snapshots").expect(10)
    past = {"PGKURA_STORE_AS_OF": when}
    assert len(scene.desk.run("snapshots", "--json", env=past).expect().json["snapshots"]) == 1
    assert scene.desk.run("verify", "--json", env=past, cwd=scene.desk.folder).expect().json["result"] == "ok"
    target = scene.server.create_database("locks_target")
    done = scene.desk.run("restore", "latest", "--to", target, "--json", env=past, cwd=scene.desk.folder)
    assert done.expect().json["proof"]["equal"] is True
    assert list(scene.desk.folder.glob("pgkura-proof-*.json"))
    assert scene.desk.run("backup", env=past | {"DATABASE_URL": scene.source}).expect(13).err
    assert "no time" in scene.desk.run("snapshots", env={"PGKURA_STORE_AS_OF": "yesterday"}).expect(2).err


def test_a_store_that_cannot_lock(scene: Scene, tmp_path: Path) -> None:
    """Said before anything starts."""
    desk = Desk(tmp_path / "folder")
    desk.run("init").expect()
    done = desk.run("backup", "--lock-days", "3", env={"DATABASE_URL": scene.source}).expect(2)
    assert "cannot lock" in done.err
    assert desk.run("snapshots", "--json").expect().json["snapshots"] == []


def test_doctor_says_whether_backups_can_be_deleted(scene: Scene) -> None:
    """In plain words."""
    checks = scene.desk.run("doctor", "--json", env={"DATABASE_URL": scene.source}).expect().json["checks"]
    found = next(c["found"] for c in checks if c["what"] == "deleting")
    assert "Object Lock is on" in found and "locked stay" in found


def _shared(scene: Scene) -> tuple[str, str, bytes]:
    """(file, version, bytes) of data that two snapshots need and that every later one will; locked for 5 days.

    The largest: rows. What else two snapshots share, an inventory of the catalog say, a third one may have otherwise.
    """
    scene.backup("--lock-days", "2", "--lock-mode", "GOVERNANCE")
    before = scene.locked("data/")
    scene.backup("--lock-days", "5", "--lock-mode", "GOVERNANCE")
    keys = [k for k, until in scene.locked("data/").items() if k in before and _days(until) > 4]
    found = {k: scene.client.get_object(Bucket=scene.bucket, Key=f"home/{k}") for k in keys}
    key = max(keys, key=lambda k: int(found[k]["ContentLength"]))
    return key, found[key]["VersionId"], found[key]["Body"].read()


def _version_days(scene: Scene, key: str, version: str) -> float:
    head = scene.client.head_object(Bucket=scene.bucket, Key=f"home/{key}", VersionId=version)
    return _days(head.get("ObjectLockRetainUntilDate"))


def test_the_stored_version_stays_locked_when_somebody_overwrites_it(scene: Scene) -> None:
    """By as many bytes: the true ones stay as long as every snapshot, and each backup says what it saw, until they
    are put back."""
    key, version, stored = _shared(scene)
    where = {"Bucket": scene.bucket, "Key": f"home/{key}"}
    again = ("backup", "--json", "--lock-mode", "GOVERNANCE", "--lock-days")
    for days in (20, 30):
        scene.client.put_object(**where, Body=bytes([days]) * len(stored))
        done = scene.desk.run(*again, str(days), env={"DATABASE_URL": scene.source}).expect(3).json
        assert _version_days(scene, key, version) > days - 0.1
        assert done["result"] == "incomplete" and done["lock"]["overwritten"] == 1
        (told,) = (s for s in done["skipped"] if s["object"] == "files in the store")
        assert key in told["reason"] and "overwritten" in told["reason"]
    scene.client.copy_object(**where, CopySource={**where, "VersionId": version})
    healed = scene.backup("--lock-days", "50", "--lock-mode", "GOVERNANCE")
    assert healed["result"] == "ok" and healed["lock"]["overwritten"] == 0
    assert scene.desk.run("verify", "--json").expect().json["problems"] == []  # of whatever it needs now, all locks


def test_verify_asks_for_the_lock_of_the_stored_version(scene: Scene) -> None:
    """Not of what somebody put over it, and locked for long."""
    key, version, stored = _shared(scene)
    where = {"Bucket": scene.bucket, "Key": f"home/{key}"}
    far = datetime.now(UTC) + timedelta(days=90)
    scene.client.put_object(
        **where, Body=bytes(len(stored)), ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=far
    )
    near = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
    scene.client.put_object_retention(**where, VersionId=version, Retention=near, BypassGovernanceRetention=True)
    problems = scene.desk.run("verify", "--json").expect(16).json["problems"]
    assert any(p.startswith(key) and version in p and "lock ends" in p for p in problems), problems


def test_verify_without_the_library_for_locks_is_not_ok(scene: Scene, tmp_path: Path) -> None:
    """What could not be asked is named, with what to install."""
    made = scene.backup("--lock-days", "10")
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "boto3.py").write_text("raise ImportError('no boto3 here')\n")
    without = {"PYTHONPATH": f"{shim}:{scene.desk.environment['PYTHONPATH']}"}
    done = scene.desk.run("verify", "--json", env=without).expect(16).json
    (problem,) = done["problems"]
    assert done["result"] == "incomplete"
    assert "pip install 'pgkura[s3]'" in problem and made["snapshot"] in problem
