"""The stored repository of layers, states and a tombstone: both readers give back the rows of its day."""

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.format.independent_reader import Layer, Reader, Table
from tests.format.layered import kept, rows_of
from tests.support.cli import Desk, command
from tests.support.psql import client
from tests.support.servers import binaries, needs, newest

LAYERS = Path(__file__).parent / "v1-layers"
SNAPSHOTS = sorted(p.name for p in (LAYERS / "expected").iterdir())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A copy of it with its keys."""
    folder = tmp_path_factory.mktemp("layers") / "desk"
    shutil.copytree(LAYERS, folder)
    desk = Desk(folder)
    desk.run("init", "--refresh-script").expect()  # a script of an older version is not known to be genuine
    return desk


@pytest.fixture
def reader(desk: Desk) -> Reader:
    """The independent one."""
    needs("the program age", shutil.which("age") is not None)
    needs("the program zstd", shutil.which("zstd") is not None)
    return Reader(desk.repository, desk.identity)


def read(reader: Reader, snapshot: str) -> tuple[dict[str, bytes], list[Table], dict[str, list[str]]]:
    """A snapshot's components, the tables of its chunk list, and the types of their columns."""
    components = reader.manifest(snapshot)[1]
    tables = reader.chunk_list(components["chunks"])
    types = {"-1": ["oid", "bigint", "bytea"]}
    for number, facts in enumerate(json.loads(components["facts"])["tables"]):
        types[str(number)] = [c["type"] for c in facts["columns"] if not c["generated"]]
    return components, tables, types


def layers_of(tables: list[Table]) -> list[Layer]:
    """All of them."""
    return [layer for table in tables for layer in table.layers]


def test_it_holds_what_it_is_for(reader: Reader) -> None:
    """Text and binary tables, drops in both, rows of one chunk dropped in two snapshots, a row in a third layer."""
    shapes = []
    for snapshot in SNAPSHOTS:
        tables = read(reader, snapshot)[1]
        named = {t.words[2]: t for t in tables}
        shapes.append(
            {n: [x.dropped for x in named[f'"public"."{n}"'].layers] for n in ("letters", "numbers", "grown")}
        )
        assert named['"public"."numbers"'].binary and not named['"public"."letters"'].binary
    assert shapes == [
        {"letters": [0], "numbers": [0], "grown": [0]},
        {"letters": [140, 0], "numbers": [131, 0], "grown": [0, 0]},
        {"letters": [180, 4], "numbers": [131, 21, 0], "grown": [0, 0]},
    ]


@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_product_gives_the_rows_back(desk: Desk, snapshot: str) -> None:
    """Into the newest server: the proof says equal, and so do the rows that the old server printed."""
    assert desk.run("verify", snapshot, "--json").expect().json["result"] == "ok"
    needs("a PostgreSQL server", binaries(18) is not None)
    target = newest().create_database("from_layers")
    restored = desk.run("restore", snapshot, "--to", target, "--json").expect().json
    assert restored["proof"]["equal"] is True
    assert rows_of(target) == kept(LAYERS / "expected" / snapshot)


@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_independent_reader_gives_the_rows_back(reader: Reader, snapshot: str) -> None:
    """Drops, sizes and tuples are as the document says. Generated columns are in neither: COPY leaves them out."""
    _, tables, types = read(reader, snapshot)
    found = {t.words[2]: sorted(reader.rows(t, types[t.words[1]])) for t in tables}
    assert found.pop("blobs") == [b"4711\t0\t\\\\x61206c61726765206f626a656374\n"]
    expected = kept(LAYERS / "expected" / snapshot)
    assert found == {f'"public"."{name}"': lines for name, lines in expected.items()}


@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_state_fits_its_chunk_list(reader: Reader, snapshot: str) -> None:
    """Same layers in the same order; as many places as rows; no place counts twice; ranges lie side by side."""
    components, tables, _ = read(reader, snapshot)
    facts = json.loads(components["facts"])["tables"]
    by_oid = {str(facts[int(t.words[1])]["oid"]): t for t in tables if t.words[1] != "-1"}
    state = reader.state(snapshot)
    assert len(state.point) == 7 and state.point[-1] == "512"
    assert {by_oid[oid].words[2].split('"')[3] for oid in state.ranges} == {
        "grown", "letters", "numbers", "quiet", "ranged", "small"
    }  # fmt: skip
    for oid, ranges in state.ranges.items():
        assert [strip(x) for one in ranges for x in one.layers] == [strip(x) for x in by_oid[oid].layers]
        ends = [one.words[1] for one in ranges]
        assert [one.words[0] for one in ranges] == ["0", *ends[:-1]] and ends[-1] == "-"
        for first, end, rows, _day in (one.words for one in ranges):
            layers = next(one.layers for one in ranges if one.words[0] == first)
            assert int(rows) == sum(x.chunk.rows - x.dropped for x in layers)
            counting: list[int] = []
            for layer in layers:
                if by_oid[oid].words[2] == '"public"."small"':
                    assert layer.places is None
                    continue
                places = reader.places(layer)
                assert len(places) == layer.chunk.rows and places == sorted(set(places))
                assert all(int(first) <= p >> 16 < (1 << 32 if end == "-" else int(end)) for p in places)
                dropped = set(reader.drops(layer))
                counting += [p for number, p in enumerate(places, 1) if number not in dropped]
            assert len(set(counting)) == len(counting)


def strip(layer: Layer) -> tuple[object, ...]:
    """What a state and a chunk list say alike of a layer."""
    parts = (layer.chunk, layer.sizes, layer.drops)
    return layer.dropped, *((p.object, p.offset, p.stored, p.length, p.rows, p.mac) if p else None for p in parts)


@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_references_name_what_is_needed_and_nothing_else(reader: Reader, snapshot: str) -> None:
    """Components, chunks, drops, sizes, the state and what it names."""
    record, tables = reader.manifest(snapshot)[0], read(reader, snapshot)[1]
    assert record["version"] == 1  # no component in several chunks
    needed = {c["ref"]["object"]: c["ref"]["sha256"] for c in record["components"].values() if c["ref"]}
    parts = [p for x in layers_of(tables) for p in (x.chunk, x.sizes, x.drops) if p]
    needed |= {p.object: reader.hashes[p.object] for p in parts}
    needed |= reader.state(snapshot).hashes
    assert reader.references(snapshot) == needed


def test_tombstone(reader: Reader, desk: Desk) -> None:
    """It names the snapshot that was pruned and what only that needed; the object waits for its time."""
    (path,) = (desk.repository / "tombstones").iterdir()
    said = reader.tombstone(path.name)
    assert said["phase"] == ["marked"] and int(said["grace"][0]) == 24 * 3600 + 300
    assert len(said["created"]) == 1 and said["snapshot"][0] < SNAPSHOTS[0]
    stored = {p.name for p in (desk.repository / "data").glob("*/*")}
    needed = {o for s in SNAPSHOTS for o in reader.references(s)}
    assert set(said["object"]) == stored - needed != set()
    for kind in ("index", "journal"):
        for one in (desk.repository / kind).iterdir():
            assert reader.record(f"{kind}/{one.name}", kind)


@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_its_own_script_gives_the_rows_back(tmp_path: Path, snapshot: str) -> None:
    """`restore.sh` of its day, which lies in it."""
    needs("the program age", shutil.which("age") is not None)
    needs("the program zstd", shutil.which("zstd") is not None)
    home = newest()
    shutil.copytree(LAYERS, tmp_path / "desk")
    desk = Desk(tmp_path / "desk")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("psql", "pg_restore"):
        (programs / name).write_text(f'#!/bin/sh\nexec {client(name, home.version)} "$@"\n')
        (programs / name).chmod(0o755)
    target = home.create_database("from_layers_by_script")
    script = ["bash", str(desk.repository / "restore.sh"), str(desk.identity), target, snapshot]
    done = command(script, {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}).expect()
    assert done.out.splitlines()[-1].startswith("done: ")
    assert rows_of(target) == kept(LAYERS / "expected" / snapshot)
