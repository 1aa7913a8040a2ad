"""A damaged file of `keys/` costs what it stands for, is named with the snapshots it touches, and stops who writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.support.cli import Desk, Done
from tests.support.servers import newest

from pgkura.repository.container import signer_of
from pgkura.repository.keyrecords import host_file, revoked_key
from pgkura.repository.keys import HostKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Two:
    """A repository with a snapshot of each of two hosts."""

    desk: Desk
    source: str
    other: HostKey
    ours: str
    theirs: str

    def run(self, *words: str, keys: Sequence[str] = ("PGKURA_IDENTITY", "PGKURA_HOST_KEY")) -> Done:
        """With these of the first host's keys only."""
        none = str(self.desk.folder / "none")
        left = {name: none for name in ("PGKURA_IDENTITY", "PGKURA_HOST_KEY") if name not in keys}
        return self.desk.run(*words, env={"DATABASE_URL": self.source, **left})

    def files(self) -> list[Path]:
        """All of the repository."""
        return sorted(path for path in self.desk.repository.rglob("*") if path.is_file())

    def refuses_writers(self, name: str) -> None:
        """Whoever would write says which file is damaged, and nothing is written."""
        before = self.files()
        for words in (("backup",), ("prune", "--keep-last", "1", "--grace", "0s", "--yes")):
            refused = self.run(*words, keys=("PGKURA_HOST_KEY",)).expect(16)
            assert name in refused.err and "from a copy of the repository" in refused.err, refused.err
        assert self.files() == before


@pytest.fixture
def two(tmp_path: Path) -> Two:
    """Made by the command line."""
    desk, server = Desk(tmp_path / "desk"), newest()
    source = server.create_database("damaged_keys")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE lessons AS SELECT g AS id, md5(g::text) AS title FROM generate_series(1, 500) g"
        )
    desk.run("init").expect()
    file = tmp_path / "second.key"
    desk.run("hosts", "add", "second", "--write", str(file)).expect()
    ours = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json["snapshot"]
    second = {"DATABASE_URL": source, "PGKURA_HOST_KEY": str(file)}
    theirs = desk.run("backup", "--json", env=second).expect().json["snapshot"]
    return Two(desk=desk, source=source, other=HostKey.parse(file.read_text()), ours=ours, theirs=theirs)


def spoil(path: Path) -> None:
    """A bit of its end."""
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)


def test_a_damaged_host_costs_what_it_signed(two: Two) -> None:
    """The other host's snapshot restores; who would write for a host that cannot be known any more is refused."""
    name = host_file(two.other.host_id)
    places = ("index", "references", "state", "journal", "snapshots")
    records = sum(
        signer_of((two.desk.repository / path).read_bytes()) == two.other.host_id
        for place in places
        for path in (two.desk.repository / place).iterdir()
    )
    assert records >= 3, "manifest, references and state at least"
    spoil(two.desk.repository / name)
    for keys in (("PGKURA_IDENTITY", "PGKURA_HOST_KEY"), ("PGKURA_IDENTITY",), ("PGKURA_HOST_KEY",)):
        (problem,) = two.run("verify", "--json", keys=keys).expect(16).json["proof"]["problems"]
        assert (problem["file"], problem["snapshots"]) == (name, [two.theirs]), keys
        assert f"; {records} files that its host signed were not read" in problem["reason"]
    assert "unused files were not counted" in two.run("verify").expect(16).out
    target = newest().create_database("damaged_keys_target")
    assert two.run("restore", two.ours, "--to", target, "--json").expect().json["proof"]["equal"] is True
    refused = two.run("restore", two.theirs, "--to", target, "--json").expect(16)
    assert name in refused.err and "from a copy of the repository" in refused.err
    two.refuses_writers(name)


def test_a_damaged_revocation_costs_what_that_host_signed(two: Two) -> None:
    """Nothing of a revoked host is believed while nobody knows what of it is good; the others' snapshots restore."""
    two.desk.run("hosts", "revoke", two.other.host_id).expect()
    target = newest().create_database("damaged_keys_target")
    assert two.run("restore", two.theirs, "--to", target, "--json").expect().json["proof"]["equal"] is True
    name = revoked_key(two.other.host_id)
    spoil(two.desk.repository / name)
    for keys in (("PGKURA_IDENTITY", "PGKURA_HOST_KEY"), ("PGKURA_HOST_KEY",)):
        (problem,) = two.run("verify", "--json", keys=keys).expect(16).json["proof"]["problems"]
        assert (problem["file"], problem["snapshots"]) == (name, [two.theirs]), keys
    target = newest().create_database("damaged_keys_target")
    assert name in two.run("restore", two.theirs, "--to", target, "--json").expect(16).err
    assert two.run("restore", two.ours, "--to", target, "--json").expect().json["proof"]["equal"] is True
    two.refuses_writers(name)
    lost = two.run("hosts", "revoke", HostKey.parse(two.desk.host_key.read_text()).host_id).expect(16)
    assert name in lost.err, "the root changes nothing either"


def test_a_host_is_told_of_its_own_damaged_file(two: Two) -> None:
    """It looks, and signs nothing: nobody would believe it."""
    own = HostKey.parse(two.desk.host_key.read_text()).host_id
    name = host_file(own)
    spoil(two.desk.repository / name)
    journal = sorted((two.desk.repository / "journal").iterdir())
    (problem,) = two.run("verify", "--json", keys=("PGKURA_HOST_KEY",)).expect(16).json["proof"]["problems"]
    assert (problem["file"], problem["snapshots"]) == (name, [two.ours])
    assert sorted((two.desk.repository / "journal").iterdir()) == journal
    two.refuses_writers(name)


@pytest.mark.parametrize("damage", [spoil, Path.unlink])
def test_a_damaged_epoch_is_seen_without_the_identity(two: Two, damage: object) -> None:
    """All snapshots need it. A backup into it would be one that nobody opens."""
    name = "keys/epoch-0001"
    assert callable(damage)
    damage(two.desk.repository / name)
    (problem,) = two.run("verify", "--json", keys=("PGKURA_HOST_KEY",)).expect(16).json["proof"]["problems"]
    assert (problem["file"], problem["snapshots"]) == (name, sorted([two.ours, two.theirs]))
    refused = two.run("verify", "--json").expect(16)
    for word in (name, two.ours, two.theirs, "from a copy of the repository"):
        assert word in refused.err, refused.err
    two.refuses_writers(name)


def test_only_the_snapshots_of_a_damaged_epoch_are_lost(two: Two) -> None:
    """Those of the next one restore, and are made."""
    two.desk.run("epoch", "new").expect()
    later = two.run("backup", "--json").expect().json["snapshot"]
    spoil(two.desk.repository / "keys/epoch-0001")
    told = two.run("verify", "--json").expect(16).json["proof"]["problems"]
    (problem,) = (p for p in told if p["file"] == "keys/epoch-0001")
    assert problem["snapshots"] == sorted([two.ours, two.theirs])
    assert all(later not in p["snapshots"] for p in told)
    target = newest().create_database("damaged_keys_target")
    assert two.run("restore", later, "--to", target, "--json").expect().json["proof"]["equal"] is True
    assert two.run("backup", "--json").expect().json["result"] == "ok"


def test_a_later_epoch_is_no_damage_without_the_identity_either(two: Two) -> None:
    """Who cannot read its format says so, and adds nothing."""
    path = two.desk.repository / "keys/epoch-0001"
    path.write_bytes(path.read_bytes().replace(b"pgkura1 ", b"pgkura2 ", 1))
    (problem,) = two.run("verify", "--json", keys=("PGKURA_HOST_KEY",)).expect(17).json["proof"]["problems"]
    assert (problem["file"], problem["snapshots"]) == ("keys/epoch-0001", sorted([two.ours, two.theirs]))
    before = two.files()
    assert "use a newer pgkura" in two.run("backup", keys=("PGKURA_HOST_KEY",)).expect(17).err
    assert two.files() == before
