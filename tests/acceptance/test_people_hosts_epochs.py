"""People, hosts and epochs by the real command line: who reads, who writes, and what stays true afterwards."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pyrage
import pytest
from tests.support import compare
from tests.support.cli import Desk, Done, command
from tests.support.psql import client
from tests.support.servers import Server, needs, newest

from pgkura.repository import canonical
from pgkura.repository.container import seal_signature
from pgkura.repository.keys import HostKey, Identity

SCHEMA = """
CREATE TABLE public.lessons (id integer PRIMARY KEY, title text NOT NULL);
INSERT INTO public.lessons SELECT g, 'lesson ' || md5(g::text) FROM generate_series(1, 2000) g;
CREATE VIEW public.titles AS SELECT title FROM public.lessons;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A source with a repository that holds one snapshot."""

    desk: Desk
    server: Server
    source: str

    def sql(self, text: str) -> None:
        """At the source."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            connection.execute(text.encode())

    def backup(self, desk: Desk | None = None) -> Done:
        """Another snapshot."""
        return (desk or self.desk).run("backup", "--json", env={"DATABASE_URL": self.source})

    def restores(self, desk: Desk, snapshot: str = "latest", *, to: str = "keys_target") -> None:
        """The restore of a snapshot is proven equal."""
        target = self.server.create_database(to)
        done = desk.run("restore", snapshot, "--to", target, "--json", cwd=desk.folder).expect().json
        assert done["proof"]["equal"] is True


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Made once; tests get copies."""
    server = newest()
    desk = Desk(tmp_path_factory.mktemp("keys"))
    desk.run("init").expect()
    scene = Scene(desk=desk, server=server, source=server.create_database("keys_source"))
    scene.sql(SCHEMA)
    scene.backup().expect()
    return scene


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Iterator[Scene]:
    """The same with a repository of its own."""
    desk = Desk(tmp_path / "root")
    shutil.copytree(made.desk.repository, desk.repository)
    shutil.copytree(made.desk.identity.parent, desk.identity.parent)
    yield Scene(desk=desk, server=made.server, source=made.source)


def person(scene: Scene, name: str, *, add: bool = True) -> Desk:
    """A desk of somebody with an age identity of their own and no host key."""
    secret = pyrage.x25519.Identity.generate()
    desk = Desk(scene.desk.folder.parent / name)
    desk.environment["PGKURA_REPOSITORY"] = str(scene.desk.repository)
    desk.environment["PGKURA_HOST_KEY"] = str(desk.folder / "none")
    desk.identity.parent.mkdir(parents=True)
    lines = ""
    if add:
        done = scene.desk.run("people", "add", name, str(secret.to_public()), "--json").expect()
        lines = done.json["identity_lines"]
    desk.identity.write_text(f"# created: today\n{lines}{secret}\n")
    return desk


def host(scene: Scene, name: str) -> Desk:
    """A desk of another machine: a host key and no identity."""
    desk = Desk(scene.desk.folder.parent / name)
    desk.environment["PGKURA_REPOSITORY"] = str(scene.desk.repository)
    desk.host_key.parent.mkdir(parents=True)
    scene.desk.run("hosts", "add", name, "--write", str(desk.host_key)).expect()
    assert stat.S_IMODE(desk.host_key.stat().st_mode) == 0o600
    return desk


def host_id(scene: Scene, name: str) -> str:
    """By `hosts list`."""
    listed = scene.desk.run("hosts", "list", "--json").expect().json["hosts"]
    return str(next(h["id"] for h in listed if h["name"] == name))


def test_a_person_reads_and_signs_nothing(scene: Scene) -> None:
    """Lists, verifies, exports, restores with an identity of their own; the proof is saved beside."""
    desk = person(scene, "aiko")
    assert len(desk.run("snapshots", "--json").expect().json["snapshots"]) == 1
    assert desk.run("verify", "--json", cwd=desk.folder).expect().json["proof"]["form"] == "read"
    scene.restores(desk)
    assert sorted(p.name[:12] for p in desk.folder.glob("pgkura-*.json")) == ["pgkura-check", "pgkura-proof"]
    desk.run("export", "latest", str(desk.folder / "out")).expect()
    listed = desk.run("people", "list", "--json").expect().json["people"]
    assert [p["name"] for p in listed] == ["root", "aiko"]
    for words in (("people", "remove", "aiko"), ("epoch", "new"), ("hosts", "revoke", "x")):
        refused = desk.run(*words).expect(12)
        assert "only the root" in refused.err
    assert desk.run("backup", env={"DATABASE_URL": scene.source}).expect(12).err


def test_stock_age_opens_an_epoch_for_a_person(scene: Scene) -> None:
    """`tail -n +2 keys/epoch-0001 | age -d -i identity`, and the repository's own script."""
    needs("the program age", shutil.which("age") is not None)
    desk = person(scene, "bo")
    line = f"tail -n +2 {scene.desk.repository}/keys/epoch-0001 | age -d -i {desk.identity}"
    assert "AGE-SECRET-KEY-1" in command(["bash", "-c", line], desk.environment).expect().out


def test_a_person_who_does_not_say_whom_to_trust(scene: Scene) -> None:
    """Without the comment lines there is no root to trust; with those of another repository neither."""
    desk = person(scene, "chi")
    text = desk.identity.read_text()
    desk.identity.write_text(text.splitlines()[-1] + "\n")
    assert "# root:" in desk.run("snapshots").expect(12).err
    desk.identity.write_text(text.replace("# root: ", "# root: 00"))
    assert "another repository" in desk.run("snapshots").expect(12).err
    assert text.splitlines()[-1] not in desk.run("snapshots").err


def test_strangers_and_the_removed(scene: Scene) -> None:
    """A stranger opens nothing; a removed person opens nothing any more, but keeps what was copied."""
    stranger = person(scene, "dai", add=False)
    eve = person(scene, "eve")
    stranger.identity.write_text(eve.identity.read_text().rpartition("AGE-")[0] + stranger.identity.read_text())
    stranger.identity.write_text(
        "\n".join(x for x in stranger.identity.read_text().splitlines() if not x.startswith("# created")) + "\n"
    )
    assert "not among the people" in stranger.run("snapshots").expect(12).err
    kept = scene.desk.folder / "copied"
    shutil.copytree(scene.desk.repository / "keys", kept)
    scene.desk.run("people", "remove", "eve").expect()
    assert "not among the people" in eve.run("snapshots").expect(12).err
    scene.restores(scene.desk)
    # What the threat model says: the copy of the key file still opens this epoch, new snapshots included.
    shutil.copy(kept / "epoch-0001", scene.desk.repository / "keys" / "epoch-0001")
    scene.backup().expect()
    scene.restores(eve)
    # ... and a new epoch ends that.
    scene.desk.run("people", "remove", "eve").expect(2)
    scene.desk.run("epoch", "new").expect()
    newer = scene.backup().expect().json["snapshot"]
    assert eve.run("show", newer).expect(12).err


@pytest.mark.parametrize(
    ("name", "recipient", "word"),
    [
        ("frank", "age1nonsense", "no age recipient"),
        ("frank", "SECRET", "secret key"),
        ("root", "RECIPIENT", "cannot be a name"),
        ("a\nb", "RECIPIENT", "cannot be a name"),
    ],
)
def test_people_that_cannot_be(scene: Scene, name: str, recipient: str, word: str) -> None:
    """Usage errors; a secret key is not repeated in the message."""
    secret = pyrage.x25519.Identity.generate()
    real = {"SECRET": str(secret), "RECIPIENT": str(secret.to_public())}.get(recipient, recipient)
    done = scene.desk.run("people", "add", name, real).expect(2)
    assert word in done.err
    assert "AGE-SECRET-KEY-1" not in done.err + done.out


def test_adding_twice_completes_and_names_are_unique(scene: Scene) -> None:
    """The same again is no error; another recipient under the name is."""
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    for _ in range(2):
        scene.desk.run("people", "add", "gil", recipient).expect()
    other = str(pyrage.x25519.Identity.generate().to_public())
    assert "already" in scene.desk.run("people", "add", "gil", other).expect(2).err
    assert "already" in scene.desk.run("people", "add", "hal", recipient).expect(2).err


def test_another_host_backs_up_and_knows_the_past(scene: Scene) -> None:
    """A later host lists earlier snapshots, reuses their chunks, and its snapshots restore."""
    desk = host(scene, "second")
    assert len(desk.run("snapshots", "--json").expect().json["snapshots"]) == 1
    done = scene.backup(desk).expect().json
    assert done["chunks_unchanged"] == done["chunks"] > 0
    scene.restores(scene.desk)
    assert len(scene.desk.run("snapshots", "--json").expect().json["snapshots"]) == 2
    assert desk.run("verify", "--json").expect().json["result"] == "ok"
    assert "already" in scene.desk.run("hosts", "add", "second", "--write", str(desk.folder / "x")).expect(2).err
    assert "exists" in scene.desk.run("hosts", "add", "third", "--write", str(desk.host_key)).expect(2).err


def test_a_revoked_host(scene: Scene) -> None:
    """Its snapshots of before restore; it can open nothing; what it still writes is ignored by name."""
    desk = host(scene, "stolen")
    before = scene.backup(desk).expect().json["snapshot"]
    thief = Desk(scene.desk.folder.parent / "thief")
    shutil.copytree(scene.desk.repository, thief.repository)
    shutil.copytree(desk.host_key.parent, thief.host_key.parent)
    told = scene.desk.run("hosts", "revoke", "stolen", "--json").expect().json
    assert told["snapshots"] == 1 and told["files"] >= 2
    assert "was revoked" in scene.backup(desk).expect(12).err
    # A thief writes into a copy of before, and puts the files into the store.
    late = scene.backup(thief).expect().json["snapshot"]
    for folder in ("snapshots", "index", "journal", "data"):
        shutil.copytree(thief.repository / folder, scene.desk.repository / folder, dirs_exist_ok=True)
    listed = scene.desk.run("snapshots", "--json").expect()
    assert late not in [s["id"] for s in listed.json["snapshots"]]
    assert f"snapshots/{late} is ignored" in listed.err
    assert before in [s["id"] for s in listed.json["snapshots"]]
    scene.restores(scene.desk, before)
    checked = scene.desk.run("verify", "--json").expect().json
    assert any(late in line for line in checked["ignored"]) and checked["problems"] == []
    scene.backup().expect()
    scene.restores(scene.desk)
    # An old file of its own, signed anew with other bytes: not the one that was counted.
    key = HostKey.parse(thief.host_key.read_text())
    path = f"snapshots/{before}"
    body = (thief.repository / "snapshots" / late).read_bytes().partition(b"\n")[2]
    forged = seal_signature("manifest", key.repository_id, path, body, signer=key.host_id, private=key.signing)
    (scene.desk.repository / path).write_bytes(forged)
    assert "revoked host" in scene.desk.run("show", before).expect(16).err


def test_a_revocation_that_was_taken_away(scene: Scene) -> None:
    """Deleting the file does not bring the host back."""
    host(scene, "stolen")
    scene.desk.run("hosts", "revoke", "stolen").expect()
    (scene.desk.repository / "keys" / f"revoked-{host_id(scene, 'stolen')}").unlink()
    assert "is missing" in scene.desk.run("snapshots").expect(16).err


def test_revoking_since_a_time(scene: Scene) -> None:
    """What the host wrote from a time on is not believed, though it was there before the revocation."""
    desk = host(scene, "doubtful")
    first = scene.backup(desk).expect().json["snapshot"]
    second = scene.backup(desk).expect().json["snapshot"]
    for path in (scene.desk.repository / "snapshots").iterdir():
        os.utime(path, (2_000_000_000, 2_000_000_000) if path.name == second else (1_700_000_000, 1_700_000_000))
    scene.desk.run("hosts", "revoke", "doubtful", "--since", "2030-01-01").expect()
    listed = [s["id"] for s in scene.desk.run("snapshots", "--json").expect().json["snapshots"]]
    assert first in listed and second not in listed


def test_a_new_epoch(scene: Scene) -> None:
    """Hosts learn of it alone; everything is stored once more; both epochs restore, verify and diff."""
    desk = host(scene, "second")
    mine = person(scene, "ivo")
    first = scene.desk.run("snapshots", "--json").expect().json["snapshots"][0]["id"]
    assert scene.desk.run("epoch", "new", "--json").expect().json["epoch"] == 2
    second = scene.backup(desk).expect().json
    assert second["chunks_unchanged"] == 0
    third = scene.backup().expect().json
    assert third["chunks_unchanged"] == third["chunks"] > 0
    for snapshot in (first, second["snapshot"], third["snapshot"]):
        scene.restores(mine, snapshot)
    assert scene.desk.run("verify", "--json").expect().json["result"] == "ok"
    assert scene.desk.run("diff", first, second["snapshot"]).expect().out.strip() == "no difference"
    # Fingerprints are keyed alike in all epochs: nothing changed, so the history has one version.
    assert len(scene.desk.run("history", "schema", "--json").expect().json["versions"]) == 1
    late = person(scene, "joe")
    scene.restores(late, first)
    scene.restores(late, third["snapshot"])
    desk.identity.unlink(missing_ok=True)
    assert desk.run("verify", "--json").expect().json["proof"]["form"] == "sealed"


def test_the_way_out_after_a_new_epoch(scene: Scene) -> None:
    """The repository's own script gets snapshots of both epochs out, for a person who is not the root."""
    for tool in ("age", "zstd"):
        needs(f"the program {tool}", shutil.which(tool) is not None)
    tools = scene.desk.folder / "tools"
    tools.mkdir()
    for name in ("psql", "pg_restore"):
        (tools / name).write_text(f'#!/bin/sh\nexec {client(name, scene.server.version)} "$@"\n')
        (tools / name).chmod(0o755)
    first = scene.desk.run("snapshots", "--json").expect().json["snapshots"][0]["id"]
    desk = person(scene, "kim")
    scene.desk.run("epoch", "new").expect()
    second = scene.backup().expect().json["snapshot"]
    for snapshot in (first, second):
        target = scene.server.create_database("keys_way_out")
        argv = ["bash", str(scene.desk.repository / "restore.sh"), str(desk.identity), target, snapshot]
        command(argv, desk.environment | {"PATH": f"{tools}:{desk.environment['PATH']}"}).expect()
        compare.assert_same(scene.source, target)


def test_a_lost_epoch_costs_only_its_snapshots(scene: Scene) -> None:
    """Damage to an old epoch's file is named; newer snapshots restore; nobody is let in half."""
    first = scene.desk.run("snapshots", "--json").expect().json["snapshots"][0]["id"]
    scene.desk.run("epoch", "new").expect()
    scene.backup().expect()
    path = scene.desk.repository / "keys" / "epoch-0001"
    path.write_bytes(path.read_bytes()[:-1])
    scene.restores(scene.desk)
    checked = scene.desk.run("verify", "--json").expect(16).json
    assert any(p.startswith("keys/epoch-0001") for p in checked["problems"])
    assert "keys/epoch-0001" in scene.desk.run("show", first).err + scene.desk.run("verify", first).out
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    assert "keys/epoch-0001" in scene.desk.run("people", "add", "leo", recipient).expect(16).err


def test_an_epoch_that_was_cut_short(scene: Scene) -> None:
    """Its file without what hosts share is completed by the next try, and disturbs nobody before."""
    shared = scene.desk.repository / "keys" / "shared-0002"
    scene.desk.run("epoch", "new").expect()
    shared.unlink()
    assert scene.backup().expect().json["chunks_unchanged"] > 0
    assert scene.desk.run("epoch", "new", "--json").expect().json["epoch"] == 2
    assert scene.backup().expect().json["chunks_unchanged"] == 0


def copied(desk: Desk, source: Path, target: Path, *which: str) -> Done:
    """`copy` from one place to another with the keys of a desk."""
    return desk.run(
        "copy", *(which or ("--all",)), "--to-repository", str(target), "--json", env={"PGKURA_REPOSITORY": str(source)}
    )


def keys_at(place: Path) -> dict[str, bytes]:
    """All files of `keys/`."""
    return {path.name: path.read_bytes() for path in (place / "keys").iterdir()}


def test_an_older_copy_lets_nobody_back_in(scene: Scene) -> None:
    """A lost object comes back from it; a removed person does not, and what is newer goes the other way by itself."""
    here, there = scene.desk.repository, scene.desk.folder / "there"
    eve = person(scene, "eve")
    copied(scene.desk, here, there).expect()
    scene.desk.run("people", "remove", "eve").expect()
    after = keys_at(here)
    lost = next(path for path in (here / "data").rglob("*") if path.is_file())
    lost.unlink()
    done = copied(scene.desk, there, here).expect().json
    assert lost.is_file()
    assert any("keys/epoch-0001" in note and "older" in note for note in done["notes"])
    assert keys_at(here) == after
    assert "not among the people" in eve.run("snapshots").expect(12).err
    scene.desk.run("epoch", "new").expect()
    scene.backup().expect()
    assert "not among the people" in eve.run("snapshots").expect(12).err
    eve.run("snapshots", env={"PGKURA_REPOSITORY": str(there)}).expect()
    copied(scene.desk, here, there).expect()
    assert keys_at(there) == keys_at(here)
    eve.run("snapshots", env={"PGKURA_REPOSITORY": str(there)}).expect(12)


def test_an_older_copy_shuts_no_host_and_no_person_out(scene: Scene) -> None:
    """What a later host and a later person need stays where it is; `backup --also` brings it to the copy."""
    here, there = scene.desk.repository, scene.desk.folder / "there"
    copied(scene.desk, here, there).expect()
    second, jun = host(scene, "second"), person(scene, "jun")
    copied(scene.desk, there, here).expect()
    scene.backup(second).expect()
    jun.run("snapshots").expect()
    new = scene.desk.run("backup", "--also", str(there), "--json", env={"DATABASE_URL": scene.source}).expect().json
    assert keys_at(there) == keys_at(here)
    for desk in (second, jun):
        desk.run("show", new["snapshot"], env={"PGKURA_REPOSITORY": str(there)}).expect()


def test_keys_that_were_changed_at_both_places(scene: Scene) -> None:
    """Nobody knows which is right: refused by name, in both directions, before anything is written."""
    here, there = scene.desk.repository, scene.desk.folder / "there"
    for name in ("eve", "flo"):
        person(scene, name)
    copied(scene.desk, here, there).expect()
    scene.desk.run("people", "remove", "eve").expect()
    scene.desk.run("people", "remove", "flo", env={"PGKURA_REPOSITORY": str(there)}).expect()
    scene.backup().expect()
    before = [keys_at(here), keys_at(there)]
    for source, target in ((here, there), (there, here)):
        told = copied(scene.desk, source, target).expect(2)
        assert "keys/epoch-0001" in told.out + told.err
    assert [keys_at(here), keys_at(there)] == before
    # What the hint says: without the file that is not wanted, the other one goes there.
    for name in ("epoch-0001", "people"):
        (there / "keys" / name).unlink()
    copied(scene.desk, here, there).expect()
    assert all(keys_at(there)[name] == data for name, data in keys_at(here).items())


def test_a_damaged_key_file_is_mended_but_not_by_an_older_one(scene: Scene) -> None:
    """By the same bytes yes; by a version that was replaced no, which is named and makes the copy incomplete."""
    here, there = scene.desk.repository, scene.desk.folder / "there"
    person(scene, "eve")
    copied(scene.desk, here, there).expect()
    path = here / "keys" / "epoch-0001"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    copied(scene.desk, there, here).expect()
    assert path.read_bytes() == whole
    scene.desk.run("people", "remove", "eve").expect()
    path.unlink()
    done = copied(scene.desk, there, here).expect(3).json
    assert any("keys/epoch-0001" in problem for problem in done["problems"]) and not path.exists()
    # The way back: the same change at the copy, whose files then are the right ones.
    scene.desk.run("people", "remove", "eve", env={"PGKURA_REPOSITORY": str(there)}).expect()
    (here / "keys" / "people").unlink()
    copied(scene.desk, there, here).expect()
    assert keys_at(here).items() >= keys_at(there).items()
    scene.restores(scene.desk)


def test_a_damaged_key_file_is_not_passed_on(scene: Scene) -> None:
    """It is named, the copy is incomplete, and what is whole there stays."""
    here, there = scene.desk.repository, scene.desk.folder / "there"
    person(scene, "eve")
    copied(scene.desk, here, there).expect()
    path = here / "keys" / "people"
    path.write_bytes(path.read_bytes()[:-1])
    before = keys_at(there)
    done = copied(scene.desk, here, there).expect(3).json
    assert any("keys/people" in problem for problem in done["problems"])
    assert keys_at(there) == before
    made = scene.desk.run("backup", "--also", str(there), "--json", env={"DATABASE_URL": scene.source}).expect(3).json
    assert "keys/people" in made["copies"][0]["why"]


def test_older_scripts_do_not_go_over_newer_ones(scene: Scene) -> None:
    """RESTORE.md, restore.sh and the list of their versions go forward only, too."""
    here, there = scene.desk.repository, scene.desk.folder / "there"
    identity = Identity.parse(scene.desk.identity.read_text())
    head = json.loads((here / "pgkura-repository").read_bytes().partition(b"\n")[2])
    # As a program of before had left it.
    old = b"# an older way out\n"
    listed = {"RESTORE.md": [hashlib.sha256(old).hexdigest()], "restore.sh": []}
    body = canonical.encode({"version": 1, "scripts": listed})
    signed = seal_signature("scripts", head["repository"], "keys/scripts", body, signer="root", private=identity.root)
    (here / "keys" / "scripts").write_bytes(signed)
    (here / "RESTORE.md").write_bytes(old)
    copied(scene.desk, here, there).expect()
    assert (there / "RESTORE.md").read_bytes() == old
    scene.desk.run("init", "--refresh-script").expect()
    new = (here / "RESTORE.md").read_bytes()
    assert new != old
    done = copied(scene.desk, there, here).expect().json
    assert (here / "RESTORE.md").read_bytes() == new
    assert any(note.startswith("RESTORE.md is older") for note in done["notes"])
    copied(scene.desk, here, there).expect()
    assert (there / "RESTORE.md").read_bytes() == new and keys_at(here) == keys_at(there)
