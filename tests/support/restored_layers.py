"""A snapshot whose layers have dropped rows, an empty target, and a restore whose proof is made by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from tests.support.servers import Server
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.access import hold
from pgkura.core.progress import Progress, Silent
from pgkura.core.stop import Stop
from pgkura.operations.restore import PlannedRestore, plan_restore
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.packs import object_key
from pgkura.restore.executor import Executor, Restored
from pgkura.verify.proof import Proof, prove
from pgkura.work.pools import Crew

SMALL: dict[str, Any] = {"range_pages": 16, "small_bytes": 8192, "chunk_bytes": 65536}
TABLES = """
CREATE TABLE wide (id int PRIMARY KEY, at date, body text);
CREATE TABLE texts (id int, tags text[], body text CHECK (current_setting('demo.words', true) IS DISTINCT FROM 'none'));
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
# Statements that change a restored table, and which of the two.
DIFFERENCES = {
    "UPDATE wide SET body = body || '.' WHERE id = 500": LAYERED[0],
    "DELETE FROM texts WHERE id = 2": LAYERED[1],
    "INSERT INTO wide VALUES (2, '2026-01-01', 'a row that was deleted')": LAYERED[0],
    "UPDATE texts SET tags = '{}' WHERE id = 1": LAYERED[1],
    "INSERT INTO texts SELECT * FROM texts WHERE id = 2": LAYERED[1],
    "UPDATE wide SET body = (SELECT body FROM wide w WHERE w.id = 3999) WHERE id = 4000": LAYERED[0],
}
Kind = Literal["threads", "processes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """A source whose last snapshot has layers with dropped rows, and an empty target."""

    source: Scene
    target: Scene
    planned: PlannedRestore
    repository: Path

    def restore(self, kind: Kind = "threads", progress: Progress | None = None) -> Restored:
        """Without the proof."""
        p = self.planned
        made = Executor(
            p.plan, p.endpoint, p.repo, progress or Silent(), Stop(),
            access=self.target.access, crew=Crew(kind=kind), epoch=p.manifest.epoch,
        )  # fmt: skip
        return made.run()

    def prove(self, restored: Restored | None = None, kind: Kind = "threads") -> Proof:
        """With what the restore noted, or as somebody who comes later."""
        p = self.planned
        return prove(
            p.endpoint, p.repo, p.manifest, progress=Silent(), stop=Stop(),
            access=self.target.access, crew=Crew(kind=kind), seen=restored.seen if restored is not None else None,
        )  # fmt: skip

    def differs_after(self, change: str) -> set[str]:
        """Tables that are not equal any more, by the proof."""
        restored = self.restore()
        self.target.sql(change)
        proof = self.prove(restored)
        return set() if proof.equal else {f.object.removeprefix("rows of ") for f in proof.differences}

    def forgetful(self) -> "Back":
        """Nothing that was opened before is remembered."""
        repo = self.planned.repo.at(self.planned.repo.storage)
        return replace(self, planned=replace(self.planned, repo=repo))

    def planned_again(self) -> "Back":
        """Where the target holds a part of it already."""
        p = self.planned
        return replace(self, planned=plan_restore(p.repo, p.manifest.id, p.endpoint, progress=Silent()))

    def lose_rows(self) -> None:
        """Every stored object that holds rows is gone."""
        for table in self.planned.repo.chunk_list(self.planned.manifest):
            for layer in table.layers:
                (self.repository / object_key(layer.chunk.object.id)).unlink(missing_ok=True)


@contextmanager
def restored_layers(home: Server, folder: Path) -> Iterator[Back]:
    """On this server; databases are dropped afterwards."""
    name = f"layers_{uuid4().hex[:8]}"
    source = make_scene(home.create_database(name), folder)
    source.sql(TABLES, "VACUUM ANALYZE")
    source.take(**SMALL)
    source.sql(*CHANGES)
    taken = source.take(**SMALL)
    url = home.create_database(f"{name}_back")
    access = replace(source.access, database=hold(f"target-{name}", url), host_key="", identity=source.identity)
    target = Scene(url=url, repo=source.repo, access=access)
    planned = plan_restore(source.repo, taken.manifest.id, Endpoint.parse(url), progress=Silent())
    yield Back(source=source, target=target, planned=planned, repository=folder)
    home.drop_database(name)
    home.drop_database(f"{name}_back")
