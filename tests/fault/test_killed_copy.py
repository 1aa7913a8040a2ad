"""SIGKILL before writes, and after the last, of `copy` and of `backup --also`: each of a folder, some on S3 servers.

The first repository stays whole whatever happens to the second, and the same again makes the second whole.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from tests.fault.test_killed_at_every_write import Place, _fresh, kind, place
from tests.support.killing import Killer, killed

from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.operations.also import copy_also
from pgkura.operations.backup import back_up
from pgkura.operations.copy import copy_snapshots
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.creating import create
from pgkura.storage.opening import open_storage

__all__ = ["kind", "place"]
_KINDS = frozenset({"pgkura-repository", "keys", "data", "index", "snapshots", "references", "journal"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is killed: `here`, in a fork, which is quick; on S3 the verb, for its clients are not to be forked."""

    place: Place
    here: Callable[[str, str], Result]
    verb: tuple[str, ...]

    def killed(self, first: str, second: str, killer: Killer) -> bool:
        """Whether it was."""
        if not second.startswith("s3:"):
            return killed(partial(self.here, first, second), killer)
        keys = {"PGKURA_REPOSITORY": first, "PGKURA_HOST_KEY": self.place.keys.host_key_text}
        done = subprocess.run(
            [sys.executable, "-m", "pgkura", *self.verb, second],
            env=os.environ | keys | {"DATABASE_URL": self.place.url} | killer.environment,
            stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode == -signal.SIGKILL


def _new(place: Place, folder: Path) -> str:
    where = str(folder / uuid4().hex)
    create(open_storage(where), place.keys)
    return where


def _kills(kind: str, folder: Path, work: Work, first: str) -> Iterator[Killer]:
    """After a run that is only counted, in a second repository of its own."""
    counted = Killer(count=folder / "counted")
    assert not work.killed(first, _fresh(kind, folder / "whole"), counted)
    found = {w.split()[1].partition("/")[0] for w in counted.writes}
    assert found >= _KINDS, found
    total = len(counted.writes)
    begin, every = {"local": (1, 1), "moto": (1, 6), "rclone": (4, 6)}[kind]
    for at, when in [*((at, "before") for at in range(begin, total + 1, every)), (total, "after")]:
        whom = "me" if kind == "local" else "group"
        yield Killer(count=folder / f"count-{at}-{when}", at=at, when=when, whom=whom)


def _files(where: str) -> dict[str, bytes]:
    store = open_storage(where)
    return {found.key: store.get(found.key) for found in store.list("")}


def test_copy(kind: str, place: Place, tmp_path: Path) -> None:
    def copy(first: str, second: str) -> Result:
        target = open_storage(second)
        return copy_snapshots(place.open(first), target, (), everything=True, progress=Silent()).result

    first = _new(place, tmp_path)
    scene = place.scene(first)
    scene.take()
    scene.take(full=True, small_bytes=0)
    before = _files(first)
    work = Work(place=place, here=copy, verb=("copy", "--all", "--to-repository"))
    for killer in _kills(kind, tmp_path, work, first):
        second = _fresh(kind, tmp_path / killer.count.name.replace("count", "second"))
        assert work.killed(first, second, killer)
        after = _files(first)
        assert before.items() <= after.items()
        assert all(key.startswith("journal/") for key in after.keys() - before.keys()), "that it was copied"
        assert copy(first, second) is Result.OK, killer
        place.whole(second, 2)


def test_backup_also(kind: str, place: Place, tmp_path: Path) -> None:
    """Killed in the first repository or in the second. The next run brings both up to date."""

    def also(first: str, second: str) -> Result:
        scene = place.scene(first)
        made = back_up(Endpoint.parse(place.url), scene.repo, scene.access, progress=Silent())
        return copy_also(scene.repo, made, [open_storage(second)], storage_class="", progress=Silent()).result

    work = Work(place=place, here=also, verb=("backup", "--also"))
    for killer in _kills(kind, tmp_path, work, _new(place, tmp_path)):
        first, second = _new(place, tmp_path), _fresh(kind, tmp_path / killer.count.name.replace("count", "second"))
        assert work.killed(first, second, killer)
        there = len(place.open(first).manifest_ids())
        place.whole(first, there)
        done = killer.writes[: killer.at - (killer.when == "before")]
        assert there == any(w.startswith("create snapshots/") for w in done)
        assert also(first, second) is Result.OK, killer
        place.whole(first, there + 1)
        assert place.open(first).manifest("latest").id in place.open(second).manifest_ids()
        place.whole(second, len(place.open(second).manifest_ids()))
        copy_snapshots(place.open(first), open_storage(second), (), everything=True, progress=Silent())
        place.whole(second, there + 1)
