"""SIGKILL of the verbs that say who may do what, between every two steps: nobody comes in unseen, a rerun completes."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from tests.support.killing import Killer, killed
from tests.support.shelf import Shelf

from pgkura.core.errors import UsageError, WrongKey
from pgkura.operations.keys import add_host, add_person, list_people, new_epoch, remove_person, revoke_host
from pgkura.repository.admin import Root
from pgkura.repository.keys import HostKey, Identity, new_identity
from pgkura.repository.repository import Repository
from pgkura.repository.seal import unseal
from pgkura.storage.local import LocalStorage


@dataclass(slots=True)
class Scene:
    """A repository of two epochs with data in both, a person who may come in, one who may go, and a second host."""

    folder: Path
    shelf: Shelf
    come: Identity = field(default_factory=new_identity)
    go: Identity = field(default_factory=new_identity)
    second: str = ""

    @property
    def root(self) -> Identity:
        """Who changes things."""
        return self.shelf.keys.identity

    @property
    def storage(self) -> LocalStorage:
        """Opened anew."""
        return LocalStorage(self.folder / "repository")

    def at(self, folder: Path) -> "Scene":
        """A copy of it."""
        shutil.copytree(self.folder, folder)
        shelf = self.shelf.copy_at(LocalStorage(folder / "repository"))
        return Scene(folder, shelf, self.come, self.go, self.second)

    def host_key(self) -> Path:
        """Where `hosts add` writes it."""
        return self.folder / "third.key"

    def reads(self, person: Identity) -> int:
        """How many epochs an identity opens."""
        trust = Root.open(self.storage, self.root).trust
        bodies = (trust.open("epoch", key, self.storage.get(key)) for key in self.shelf.files("keys/epoch-"))
        return sum(_opens(body, person) for body in bodies)


def _opens(body: bytes, who: Identity) -> bool:
    try:
        unseal(body, [who.secret], "an epoch")
    except WrongKey:
        return False
    return True


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Worked on in copies."""
    folder = tmp_path_factory.mktemp("keys")
    scene = Scene(folder, Shelf(LocalStorage(folder / "repository")))
    add_person(scene.storage, scene.root, "go", scene.go.recipient)
    scene.shelf.add({"t": b"old\n"})
    new_epoch(scene.storage, scene.root)
    scene.shelf.add({"t": b"new\n"})
    scene.second = add_host(scene.storage, scene.root, "second", folder / "second.key").id
    return scene


def _hosts_write(scene: Scene, *, whole: bool, second: bool = True) -> None:
    """Whoever is a host makes a snapshot that is believed, and (it is looked at) everything is whole."""
    scene.shelf.add({"t": b"after\n"})
    key = HostKey.parse((scene.folder / "second.key").read_text())
    if second:
        scene.shelf.add({"t": b"by the second\n"}, repo=Repository.open(scene.storage, host=key))
    else:
        with pytest.raises(WrongKey, match="was revoked"):
            scene.shelf.add({"t": b"never\n"}, repo=Repository.open(scene.storage, host=key))
    if whole:
        scene.shelf.assert_whole()


def _come(scene: Scene) -> None:
    add_person(scene.storage, scene.root, "come", scene.come.recipient)


def _has_come(scene: Scene, *, done: bool) -> None:
    """Whoever reads anything is listed."""
    listed = "come" in {p.name for p in list_people(scene.storage, scene.root)}
    assert listed or scene.reads(scene.come) == 0
    assert not done or (listed and scene.reads(scene.come) == 2)
    assert scene.reads(scene.go) == 2
    _hosts_write(scene, whole=done)


def _go(scene: Scene) -> None:
    try:
        remove_person(scene.storage, scene.root, "go")
    except UsageError as gone:
        assert "nobody of the name" in gone.msg


def _has_gone(scene: Scene, *, done: bool) -> None:
    """Whoever is not listed reads nothing."""
    listed = "go" in {p.name for p in list_people(scene.storage, scene.root)}
    assert listed or scene.reads(scene.go) == 0
    assert not (done and listed)
    _hosts_write(scene, whole=done)


def _third(scene: Scene) -> None:
    path = scene.host_key()
    try:
        add_host(scene.storage, scene.root, "third", path)
    except UsageError as there:  # complete, or its key file lies there and the repository does not know of it
        if "there is a host" not in there.msg:
            path.unlink()
            add_host(scene.storage, scene.root, "third", path)


def _third_writes(scene: Scene, *, done: bool) -> None:
    if done:
        key = HostKey.parse(scene.host_key().read_text())
        scene.shelf.add({"t": b"by the third\n"}, repo=Repository.open(scene.storage, host=key))
    _hosts_write(scene, whole=done)


def _revoke(scene: Scene) -> None:
    revoke_host(scene.storage, scene.root, scene.second)


def _revoked(scene: Scene, *, done: bool) -> None:
    known = scene.second in Root.open(scene.storage, scene.root).trust.revoked
    assert known or not done
    _hosts_write(scene, whole=done, second=not known)


def _epoch(scene: Scene) -> None:
    if scene.shelf.host().epoch < 3:
        new_epoch(scene.storage, scene.root)


def _has_epoch(scene: Scene, *, done: bool) -> None:
    epoch = scene.shelf.host().epoch
    assert epoch == 3 or (epoch == 2 and not done)
    _hosts_write(scene, whole=done)
    assert scene.shelf.both().manifest("latest").epoch == epoch
    assert scene.reads(scene.go) >= epoch


VERBS: dict[str, tuple[Callable[[Scene], None], Callable[..., None]]] = {
    "people add": (_come, _has_come),
    "people remove": (_go, _has_gone),
    "hosts add": (_third, _third_writes),
    "hosts revoke": (_revoke, _revoked),
    "epoch new": (_epoch, _has_epoch),
}


@pytest.mark.parametrize("name", VERBS)
def test_killed_at_every_step(name: str, made: Scene, tmp_path: Path) -> None:
    """Each write of the store or of a key file, and each step of the file system inside them."""
    verb, check = VERBS[name]
    counted = made.at(tmp_path / "counted")
    counter = Killer(count=tmp_path / "count", fine=True, whom="me")
    assert not killed(partial(verb, counted), counter)
    check(counted, done=True)
    steps = len(counter.writes)
    assert steps > 5, counter.writes
    for step in range(1, steps + 1):
        scene = made.at(tmp_path / str(step))
        killer = Killer(count=tmp_path / f"count-{step}", at=step, fine=True, whom="me")
        assert killed(partial(verb, scene), killer), step
        check(scene, done=False)
        verb(scene)
        check(scene, done=True)
        shutil.rmtree(scene.folder)
