"""Units of restore and verify run on any executor, carry no credential, and may run twice."""

import pickle
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from tests.support import compare
from tests.support.servers import PASSWORD, newest
from tests.support.snapshot_scene import Scene, make_scene
from tests.support.wire import Wire

from pgkura.core.access import Access, hold, resolve
from pgkura.core.errors import Interrupted
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.operations.restore import execute_restore, plan_restore
from pgkura.operations.verify import verify_against
from pgkura.postgres.endpoint import Endpoint
from pgkura.restore.units import LoadUnit, load_unit
from pgkura.work.pools import Crew, Kind
from pgkura.work.station import close_stations, leave, station_for, visit


class Elsewhere(ThreadPoolExecutor):
    """What a foreign executor does: everything is pickled on the way, and each unit runs twice."""

    def __init__(self, *, twice: bool = False) -> None:
        super().__init__(max_workers=2)
        self.sent: list[bytes] = []
        self._twice = twice

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Through bytes."""
        self.sent.append(pickle.dumps((fn, args)))
        again, arguments = pickle.loads(self.sent[-1])
        if self._twice:
            super().submit(again, *arguments).result()
        return super().submit(again, *arguments)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A small database with all ways of loading: own tables, a tree loaded through its root, foreign keys."""
    name = f"units_{uuid4().hex[:12]}"
    made = make_scene(newest().create_database(name), tmp_path / "repository")
    made.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
        "CREATE TABLE moods (m mood, n int) PARTITION BY HASH (m)",
        "CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "INSERT INTO moods SELECT (ARRAY['sad', 'ok', 'happy'])[1 + g % 3]::mood, g FROM generate_series(1, 300) g",
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "INSERT INTO parent SELECT generate_series(1, 500)",
        "CREATE TABLE child (id int REFERENCES parent, v text)",
        "INSERT INTO child SELECT g, repeat('v', 100) FROM generate_series(1, 500) g",
    )
    yield made
    newest().drop_database(name)


def _target() -> str:
    return newest().create_database(f"units_back_{uuid4().hex[:8]}")


def _access(scene: Scene, url: str) -> Access:
    return Access(
        database=hold(f"target-{uuid4().hex}", url), repository=scene.access.repository, identity=scene.identity
    )


@pytest.mark.parametrize("kind", ["threads", "processes", "elsewhere", "elsewhere, each unit twice"])
def test_restore_and_proof_on_every_kind_of_worker(scene: Scene, kind: str) -> None:
    assert scene.take().result is Result.OK
    url = _target()
    access = _access(scene, url)
    planned = plan_restore(scene.repo, "latest", Endpoint.parse(url), progress=Silent())
    with Elsewhere(twice="twice" in kind) as pool:
        local: Kind = "processes" if kind == "processes" else "threads"
        crew = Crew(given=pool) if kind.startswith("elsewhere") else Crew(kind=local)
        result = execute_restore(planned, progress=Silent(), access=access, crew=crew)
        verified = verify_against(
            scene.repo, "latest", Endpoint.parse(url), progress=Silent(), access=access, crew=crew
        )
    assert result.proof["equal"] is True and result.rows == 1300, result.skipped
    assert verified.result is Result.OK
    compare.assert_same(scene.url, url)
    secrets = [resolve(r) for r in access.references]
    assert bool(pool.sent) is kind.startswith("elsewhere")
    assert not any(s.encode() in unit or PASSWORD.encode() in unit for unit in pool.sent for s in secrets)
    assert scene.leftovers() == []


def test_a_worker_given_up_for_lost_writes_nothing_once_the_restore_has_gone_on(scene: Scene) -> None:
    assert scene.take().result is Result.OK
    url = _target()
    access = _access(scene, url)
    planned = plan_restore(scene.repo, "latest", Endpoint.parse(url), progress=Silent())
    with Elsewhere() as pool:
        execute_restore(planned, progress=Silent(), access=access, crew=Crew(given=pool))
    late = [args[1] for fn, args in map(pickle.loads, pool.sent) if fn is visit and isinstance(args[1], LoadUnit)]
    assert late
    for unit in late:
        with pytest.raises(Interrupted, match="went on without this worker"):
            visit(load_unit, unit)
        close_stations(unit.access)
    compare.assert_same(scene.url, url)


def test_a_connection_that_is_being_made_when_the_run_ends_is_given_up() -> None:
    """Whoever ends a run ends the connections that the server shows; this one is not there yet."""
    url = newest().url("postgres")
    parts = urlsplit(url)
    with Wire(parts.port or 0) as wire, ThreadPoolExecutor(1) as pool:
        through = urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{wire.port}")))
        access = Access(database=hold("left", through), repository="nowhere", run=uuid4().hex)
        wire.stalled = True
        made = pool.submit(lambda: station_for(access).session("pgkura test late"))
        time.sleep(0.5)
        assert not made.done()
        leave(access)
        wire.stalled = False
        with pytest.raises(Interrupted, match="the run is over"):
            made.result(timeout=20)
    close_stations(access)
