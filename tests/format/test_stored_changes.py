"""A change log stored once opens for ever: in the product, and in a reader that knows the document alone."""

import shutil
from itertools import islice
from pathlib import Path

import psycopg
import pytest
from tests.format import changed
from tests.format.independent_changes import ChangeReader, position
from tests.format.independent_reader import Reader
from tests.support.cli import Desk
from tests.support.servers import binaries, needs, newest

HERE = Path(__file__).parent / "v1-changes"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A copy of the stored repository with its keys."""
    shutil.copytree(HERE, tmp_path / "desk")
    return Desk(tmp_path / "desk")


def test_independent_reader_reads_it(desk: Desk) -> None:
    """Every transaction that the source made, in its order, from segments, a bundle, parts and bodies."""
    needs("the program age", shutil.which("age") is not None)
    needs("the program zstd", shutil.which("zstd") is not None)
    reader = Reader(desk.repository, desk.identity)
    expected = changed.kept(HERE / "expected")
    assert list(expected) == sorted(p.name for p in (desk.repository / "chains").iterdir())
    first, second = (ChangeReader(reader, chain) for chain in expected)
    assert {key.split("/")[2] for _, _, key in first.names()} == {"bundles"}
    assert {key.split("/")[2] for _, _, key in second.names()} == {"segments"}
    assert list((first.folder / "parts").iterdir()) and first.records["end"]["reason"]
    (mark,) = [r for name, r in first.records.items() if name.startswith("mark-")]
    assert mark["name"] == "after the large one"
    (cut,) = second.cuts()
    assert position(cut["position"]) > position(second.records["start"]["position"]) and cut["top_xid"] > 0
    for log in (first, second):
        found = [changes for _, changes in log.transactions() if changes]
        wanted = expected[log.chain]
        assert len(found) == len(wanted)
        for got, want in zip(found, wanted, strict=True):
            more = [w for w in want if w[1] == "more"]
            assert got[: len(want) - len(more)] == [w for w in want if w not in more]
            assert len(got) == len(want) - len(more) + sum(int(str(w[3][0])) for w in more if isinstance(w[3], list))


def test_bases_fit_their_chains(desk: Desk) -> None:
    """A manifest says which chain it is a base of, and with which shape; that shape's tables are told."""
    needs("the program age", shutil.which("age") is not None)
    reader = Reader(desk.repository, desk.identity)
    for snapshot in sorted(p.name for p in (desk.repository / "snapshots").iterdir()):
        record, _ = reader.manifest(snapshot)
        log = ChangeReader(reader, record["log"]["chain"])
        cover = log.records[f"cover-{record['log']['rows']}"]
        assert {(schema, name): why for schema, name, _, why in cover["tables"]} == {
            ("public", "ledger"): "",
            ("public", "item"): "",
        }
        assert position(record["log"]["after"]) >= log.start()
        looks = [r["poll"] for r, _ in islice(log.pieces(), 50)]
        assert {look["rows"] for look in looks} == {record["log"]["rows"]}


def test_product_reads_it(desk: Desk) -> None:
    """Verifies every byte, shows the timeline, finds a row, restores to a mark and to the newest moment."""
    desk.run("init", "--refresh-script").expect()
    verified = desk.run("verify", "--json").expect().json
    assert verified["result"] == "ok" and verified["proof"]["bundles"] == 1
    told = desk.run("timeline", "--json").expect().json
    assert [len(c["stretches"]) for c in told["chains"]] == [1, 1] and told["chains"][0]["ended"]
    asked = ("--table", "item", "--where", "a=9", "--kind", "insert", "--kind", "update")
    found = desk.run("find", *asked, "--json").expect().json["transactions"]
    assert [list(t["tables"].values()) for t in found] == [[{"insert": 1, "update": 1}]]
    needs("a PostgreSQL server", binaries(18) is not None)
    for moment, rows in (("after the large one", 11 + changed.MANY), ("latest", 19 + changed.MANY)):
        target = newest().create_database("from_vectors")
        done = desk.run("restore", "--at", moment, "--to", target, "--json", "--yes").expect().json
        assert done["at"]["every_change_met_its_row"] is True
        with psycopg.connect(target) as connection:
            assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (rows,)
