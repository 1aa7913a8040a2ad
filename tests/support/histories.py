"""Random histories of a database, played from a seed, with incremental snapshots in their midst.

Every snapshot must equal what a plain reader saw at the same moment, while sessions stay open across it. A failure
names its seed; `HISTORY_SEEDS=7,8 pytest tests/fault/test_histories.py` plays those again.
"""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from tests.support.cli import Desk
from tests.support.history_ddl import WHOLE, step
from tests.support.history_models import Model, right_model, wrong_models
from tests.support.history_oracle import HistoryFailed, Moment, differences, is_flushed, read_moment, read_snapshot
from tests.support.history_sessions import Sessions, Tally, Work
from tests.support.history_steps import Scenery, statement
from tests.support.history_strikes import Strike
from tests.support.psql import run_sql_file
from tests.support.snapshot_scene import Scene, Script

from pgkura.core.access import Access, hold
from pgkura.core.outcome import Result
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.snapshot.detector import Policy
from pgkura.snapshot.taken import Taken
from pgkura.storage.local import LocalStorage

SETTINGS = {
    "max_prepared_transactions": "20",
    "autovacuum": "off",
    "autovacuum_naptime": "1s",
    "wal_level": "logical",
    "max_connections": "60",
}
# Small ranges, so that tables of a few hundred pages are made of many; small tables are followed too.
OPTIONS: dict[str, Any] = {"range_pages": 8, "small_bytes": 0}
_STORY = 60


def open_scene(url: str, desk: Desk) -> Scene:
    """A database with the repository of a desk: taken in this process, restored by the command line."""
    identity, host = Identity.parse(desk.identity.read_text()), HostKey.parse(desk.host_key.read_text())
    repo = Repository.open(LocalStorage(desk.repository), identity=identity, host=host)
    access = Access(
        database=hold(f"history {url}", url),
        repository=str(desk.repository),
        host_key=hold(f"history key {desk.repository}", host.text()),
    )
    held = hold(f"history identity {desk.repository}", desk.identity.read_text())
    return Scene(url=url, repo=repo, access=access, identity=held)


@dataclass(slots=True, kw_only=True)
class Watched:
    """One database, its repository, and everybody who says what it holds: the product, the oracle, the models."""

    desk: Desk
    scene: Scene
    title: str
    story: Callable[[], Sequence[str]] = lambda: ()
    models: list[Model] = field(default_factory=lambda: [right_model(), *wrong_models()])
    options: dict[str, Any] = field(default_factory=lambda: dict(OPTIONS))
    reused: int = 0
    deltas: int = 0
    unflushed: int = 0

    def snapshot(self, script: Script | None = None) -> Taken:
        """Back up, and compare with a plain reading of just before; `script` runs things while rows are read."""
        moment = read_moment(self.scene.url)
        taken = self.scene.take(script, **self.options)
        self._compare(moment, taken)
        flushed = is_flushed(self.scene.url, moment)
        self.unflushed += not flushed
        for model in self.models:
            model.take(moment, flushed=flushed)
        self.reused += taken.counts["chunks_unchanged"]
        tables = self.scene.repo.chunk_list(taken.manifest)
        self.deltas += sum(layer.dropped > 0 for table in tables for layer in table.layers)
        wrong = [fault for model in self.models if model.name == "right" for fault in model.wrong]
        if wrong:
            raise HistoryFailed(self._told(["the right model is wrong: decision 0004 does not hold", *wrong]))
        return taken

    def _compare(self, moment: Moment, taken: Taken) -> None:
        if taken.result is not Result.OK:
            raise HistoryFailed(self._told([f"the snapshot is {taken.result.value}: {taken.findings}"]))
        rows, blobs = read_snapshot(self.scene.repo, taken, self.desk.folder / "export")
        found = differences(moment.contents, rows, "the snapshot")
        # An object without bytes has no rows.
        if {k: v for k, v in moment.blobs.items() if v} != {k: v for k, v in blobs.items() if v}:
            found.append("the snapshot: large objects differ")
        if found:
            raise HistoryFailed(self._told(found))

    def _told(self, found: Sequence[str]) -> str:
        story = self.story()
        return "\n".join([self.title, *found, f"--- the last {_STORY} of {len(story)} statements", *story[-_STORY:]])

    def restore_and_verify(self, target: str) -> None:
        """By the command line: the newest snapshot into an empty database, compared by the product and by COPY."""
        env = {"DATABASE_URL": self.scene.url}
        restored = self.desk.run("restore", "latest", "--to", target, "--json", env=env).expect().json
        assert restored["proof"]["equal"] is True, restored
        assert self.desk.run("verify", "latest", "--against", self.scene.url, "--json").expect().json["result"] == "ok"
        ours, theirs = read_moment(self.scene.url, by_name=True), read_moment(target, by_name=True)
        found = differences(ours.contents, theirs.contents, "the restored database")
        if found:
            raise HistoryFailed(self._told(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How a history went that did not fail. `reused` chunks were kept, `deltas` of them with rows that do not count."""

    seed: int
    tally: Tally
    models: tuple[Model, ...]
    reused: int
    deltas: int


def play(
    seed: int,
    url: str,
    target: str,
    desk: Desk,
    *,
    snapshots: int = 8,
    steps: int = 14,
    strike: Strike | None = None,
    models: Sequence[Model] = (),
) -> Played:
    """A whole history, with these models too. Raises HistoryFailed."""
    rng = random.Random(seed)
    run_sql_file(url, "history.sql")
    sessions = Sessions(url=url, rng=rng, durable=strike is not None)
    world = Scenery(sessions=sessions, rng=rng)
    title = f"HISTORY_SEEDS={seed} fails (snapshots={snapshots}, steps={steps})"
    watched = Watched(desk=desk, scene=open_scene(url, desk), title=title, story=lambda: sessions.story)
    watched.options = _options(rng)
    watched.models += models
    sessions.connect()
    try:
        watched.snapshot()
        for number in range(snapshots):
            if strike is not None and (moved := strike(world, number)):
                _go_on(world, watched, moved)
            for _ in range(rng.randrange(2, steps)):
                step(world)
            if rng.random() < 0.6:
                step(world, WHOLE)
            _across(world, watched)
        sessions.end_all()
        watched.snapshot()
        sessions.close()
        watched.restore_and_verify(target)
    except psycopg.Error as error:
        raise HistoryFailed(f"{title}: {error}\n" + "\n".join(sessions.story[-_STORY:])) from error
    finally:
        sessions.close()
        _finish_prepared(sessions.url)
    return Played(
        seed=seed, tally=sessions.tally, models=tuple(watched.models), reused=watched.reused, deltas=watched.deltas
    )


def _go_on(world: Scenery, watched: Watched, url: str) -> None:
    """Sessions are new ones; prepared transactions outlive a crash, and one whose end was lost is there again."""
    sessions = world.sessions
    sessions.story.append("=== the server is gone; another one, or the same, goes on")
    sessions.url = url
    sessions.connect()
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()").fetchall()
    sessions.prepared = {str(gid): sessions.prepared.get(str(gid), Work()) for (gid,) in found}
    watched.scene = open_scene(url, watched.desk)


def _across(world: Scenery, watched: Watched) -> None:
    """One snapshot, mostly with writers open that commit during it or after it."""
    sessions, rng = world.sessions, world.rng
    idle = [n for n in sorted(sessions.connections) if n not in sessions.open]
    if rng.random() < 0.9:
        for name in idle[: rng.choice((1, 2))]:
            sessions.begin(name)
            sessions.run(name, statement(world))
            if name in sessions.open:
                sessions.savepoint(name)
                sessions.run(name, statement(world))
    if (free := [n for n in sorted(sessions.connections) if n not in sessions.open]) and rng.random() < 0.8:
        sessions.run(free[0], statement(world))  # committed beside them: xmin < xmax
    sessions.mark_snapshot()
    sessions.story.append(
        f"=== snapshot {sessions.tally.snapshots}, open: {sorted(sessions.open)} {sorted(sessions.prepared)}"
    )
    if rng.random() < 0.15:
        watched.options = _options(rng)
    script = Script(steps={"reading rows": lambda: _meanwhile(world)} if rng.random() < 0.6 else {})
    watched.snapshot(script)
    if script.steps and "reading rows" not in script.stages:
        raise HistoryFailed("no stage `reading rows`: nothing happened during the snapshots")


def _meanwhile(world: Scenery) -> None:
    """Rows change and transactions end while the snapshot is read; no DDL, which would have to wait."""
    sessions, rng = world.sessions, world.rng
    for _ in range(rng.choice((1, 2, 4))):
        if rng.random() < 0.4:
            sessions.end_one()
        else:
            name = rng.choice(sorted(sessions.connections))
            sessions.run(name, statement(world))
    sessions.story.append("=== rows are read")


def _options(rng: random.Random) -> dict[str, Any]:
    """Mostly one size of ranges for long; deltas that pile up, or are given up soon."""
    return {
        "range_pages": rng.choice((4, 8, 8, 8, 64)),
        "small_bytes": rng.choice((0, 0, 64 * 1024)),
        "follow": rng.choice((Policy(share=50.0), Policy(share=50.0), Policy(), Policy(layers=3))),
    }


def _finish_prepared(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for (gid,) in connection.execute(
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        ).fetchall():
            connection.execute(f"ROLLBACK PREPARED '{gid}'".encode())


def seeds(default: Sequence[int]) -> list[int]:
    """HISTORY_SEEDS, or the default ones."""
    chosen = os.environ.get("HISTORY_SEEDS", "")
    return [int(s) for s in chosen.split(",")] if chosen else list(default)


def new_desk(folder: Path) -> Desk:
    """A desk with a repository."""
    desk = Desk(folder)
    desk.run("init").expect()
    return desk
