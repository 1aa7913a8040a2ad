"""SIGKILL of `init` between every two steps: the same command again makes a repository that opens with its keys."""

import contextlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.cli import Desk
from tests.support.killing import Killer, killed

from pgkura.core.errors import RepositoryExists, UsageError
from pgkura.operations.init import initialise, new_host
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def _child(folder: Path, killer: Killer, *, host_only: bool = False) -> bool:
    """Run it in a process of its own; whether that was killed."""

    def work() -> None:
        if host_only:
            identity = Identity.parse((folder / "keys" / "identity.txt").read_text())
            new_host(LocalStorage(folder / "repository"), identity, folder / "keys" / "host.key")
        else:
            _init(folder)

    return killed(work, killer)


def _init(folder: Path) -> None:
    keys = folder / "keys"
    initialise(LocalStorage(folder / "repository"), keys / "identity.txt", keys / "host.key", now=NOW)


def _whole(folder: Path) -> Repository:
    """It opens with both keys, holds nothing unknown, and no key waits or lies about unfinished."""
    keys = folder / "keys"
    assert sorted(p.name for p in keys.iterdir()) == ["host.key", "identity.txt"]
    assert all(p.stat().st_mode & 0o077 == 0 for p in keys.iterdir())
    identity = Identity.parse((keys / "identity.txt").read_text())
    host = HostKey.parse((keys / "host.key").read_text())
    repo = Repository.open(LocalStorage(folder / "repository"), identity=identity, host=host)
    assert repo.can_write and repo.can_read_data and repo.wrong_scripts == []
    return repo


def _steps(folder: Path, *, host_only: bool = False) -> int:
    killer = Killer(count=folder / "count", fine=True, whom="me")
    assert not _child(folder, killer, host_only=host_only)
    return len(killer.writes)


def test_init_killed_at_every_step(tmp_path: Path) -> None:
    """Each write of the store and of a key file, and each step of the file system inside them, before and after."""
    (tmp_path / "counted").mkdir()
    steps = _steps(tmp_path / "counted")
    assert steps > 40
    _whole(tmp_path / "counted")
    cut_short = 0
    # After one step is before the next.
    for at, when in [*((n, "before") for n in range(1, steps + 1)), (steps, "after")]:
        folder = tmp_path / f"{at}-{when}"
        folder.mkdir()
        assert _child(folder, Killer(count=folder / "count", at=at, when=when, fine=True, whom="me"))
        try:
            _init(folder)
        except RepositoryExists:
            assert at > steps - 3, at  # the killed one was whole
        else:
            cut_short += 1
        _whole(folder)
        shutil.rmtree(folder)
    assert cut_short >= steps - 3


def test_init_killed_twice(tmp_path: Path) -> None:
    """The run that clears up is killed as well, at every third of its steps."""
    at = 1
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        assert _child(folder, Killer(count=folder / "one", at=30, fine=True, whom="me"))
        if not _child(folder, Killer(count=folder / "two", at=at, fine=True, whom="me")):
            break
        with contextlib.suppress(RepositoryExists):
            _init(folder)
        _whole(folder)
        shutil.rmtree(folder)
        at += 3
    assert at > 40


def test_new_host_key_killed_at_every_step(tmp_path: Path) -> None:
    """The identity is there, the host key was lost: killed while another is made, then run again."""
    made = tmp_path / "made"
    _init(made)
    (made / "keys" / "host.key").unlink()
    shutil.copytree(made, tmp_path / "counted")
    steps = _steps(tmp_path / "counted", host_only=True)
    assert steps > 15
    for at in range(1, steps + 1):
        folder = tmp_path / str(at)
        shutil.copytree(made, folder)
        assert _child(folder, Killer(count=folder / "count", at=at, fine=True, whom="me"), host_only=True)
        identity = Identity.parse((folder / "keys" / "identity.txt").read_text())
        if not (folder / "keys" / "host.key").exists():
            new_host(LocalStorage(folder / "repository"), identity, folder / "keys" / "host.key")
        for waiting in (folder / "keys").glob("*.init-*"):
            assert waiting.read_bytes() == (folder / "keys" / "host.key").read_bytes()
            waiting.unlink()
        _whole(folder)
        shutil.rmtree(folder)


def test_keys_of_others_are_never_taken(tmp_path: Path) -> None:
    """A half-made repository, and key files that may be in use elsewhere: refused, the files as they were."""
    _init(tmp_path / "used")
    (tmp_path / "half").mkdir()
    assert _child(tmp_path / "half", Killer(count=tmp_path / "count", at=30, fine=True, whom="me"))
    shutil.rmtree(tmp_path / "half" / "keys")
    shutil.copytree(tmp_path / "used" / "keys", tmp_path / "half" / "keys")
    before = {p.name: p.read_bytes() for p in (tmp_path / "half" / "keys").iterdir()}
    with pytest.raises(UsageError, match="exists already"):
        _init(tmp_path / "half")
    assert {p.name: p.read_bytes() for p in (tmp_path / "half" / "keys").iterdir()} == before


@pytest.mark.parametrize("gone", [("pgkura-repository",), ("pgkura-repository", "restore.sh", "keys/host-*")])
def test_half_made_with_its_keys_in_place(gone: tuple[str, ...], tmp_path: Path) -> None:
    """By the command line, as older versions left it: both keys there, no head. The same keys are used."""
    desk = Desk(tmp_path)
    desk.run("init").expect()
    keys = desk.identity.read_bytes(), desk.host_key.read_bytes()
    for pattern in gone:
        for path in desk.repository.glob(pattern):
            path.unlink()
    told = desk.run("init", "--json").expect().json
    assert told["made"] == "rest"
    assert (desk.identity.read_bytes(), desk.host_key.read_bytes()) == keys
    _whole(tmp_path)


def test_a_repository_that_lost_its_head_is_not_half_made(tmp_path: Path) -> None:
    """Where anything was ever backed up, `init` touches nothing."""
    desk = Desk(tmp_path)
    desk.run("init").expect()
    desk.run("verify").expect()  # a record in the journal
    (desk.repository / "pgkura-repository").unlink()
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    desk.run("init").expect(11)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before
