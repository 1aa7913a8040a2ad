"""Damage and forgery: each byte range of each kind of file; told by name, and never restored as if it were right."""

import base64
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pyrage
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.support import compare
from tests.support.cli import Desk, Done
from tests.support.servers import Server, newest

SCHEMA = """
CREATE TABLE public.lessons (id integer PRIMARY KEY, title text NOT NULL);
INSERT INTO public.lessons SELECT g, 'lesson ' || md5(g::text) FROM generate_series(1, 2000) g;
CREATE TABLE public.slots (id bigint GENERATED ALWAYS AS IDENTITY, lesson integer REFERENCES public.lessons);
INSERT INTO public.slots (lesson) SELECT g FROM generate_series(1, 500) g;
"""
KINDS = (
    "pgkura-repository", "RESTORE.md", "restore.sh", "keys/scripts", "keys/epoch-*", "keys/shared-*", "keys/host-*",
    "data/*/*", "index/*", "references/*", "snapshots/*", "state/*", "journal/*",
)  # fmt: skip
# damage that leaves everything a restore needs: it must succeed, and equal
HARMLESS = ("index/*", "references/*", "state/*", "journal/*", "RESTORE.md", "restore.sh", "keys/scripts")
# damage that a restore survives with the identity alone; with a host key, which must know the newest, it is refused
EITHER = ("keys/shared-*",)
DOCUMENTED = (10, 12, 16, 17)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A repository with two snapshots and a proof, and its source."""

    desk: Desk
    server: Server
    source: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Made once; damage is done to copies."""
    home = newest()
    source = home.create_database("damage_source")
    desk = Desk(tmp_path_factory.mktemp("damage"))
    desk.run("init").expect()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(SCHEMA.encode())
        desk.run("backup", env={"DATABASE_URL": source}).expect()
        connection.execute("INSERT INTO public.slots (lesson) SELECT g FROM generate_series(501, 900) g")
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    desk.run("verify").expect()
    assert all(list(desk.repository.glob(kind)) for kind in KINDS)
    yield Scene(desk=desk, server=home, source=source)


def damaged(scene: Scene, folder: Path) -> Desk:
    """A copy of the repository with the same keys, to be damaged."""
    copy = Desk(folder)
    shutil.copytree(scene.desk.repository, copy.repository)
    shutil.copytree(scene.desk.identity.parent, copy.identity.parent)
    return copy


def _flip(place: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[min(int(len(content) * place), len(content) - 1)] ^= 1
        path.write_bytes(content)

    return spoil


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


SPOILS: dict[str, Callable[[Path], None]] = {
    "first byte": _flip(0),
    "header": _flip(0.05),
    "quarter": _flip(0.25),
    "middle": _flip(0.5),
    "last byte": _flip(1),
    "one byte short": _cut,
    "half": _half,
    "one byte more": _longer,
    "empty": _empty,
    "deleted": Path.unlink,
}


def told(done: Done, path: Path, repository: Path) -> None:
    """A documented code, the file by name, no traceback."""
    name = str(path.relative_to(repository))
    assert done.code in DOCUMENTED, f"{name}: exit {done.code}\n{done.out}\n{done.err}"
    assert "Traceback" not in done.err
    assert name in done.out + done.err, f"{name} is not named:\n{done.out}\n{done.err}"


# Each byte range of each kind: tests/hostile/test_flipped_bits.py, in one process. Here a choice, by the command line.
CHOSEN = ("header", "middle", "last byte", "half", "one byte more", "deleted")


@pytest.mark.parametrize("spoil", CHOSEN)
@pytest.mark.parametrize("kind", KINDS)
def test_verify_names_the_file(kind: str, spoil: str, scene: Scene, tmp_path: Path) -> None:
    """With the identity everything is read; with the host key alone the sealed form, which holds every file too."""
    desk = damaged(scene, tmp_path)
    path = sorted(desk.repository.glob(kind))[-1]
    SPOILS[spoil](path)
    deep = desk.run("verify", "--json")
    unmissed = (
        "snapshots/*", "references/*", "state/*", "journal/*", "index/*", "keys/scripts", "keys/shared-*",
    )  # fmt: skip
    if spoil == "deleted" and kind in unmissed:
        # A whole record that is gone leaves no trace; a missing snapshot is missed by whoever looks for it.
        assert deep.code in (0, *DOCUMENTED)
        return
    told(deep, path, desk.repository)
    if spoil not in ("header", "middle", "one byte more", "deleted"):
        return
    desk.identity.unlink()
    sealed = desk.run("verify", "--json")
    told(sealed, path, desk.repository)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [(k, s) for k in KINDS for s in ("middle", "half", "deleted") if s == "middle" or k not in HARMLESS],
)
def test_restore_is_refused_or_right(kind: str, spoil: str, scene: Scene, tmp_path: Path) -> None:
    """All files of a kind are damaged: an error, or (where the rows do not need them) a proof that is equal."""
    desk = damaged(scene, tmp_path)
    for path in desk.repository.glob(kind):
        SPOILS[spoil](path)
    target = scene.server.create_database("damage_target")
    done = desk.run("restore", "latest", "--to", target, "--json")
    assert "Traceback" not in done.err
    if kind in HARMLESS or (kind in EITHER and done.code == 0):
        assert done.expect().json["proof"]["equal"] is True
        compare.assert_same(scene.source, target)
        return
    assert done.code in DOCUMENTED, f"exit {done.code}\n{done.out}\n{done.err}"
    assert done.json["result"] == "failed" and "proof" not in done.json


@pytest.mark.parametrize("kind", ["data/*/*", "snapshots/*", "references/*", "index/*", "journal/*"])
def test_swapped_files_are_told(kind: str, scene: Scene, tmp_path: Path) -> None:
    """Two whole, well-signed files in each other's place: an old snapshot never passes for the newest."""
    desk = damaged(scene, tmp_path)
    files = sorted(desk.repository.glob(kind))
    if kind == "data/*/*":
        # Their names are random. No restore needs lists of places, but every one needs what is in the largest.
        files = sorted(files, key=lambda path: path.stat().st_size)[-2:]
    first, *_, last = files
    a, b = first.read_bytes(), last.read_bytes()
    first.write_bytes(b)
    last.write_bytes(a)
    told(desk.run("verify", "--json"), first, desk.repository)
    if kind in HARMLESS:
        return
    # These two may be needed by one of the snapshots only.
    wanted = [s["id"] for s in desk.run("snapshots", "--json").json["snapshots"]] if kind == "data/*/*" else ["latest"]
    codes = set()
    for snapshot in wanted:
        target = scene.server.create_database("damage_target")
        codes.add(desk.run("restore", snapshot, "--to", target, "--json").code)
    assert 16 in codes and codes <= {0, 16}


def test_the_sealed_form_names_the_snapshots_that_damage_touches(scene: Scene, tmp_path: Path) -> None:
    """With the host key alone: by the references, those that need the file and no others."""
    desk = damaged(scene, tmp_path)
    desk.identity.unlink()
    first, last = (s["id"] for s in desk.run("snapshots", "--json").expect().json["snapshots"])
    touched = set()
    for path in sorted(desk.repository.glob("data/*/*")):
        whole = path.read_bytes()
        _flip(0.5)(path)
        problems = desk.run("verify", "--json").expect(16).json["proof"]["problems"]
        assert [p["file"] for p in problems] == [str(path.relative_to(desk.repository))]
        touched.add(tuple(problems[0]["snapshots"]))
        path.write_bytes(whole)
    assert touched >= {(first, last), (last,)}


def test_backup_after_damage_does_not_build_on_it(scene: Scene, tmp_path: Path) -> None:
    """A lost object is stored anew by the next backup, which then restores."""
    desk = damaged(scene, tmp_path)
    shutil.rmtree(desk.repository / "data")
    made = desk.run("backup", "--json", env={"DATABASE_URL": scene.source}).expect().json
    target = scene.server.create_database("damage_target")
    desk.run("restore", made["snapshot"], "--to", target).expect()
    compare.assert_same(scene.source, target)


# --- forged manifests


def _signature(desk: Desk, key: str, signer: str, private: Ed25519PrivateKey, body: bytes) -> bytes:
    head = (desk.repository / "pgkura-repository").read_bytes().partition(b"\n")[2]
    repository_id = head.split(b'"repository":"')[1][:32]
    parts = (b"pgkura/v1/manifest", repository_id, key.encode(), signer.encode())
    return base64.b64encode(private.sign(b"\0".join(parts) + b"\0" + hashlib.sha256(body).digest()))


def _hand_made_body(desk: Desk, manifest: Path) -> bytes:
    """The true manifest, altered, sealed again for everybody who may read it: age itself asks for no proof."""
    epoch_file = (desk.repository / "keys" / "epoch-0001").read_bytes().partition(b"\n")[2]
    secret = next(x for x in desk.identity.read_text().splitlines() if x.startswith("AGE-SECRET-KEY-1"))
    opened = pyrage.decrypt(epoch_file, [pyrage.x25519.Identity.from_str(secret)]).decode()
    epoch = pyrage.x25519.Identity.from_str(next(x for x in opened.splitlines() if x.startswith("AGE-SECRET")))
    sealed = manifest.read_bytes().partition(b"\n")[2]
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(pyrage.decrypt(sealed, [epoch]))
    altered = plain.replace(b'"result":"ok"', b'"result":"OK"')
    assert altered != plain
    return bytes(pyrage.encrypt(zstandard.ZstdCompressor().compress(altered), [epoch.to_public()]))


@pytest.mark.parametrize("how", ["unsigned", "old signature", "stranger", "stranger as root", "stranger as host"])
def test_forged_manifest_is_refused(how: str, scene: Scene, tmp_path: Path) -> None:
    """Valid age for the right recipients, a newer name than any: exit 16 for restore, verify, show and export."""
    desk = damaged(scene, tmp_path)
    true = sorted((desk.repository / "snapshots").iterdir())[-1]
    header = true.read_bytes().partition(b"\n")[0].split(b" ")
    host = header[2].decode()
    body = _hand_made_body(desk, true)
    key = "snapshots/20991231T235959Z-ffffff"
    stranger = Ed25519PrivateKey.from_private_bytes(os.urandom(32))
    signers = {"stranger": "mallory", "stranger as root": "root", "stranger as host": host}
    if how == "unsigned":
        forged = body
    elif how == "old signature":
        forged = b" ".join(header) + b"\n" + body
    else:
        signer = signers[how]
        signature = _signature(desk, key, signer, stranger, body)
        forged = b" ".join((b"pgkura1", b"manifest", signer.encode(), signature)) + b"\n" + body
    (desk.repository / key).write_bytes(forged)
    target = scene.server.create_database("damage_target")
    for verb in (
        ("restore", "latest", "--to", target),
        ("show", "latest"),
        ("verify",),
        ("export", "latest", str(tmp_path / "out")),
    ):
        done = desk.run(*verb, "--json").expect(16)
        assert key in done.out + done.err and "Traceback" not in done.err
    before = sorted(p.name for p in (scene.desk.repository / "snapshots").iterdir())
    desk.run("restore", before[-1], "--to", target).expect()
    compare.assert_same(scene.source, target)


def test_replaced_repository_is_refused(scene: Scene, tmp_path: Path) -> None:
    """A whole repository of somebody else in the place of ours: the keys at hand do not belong to it."""
    desk = damaged(scene, tmp_path / "mine")
    other = Desk(tmp_path / "other")
    other.run("init").expect()
    shutil.rmtree(desk.repository)
    shutil.copytree(other.repository, desk.repository)
    desk.run("backup", env={"DATABASE_URL": scene.source}).expect(12)
    desk.run("verify").expect(12)


@pytest.mark.parametrize("kind", ["snapshots/*", "journal/*-proof"])
def test_the_others_are_still_listed(kind: str, scene: Scene, tmp_path: Path) -> None:
    """What is whole is shown beside the name of what is not: it is needed then; and it restores."""
    desk = damaged(scene, tmp_path)
    desk.run("verify", "latest", "--against", scene.source)
    before = [s["id"] for s in desk.run("snapshots", "--json").expect().json["snapshots"]]
    spoilt = sorted(desk.repository.glob(kind))[0]
    _flip(0.5)(spoilt)
    listed = desk.run("snapshots", "--json").expect(16).json
    whole = [s["id"] for s in listed["snapshots"]]
    assert whole == [s for s in before if s != spoilt.name] and whole
    assert any(spoilt.name in told for told in listed["damaged"]) and listed["result"] == "incomplete"
    assert spoilt.name in desk.run("snapshots").expect(16).out
    target = scene.server.create_database("damage_target")
    assert desk.run("restore", whole[-1], "--to", target, "--json").expect().json["proof"]["equal"] is True
