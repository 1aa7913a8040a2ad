"""Every change to a database after its backup is found by the proof, each under its own name, and nothing else is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.support import nasty
from tests.support.servers import server, versions
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.outcome import FindingClass, Result
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.manifest import Manifest
from pgkura.verify.merging import plain
from pgkura.verify.proof import Proof, prove

FILE = Path(__file__).parents[1] / "support" / "sql" / "verify_mutations.sql"
EVENT_TRIGGERS = ("see_everything", '"refuse some"', "on_drop", "on_rewrite", "at_login")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is done, how it is undone, and the name under which a proof must find it."""

    name: str
    done: str
    undone: str


def read_changes() -> dict[str, list[Change]]:
    """By group."""
    groups: dict[str, list[Change]] = {}
    lines = iter(FILE.read_text().splitlines())
    for line in lines:
        if line.startswith("-- group: "):
            current = groups.setdefault(line.removeprefix("-- group: "), [])
        elif line.startswith("-- found: "):
            current.append(Change(name=plain(line.removeprefix("-- found: ")), done=next(lines), undone=next(lines)))
    return groups


CHANGES = read_changes()
BackedUp = tuple[Scene, Manifest, Proof]


@pytest.fixture(scope="module", params=versions())
def backed_up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackedUp]:
    """The nasty database, without the event triggers that write a row at each DDL, its snapshot and a first proof."""
    home = server(request.param)
    home.create_database("mutated")
    filled = nasty.fill(home, "mutated")
    with psycopg.connect(filled.url, autocommit=True) as connection:
        for name in EVENT_TRIGGERS:
            connection.execute(f"DROP EVENT TRIGGER IF EXISTS {name}".encode())
        for (name,) in connection.execute("SELECT quote_ident(pubname) FROM pg_publication").fetchall():
            # tables without a replica identity could not be updated
            connection.execute(f"ALTER PUBLICATION {name} SET (publish = 'insert')".encode())
    scene = make_scene(filled.url, tmp_path_factory.mktemp("verify") / "repository")
    manifest = scene.take().manifest
    yield scene, manifest, proven(scene, manifest)
    nasty.remove_subscriptions(filled.url)
    home.drop_database("mutated")


def proven(scene: Scene, manifest: Manifest) -> Proof:
    """The database against its own snapshot."""
    return prove(Endpoint.parse(scene.url), scene.repo, manifest, progress=Silent(), stop=Stop())


def counted(proof: Proof) -> dict[str, str]:
    """What makes it differ: plain names and reasons."""
    kinds = (FindingClass.LOST, FindingClass.DENIED)
    return {plain(f.object): f.reason for f in proof.differences if f.cls in kinds}


def test_a_database_equals_its_own_snapshot(backed_up: BackedUp) -> None:
    """Nothing differs, and nearly all tables are proven without reading the repository."""
    _, manifest, proof = backed_up
    assert proof.equal and proof.result is Result.OK, counted(proof)
    assert proof.rows == manifest.counts["rows"]
    assert proof.tables == manifest.counts["tables"]
    assert proof.tables_in_order >= proof.tables - 4  # all but the hash partitions by an enum
    assert proof.objects > 800 and proof.foreign_keys >= 7 and proof.sequences >= 18 and proof.large_objects == 4


def test_another_order_of_rows_is_equal_too(backed_up: BackedUp) -> None:
    """Tables that read back in another order are compared as multisets; a row moved within a table is no difference."""
    scene, manifest, _ = backed_up
    before = proven(scene, manifest)
    scene.sql(
        "UPDATE nasty.by_hash_1 SET v = v WHERE id % 2 = 0",
        "UPDATE nasty.texts SET v = v WHERE id < 10",
        "CLUSTER nasty.tree USING tree_pkey",
        "ALTER TABLE nasty.tree SET WITHOUT CLUSTER",
        "UPDATE nasty.no_key SET a = a WHERE b = 'same'",
        "SELECT lo_put(700003, 0, lo_get(700003))",
    )
    proof = proven(scene, manifest)
    assert proof.equal, counted(proof)
    assert (proof.rows, proof.tables) == (before.rows, before.tables)
    assert proof.tables_in_order < before.tables_in_order


@pytest.mark.parametrize("group", CHANGES)
def test_every_change_is_found_under_its_name(backed_up: BackedUp, group: str) -> None:
    """All changes of a group at once: each expected name is there and no other; undone, the database is equal again."""
    scene, manifest, _ = backed_up
    version = manifest.server_version_num // 10000
    if group == "since 15" and version < 15:
        return
    words = {"db": "mutated", "used_once": scene.rows("SELECT last_value FROM nasty.used_once")[0][0]}
    undo: list[str] = []
    try:
        for change in CHANGES[group]:
            scene.sql(_filled(change.done, words))
            undo.insert(0, _filled(change.undone, words))
        proof = proven(scene, manifest)
    finally:
        scene.sql(*undo)
    assert not proof.equal and proof.result is Result.INCOMPLETE
    found = counted(proof)
    named = {change.name for change in CHANGES[group]}
    assert found.keys() == named, f"missed {named - found.keys()}, found too {found.keys() - named}"
    again = proven(scene, manifest)
    assert again.equal, counted(again)


def _filled(text: str, words: dict[str, object]) -> str:
    for name, value in words.items():
        text = text.replace("{" + name + "}", str(value))
    return text
