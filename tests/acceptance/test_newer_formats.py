"""Files of a later format: every kind is told as such, with exit 17, by every verb that reads it; never as damage."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.support.cli import Desk
from tests.support.servers import Server, newest

from pgkura.core.errors import FormatTooNew
from pgkura.core.progress import Silent
from pgkura.operations.verify import verify_repository
from pgkura.repository import canonical, manifest
from pgkura.repository.container import ROOT, open_signature, seal_signature
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.repository.seal import pack_record, unpack_record
from pgkura.storage.local import LocalStorage

READS: dict[str, tuple[str, ...]] = {
    "pgkura-repository": ("show", "backup", "verify"),
    "keys/epoch-*": ("restore", "verify"),
    "keys/host-*": ("snapshots", "verify"),
    "keys/shared-*": ("restore", "backup", "verify"),
    "keys/scripts": ("verify",),
    "index/*": ("backup", "verify"),
    "references/*": ("verify",),
    "state/*": ("verify",),
    "snapshots/*": ("show", "snapshots", "restore", "backup", "verify"),
    "journal/*": ("snapshots", "backup", "verify"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A small repository with a proof in its journal."""

    desk: Desk
    server: Server
    source: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Made once; copies are changed."""
    home = newest()
    source = home.create_database("later_source")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.lessons AS SELECT g AS id FROM generate_series(1, 100) g")
    desk = Desk(tmp_path_factory.mktemp("later"))
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    desk.run("verify", "latest", "--against", source).expect()
    yield Scene(desk=desk, server=home, source=source)
    home.drop_database("later_source")


@pytest.fixture
def desk(scene: Scene, tmp_path: Path) -> Desk:
    """A copy with the same keys."""
    copy = Desk(tmp_path / "desk")
    shutil.copytree(scene.desk.repository, copy.repository)
    shutil.copytree(scene.desk.identity.parent, copy.identity.parent)
    return copy


def test_the_table_above_is_complete(scene: Scene) -> None:
    """Every signed kind of file that a repository holds after its first backup and proof."""
    folder = scene.desk.repository
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file() and path.read_bytes().startswith(b"pgkura1 "):
            assert any(Path(name).match(kind) for kind in READS), name


@pytest.mark.parametrize("kind", READS)
def test_later_header(kind: str, desk: Desk, scene: Scene) -> None:
    """`pgkura2` in the header line."""
    for path in desk.repository.glob(kind):
        path.write_bytes(path.read_bytes().replace(b"pgkura1 ", b"pgkura2 ", 1))
    words = {"restore": ("restore", "latest", "--to", scene.source, "--yes"), "show": ("show", "latest")}
    for verb in READS[kind]:
        done = desk.run(*words.get(verb, (verb,)), "--json", env={"DATABASE_URL": scene.source}).expect(17)
        assert "format 2" in done.out + done.err and "Traceback" not in done.err, (kind, verb, done)


def test_damage_beside_a_later_file_is_damage(desk: Desk) -> None:
    """`use a newer pgkura` would not help there."""
    for path in desk.repository.glob("index/*"):
        path.write_bytes(path.read_bytes().replace(b"pgkura1 ", b"pgkura2 ", 1))
    victim = max((p for p in desk.repository.glob("data/*/*")), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    desk.run("verify", "--json").expect(16)


# --- versions inside, under a true signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A repository with all keys, to write what a later program would."""

    repo: Repository
    identity: Identity
    folder: Path

    def rewrite(self, kind: str, pattern: str, change: Callable[[bytes], bytes]) -> None:
        """Change the payload of all records of a kind, sealed and signed as their host would."""
        for path in self.folder.glob(pattern):
            key = str(path.relative_to(self.folder))
            _, payload = self.repo.open_record(kind, key, path.read_bytes())
            path.write_bytes(self.repo._seal_record(kind, key, change(payload)))

    def resign(self, kind: str, pattern: str, change: Callable[[bytes], bytes]) -> None:
        """Change the body of all files of a kind, signed as the root would."""
        for path in self.folder.glob(pattern):
            key = str(path.relative_to(self.folder))
            repository = self.repo.repository_id
            signers = {ROOT: self.identity.root.public_key()}
            _, body = open_signature(path.read_bytes(), kind, repository, key, signers)
            made = seal_signature(kind, repository, key, change(body), signer=ROOT, private=self.identity.root)
            path.write_bytes(made)


@pytest.fixture
def opened(desk: Desk) -> Opened:
    """The copy, opened in this process."""
    identity, host = Identity.parse(desk.identity.read_text()), HostKey.parse(desk.host_key.read_text())
    repo = Repository.open(LocalStorage(desk.repository), identity=identity, host=host)
    return Opened(repo=repo, identity=identity, folder=desk.repository)


def _reopened(opened: Opened, desk: Desk) -> Repository:
    host = HostKey.parse(desk.host_key.read_text())
    return Repository.open(LocalStorage(desk.repository), identity=opened.identity, host=host)


def _version_two(record: bytes) -> bytes:
    return canonical.encode(canonical.decode(record, "a record") | {"version": 2})


def test_later_index_list(opened: Opened, desk: Desk) -> None:
    """`pgkura-index 2`."""
    opened.rewrite("index", "index/*", lambda p: p.replace(b"pgkura-index\t1\n", b"pgkura-index\t2\n", 1))
    assert verify_repository(opened.repo, "", progress=Silent()).exit_code == 17


def test_later_chunk_list(opened: Opened, desk: Desk) -> None:
    """`pgkura-chunks 3`, stored as a component of a snapshot like any other."""
    repo = opened.repo
    made = repo.manifest("latest")
    writer = repo.pack_writer()
    writer.begin("chunks")
    writer.write(repo.component(made, "chunks").replace(b"pgkura-chunks\t2\n", b"pgkura-chunks\t3\n", 1))
    writer.end(0)
    writer.flush()
    ((_, ref, _),) = writer.drain()
    parts = {
        **made.components,
        "chunks": manifest.Component(fingerprint=made.components["chunks"].fingerprint, ref=ref),
    }
    changed = {f: getattr(made, f) for f in made.__dataclass_fields__} | {"components": parts}
    opened.rewrite("manifest", "snapshots/*", lambda _: manifest.encode(manifest.Manifest(**changed)))
    for file in (desk.repository / "references").iterdir():
        file.unlink()  # it does not name the list that was put in
    assert verify_repository(opened.repo, "", progress=Silent()).exit_code == 17
    with pytest.raises(FormatTooNew):
        list(repo.chunk_list(repo.manifest("latest")))


def test_later_manifest_record(opened: Opened, desk: Desk) -> None:
    """`"version":3` in the first line."""

    def change(payload: bytes) -> bytes:
        line, newline, rest = payload.partition(b"\n")
        later = canonical.encode(canonical.decode(line, "a record") | {"version": 3})
        return later + newline + rest

    opened.rewrite("manifest", "snapshots/*", change)
    assert verify_repository(opened.repo, "", progress=Silent()).exit_code == 17
    with pytest.raises(FormatTooNew):
        opened.repo.manifest("latest")


def test_later_journal_record(opened: Opened, desk: Desk) -> None:
    """`"version":2` in the record."""
    opened.rewrite("journal", "journal/*", _version_two)
    assert verify_repository(opened.repo, "", progress=Silent()).exit_code == 17
    with pytest.raises(FormatTooNew):
        list(opened.repo.journal())


def test_later_records_of_keys(opened: Opened, desk: Desk) -> None:
    """Hosts, and what hosts share."""
    secrets = opened.repo._keys.secrets
    recipients = opened.repo._keys.recipients

    def shared(body: bytes) -> bytes:
        return pack_record(_version_two(unpack_record(body, secrets, "shared")), recipients)

    before = {p: p.read_bytes() for p in opened.folder.glob("keys/*")}
    for kind, pattern, change in (("host", "keys/host-*", _version_two), ("shared", "keys/shared-*", shared)):
        opened.resign(kind, pattern, change)
        with pytest.raises(FormatTooNew):
            _reopened(opened, desk)
        for path, content in before.items():
            path.write_bytes(content)
    _reopened(opened, desk)


def test_later_format_of_the_repository(opened: Opened, desk: Desk) -> None:
    """`"format":2` under the root's signature."""
    opened.resign(
        "repository",
        "pgkura-repository",
        lambda body: canonical.encode(canonical.decode(body, "head") | {"format": 2}),
    )
    with pytest.raises(FormatTooNew):
        _reopened(opened, desk)


def test_later_host_key_file(desk: Desk, scene: Scene) -> None:
    """A key file of a later program is not called damaged."""
    text = desk.host_key.read_text()
    desk.host_key.write_text(text.replace("pgkura-host-key 1", "pgkura-host-key 2"))
    desk.run("backup", env={"DATABASE_URL": scene.source}).expect(17)
