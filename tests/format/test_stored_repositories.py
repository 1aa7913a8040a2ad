"""Repositories of every format version ever released open for ever, in the product and in the independent reader."""

import json
import shutil
from pathlib import Path

import pytest
from tests.format.independent_reader import Reader, age, zstd
from tests.support.cli import Desk
from tests.support.servers import binaries, needs, newest

HERE = Path(__file__).parent
LAYERS = HERE / "v1-layers"
CHANGES = HERE / "v1-changes"
VERSIONS = sorted(p.name for p in HERE.glob("v[0-9]*") if p not in (LAYERS, CHANGES))


@pytest.fixture(params=VERSIONS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    """A copy of a stored repository with its keys."""
    shutil.copytree(HERE / request.param, tmp_path / "desk")
    return Desk(tmp_path / "desk")


def test_product_reads_it(desk: Desk) -> None:
    """Lists, verifies every byte, restores equal."""
    snapshots = desk.run("snapshots", "--json").expect().json["snapshots"]
    assert [s["rows"] for s in snapshots] == [51, 52]
    # A script of an older version is not known to be genuine until the root says so, or writes today's.
    old = desk.run("verify", "--json")
    assert old.code in (0, 16) and all(p.startswith(("RESTORE.md: ", "restore.sh: ")) for p in old.json["problems"])
    desk.run("init", "--refresh-script").expect()
    assert desk.run("verify", "--json").expect().json["result"] == "ok"
    needs("a PostgreSQL server", binaries(18) is not None)
    for snapshot in snapshots:
        target = newest().create_database("from_vectors")
        restored = desk.run("restore", snapshot["id"], "--to", target, "--json").expect().json
        assert restored["proof"]["equal"] is True


def test_independent_reader_reads_it(desk: Desk) -> None:
    """Signatures, seals, lists, chunks and MACs are as the document says."""
    needs("the program age", shutil.which("age") is not None)
    needs("the program zstd", shutil.which("zstd") is not None)
    reader = Reader(desk.repository, desk.identity)
    ids = sorted(p.name for p in (desk.repository / "snapshots").iterdir())
    for number, snapshot in enumerate(ids):
        record, components = reader.manifest(snapshot)
        assert record["version"] == 1 and record["id"] == snapshot and record["result"] == "ok"
        assert components["archive"].startswith(b"PGDMP")
        facts = json.loads(components["facts"])
        tables = reader.tables(components["chunks"])
        names = {facts["tables"][int(n)]["name"]: rows for n, (_, rows) in tables.items() if n != "-1"}
        assert names['odd "name\t'].count(b"\n") == 50 and b"\xf0\x9f\x8e\xa7" in names['odd "name\t']
        assert names["empty"] == b"\n"
        assert ("later" in names) == (number == 1)
        assert tables["-1"][1] == b"4711\t0\t\\\\x61206c61726765206f626a656374\n"
    for prefix, kind in (("index", "index"), ("journal", "journal")):
        for path in (desk.repository / prefix).iterdir():
            assert reader.record(f"{prefix}/{path.name}", kind)


def test_epochs_people_and_revoked_hosts(tmp_path: Path) -> None:
    """A person reads two epochs, the first of them written by a revoked host; generations say what they must."""
    shutil.copytree(HERE / "v1-epochs", tmp_path / "desk")
    desk = Desk(tmp_path / "desk")
    keys = desk.identity.parent
    person = {"PGKURA_IDENTITY": str(keys / "person.txt"), "PGKURA_HOST_KEY": str(keys / "none")}
    desk.run("init", "--refresh-script").expect()  # a script of an older version is not known to be genuine
    assert desk.run("verify", "--json", env=person, cwd=tmp_path).expect().json["result"] == "ok"
    listed = desk.run("people", "list", "--json", env=person).expect().json["people"]
    assert [p["name"] for p in listed] == ["root", "aiko"]
    assert desk.run("snapshots", env={"PGKURA_HOST_KEY": str(keys / "second.key")}).expect(12).err
    needs("the program age", shutil.which("age") is not None)
    needs("the program zstd", shutil.which("zstd") is not None)
    reader = Reader(desk.repository, keys / "person.txt")
    manifests = [reader.manifest(p.name)[0] for p in sorted((desk.repository / "snapshots").iterdir())]
    assert [m.get("epoch", 1) for m in manifests] == [1, 2]
    assert [(g["generation"], g["epoch"], len(g["revoked"])) for g in reader.generations] == [
        (1, 1, 0),
        (2, 1, 1),
        (3, 2, 1),
    ]
    assert {bytes.fromhex(g["prints"]) for g in reader.generations} == {reader.prints}
    assert reader.good.keys() == {manifests[0]["host"]}
    people = json.loads(zstd(age(reader.body("keys/people", "people"), (keys / "person.txt").read_text())))
    assert people["people"][0]["name"] == "aiko"


def test_tables_are_named_as_the_document_says(desk: Desk) -> None:
    """Control characters in names travel as U&"" so that the list stays one line per record."""
    needs("the program age", shutil.which("age") is not None)
    reader = Reader(desk.repository, desk.identity)
    snapshot = min(p.name for p in (desk.repository / "snapshots").iterdir())
    tables = reader.tables(reader.manifest(snapshot)[1]["chunks"])
    assert '"public".U&"odd ""name\\0009"' in {words[2] for words, _ in tables.values()}
