"""What a restore notes of layers with dropped rows is enough for the proof that follows it, and only for equal rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.access import hold
from pgkura.core.errors import Tampered
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.operations.restore import PlannedRestore, plan_restore
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.repository.packs import object_key
from pgkura.restore import ledger, load
from pgkura.restore.executor import Executor, Restored
from pgkura.restore.load import Item, Loader
from pgkura.verify.proof import Proof, prove
from pgkura.work.pools import Crew

SMALL: dict[str, Any] = {"range_pages": 16, "small_bytes": 8192, "chunk_bytes": 65536}
TABLES = """
CREATE TABLE wide (id int PRIMARY KEY, at date, body text);
CREATE TABLE texts (id int, tags text[], body text);
INSERT INTO wide SELECT g, '2026-01-01', repeat(md5(g::text), 10) FROM generate_series(1, 4000) g;
INSERT INTO texts SELECT g, ARRAY['a', E'b\\tc'], repeat(md5(g::text), 10) FROM generate_series(1, 2000) g;
"""
CHANGES = (
    "UPDATE wide SET at = '2026-01-02' WHERE id % 97 = 1",
    "DELETE FROM wide WHERE id % 89 = 2",
    "UPDATE texts SET body = '' WHERE id % 50 = 1",
    "DELETE FROM texts WHERE id BETWEEN 900 AND 940",
)
LAYERED = ('"public"."wide"', '"public"."texts"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """A source whose last snapshot has layers with dropped rows, and an empty target."""

    source: Scene
    target: Scene
    planned: PlannedRestore

    def restore(self, kind: Literal["threads", "processes"] = "threads") -> Restored:
        """Without the proof."""
        p = self.planned
        made = Executor(
            p.plan, p.endpoint, p.repo, Silent(), Stop(),
            access=self.target.access, crew=Crew(kind=kind), epoch=p.manifest.epoch,
        )  # fmt: skip
        return made.run()

    def prove(self, restored: Restored | None = None, kind: Literal["threads", "processes"] = "threads") -> Proof:
        """With what the restore noted, or as somebody who comes later."""
        p = self.planned
        return prove(
            p.endpoint, p.repo, p.manifest, progress=Silent(), stop=Stop(),
            access=self.target.access, crew=Crew(kind=kind), cuts=restored.cuts if restored is not None else None,
        )  # fmt: skip

    def lose_rows(self, folder: Path) -> None:
        """Every stored object that holds rows is gone."""
        for table in self.planned.repo.chunk_list(self.planned.manifest):
            for layer in table.layers:
                (folder / object_key(layer.chunk.object.id)).unlink(missing_ok=True)


@pytest.fixture
def back(tmp_path: Path) -> Iterator[Back]:
    """On the newest server."""
    home, name = newest(), f"cuts_{uuid4().hex[:8]}"
    source = make_scene(home.create_database(name), tmp_path / "repository")
    source.sql(TABLES, "VACUUM ANALYZE")
    source.take(**SMALL)
    source.sql(*CHANGES)
    taken = source.take(**SMALL)
    url = home.create_database(f"{name}_back")
    access = replace(source.access, database=hold(f"target-{name}", url), host_key="", identity=source.identity)
    target = Scene(url=url, repo=source.repo, access=access)
    planned = plan_restore(source.repo, taken.manifest.id, Endpoint.parse(url), progress=Silent())
    yield Back(source=source, target=target, planned=planned)
    home.drop_database(name)
    home.drop_database(f"{name}_back")


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_the_proof_needs_no_stored_row(back: Back, tmp_path: Path, kind: Literal["threads", "processes"]) -> None:
    """It is shown by taking all of them away; who comes later would need them."""
    tables = {t.name: t for t in back.planned.repo.chunk_list(back.planned.manifest)}
    assert all(any(x.drops for x in tables[name].layers) for name in LAYERED)
    restored = back.restore(kind)
    for name in LAYERED:
        noted = restored.cuts.of(tables[name].number)
        assert noted is not None and len(noted) == sum(x.drops is not None for x in tables[name].layers)
    back.lose_rows(tmp_path / "repository")
    proof = back.prove(restored, kind)
    assert proof.equal and proof.tables_in_order == proof.tables
    with pytest.raises(Tampered, match="is missing"):
        Back(source=back.source, target=back.target, planned=_opened_again(back)).prove()


def _opened_again(back: Back) -> PlannedRestore:
    """Nothing that was opened before is remembered."""
    return replace(back.planned, repo=back.planned.repo.at(back.planned.repo.storage))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE wide SET body = body || '.' WHERE id = 500",
        "DELETE FROM texts WHERE id = 2",
        "INSERT INTO wide VALUES (2, '2026-01-01', 'a row that was deleted')",
        "UPDATE texts SET tags = '{}' WHERE id = 1",
    ],
)
def test_what_differs_is_found(back: Back, change: str) -> None:
    restored = back.restore()
    back.target.sql(change)
    proof = back.prove(restored)
    assert not proof.equal
    assert [f.object.removeprefix("rows of ") for f in proof.differences] == [
        '"public"."wide"' if "wide" in change else '"public"."texts"'
    ]


def test_going_on_notes_what_it_reads_itself(back: Back, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers before were read by a restore that was cut short: these the proof reads."""
    plan = back.planned.plan
    whole = back.restore()
    (one,) = (x for x in plan.loads if x.data.name == LAYERED[1])
    layers, noted = list(one.data.layers), whole.cuts.of(one.data.number)
    assert noted is not None and len(layers) > 3
    monkeypatch.setattr(load, "GROUPED_BYTES", 1)
    monkeypatch.setattr(load, "GROUP_BYTES", 65536)
    with connect(back.planned.endpoint, application_name="application") as session:
        session.begin(isolation="read committed", read_only=False)
        session.execute("CREATE SCHEMA pgkura_restore")
        ledger.make_ledger(session)
        ledger.step(session, one.data.number, 0, 2)
        session.commit()
        loader = Loader(
            session=session, repo=back.planned.repo, stop=Stop(), ledger=True, epoch=back.planned.manifest.epoch
        )
        rest = loader.table(Item(load=one)).cuts
    assert rest is not None and rest.first == 2
    assert list(rest) == list(noted)[sum(x.drops is not None for x in layers[:2]) :]
    # As if the first two layers had been loaded by another: the rows of the others are there twice now.
    back.target.sql("DELETE FROM texts t WHERE ctid <> (SELECT min(ctid) FROM texts u WHERE u.id = t.id)")
    back.target.sql("DROP SCHEMA pgkura_restore CASCADE")
    whole.cuts.add(one.data.number, rest)
    assert back.prove(whole).equal


def test_two_layers_at_a_time(back: Back) -> None:
    """Each reading has its own buffer, however the readings of a thread are mixed."""
    repo = back.planned.repo
    layers = [x for t in repo.chunk_list(back.planned.manifest) for x in t.layers if x.drops is not None]
    alone = [b"".join(repo.read_rows(x)) for x in layers]
    mixed = [repo.read_rows(x) for x in layers]
    begun = [next(pieces, b"") for pieces in mixed]
    assert [first + b"".join(pieces) for first, pieces in zip(begun, mixed, strict=True)] == alone
