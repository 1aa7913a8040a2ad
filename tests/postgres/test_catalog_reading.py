"""What a backup reads of catalogs beside rows: the archive of pg_dump, and the inventory as the server writes it."""

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pgdumplib.dump import Dump
from tests.support import nasty
from tests.support.psql import client
from tests.support.servers import server, versions

from pgkura.catalog.toc import Toc, read_archive
from pgkura.core.errors import FormatTooNew, Tampered
from pgkura.core.scratch import new_scratch
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.inventory import read_inventory, read_inventory_lines
from pgkura.postgres.pinning import connect


@pytest.fixture(scope="module", params=versions())
def filled(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """The nasty database of every server: its URL and the server's major."""
    home = server(request.param)
    made = nasty.fill(home, "catalogs")
    yield made.url, request.param
    nasty.remove_subscriptions(made.url)
    home.drop_database("catalogs")


def _archive(url: str, major: int) -> bytes:
    argv = [str(client("pg_dump", major)), "-Fc", "--schema-only", url]
    return subprocess.run(argv, check=True, capture_output=True, timeout=300).stdout


def test_an_archive_reads_as_another_reader_reads_it(filled: tuple[str, int], tmp_path: Path) -> None:
    archive = _archive(*filled)
    (tmp_path / "archive").write_bytes(archive)
    theirs = Dump()
    theirs.load(tmp_path / "archive")
    # The library keeps both until it is collected, and has no public way to end that.
    assert theirs._handle is not None
    theirs._handle.close()
    theirs._temp_dir.cleanup()
    ours = read_archive(archive)
    assert len(ours.entries) > 300
    assert [
        (e.dump_id, e.desc, e.tag, e.schema, e.owner, e.defn, e.drop, list(e.deps), e.table_am, e.catalog, e.oid)
        for e in ours.entries
    ] == [
        (
            e.dump_id, e.desc, e.tag or "", e.namespace or "", e.owner or "", e.defn or "", e.drop_stmt or "",
            e.dependencies, e.tableam or "", int(e.table_oid or 0), int(e.oid or 0),
        )
        for e in theirs.entries
    ]  # fmt: skip
    assert (ours.server_version, ours.dump_version) == (theirs.server_version, theirs.dump_version)
    with new_scratch() as file:
        file.write(archive)
        assert read_archive(file) == ours
        assert not file.closed


def test_a_damaged_archive_is_named_whatever_is_wrong_with_it(filled: tuple[str, int]) -> None:
    archive = _archive(*filled)
    for damaged in (b"", b"x", b"PGDMP", archive[:5] + b"\x01\x0b" + archive[7:], b"x" + archive, archive[:-1]):
        with pytest.raises(Tampered, match="no pg_dump archive"):
            read_archive(damaged)
    with new_scratch() as empty, pytest.raises(Tampered):
        read_archive(empty)
    with pytest.raises(FormatTooNew, match=r"1\.99"):
        read_archive(archive[:5] + b"\x01\x63" + archive[7:])
    end = random.Random(7)
    for _ in range(300):
        with pytest.raises(Tampered):
            read_archive(archive[: end.randrange(len(archive))])
    for _ in range(300):
        flipped = bytearray(archive)
        flipped[end.randrange(min(3000, len(archive)))] ^= 1 << end.randrange(8)
        try:
            assert isinstance(read_archive(bytes(flipped)), Toc)
        except (Tampered, FormatTooNew):
            continue


def test_the_lines_of_an_inventory_are_its_items(filled: tuple[str, int]) -> None:
    url, _ = filled
    with connect(Endpoint.parse(url), application_name="pgkura test") as session:
        session.begin()
        pieces = list(read_inventory_lines(session))
        items = list(read_inventory(session))
        session.rollback()
    assert all(piece.endswith(b"\n") for piece in pieces)
    lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
    # in no order: statistics of the catalog may have changed the plan between the two
    assert {(line["class"], line["identity"]): line["attributes"] for line in lines} == {
        (i.cls, i.identity): i.attributes for i in items
    }
    assert len(lines) == len(items) == len({(i.cls, i.identity) for i in items})
    assert len({i.cls for i in items}) > 20
    assert any("\\" in json.dumps(line["attributes"], ensure_ascii=False) for line in lines), "nothing was escaped"
