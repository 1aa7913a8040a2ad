"""Comparing with a live database ends when its application waits: promise 2 holds for readers that back nothing up."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, Script, Statement, make_scene

from pgkura.core.errors import SourceBusy
from pgkura.core.progress import Silent
from pgkura.operations import diff
from pgkura.operations.verify import verify_against
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.inventory import Item, read_inventory
from pgkura.postgres.session import Session
from pgkura.repository.repository import Repository


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A table with a sequence and a view, and a backup of it."""
    name = f"giving_way_{uuid4().hex[:12]}"
    host = newest()
    made = make_scene(host.create_database(name), tmp_path / "repository")
    made.sql("CREATE TABLE t (id serial, v text)", "INSERT INTO t (v) VALUES ('x')", "CREATE VIEW w AS SELECT * FROM t")
    made.take()
    yield made
    assert made.leftovers() == []
    host.drop_database(name)


def truncating(scene: Scene, told: list[float]) -> Callable[[], None]:
    """The application's statement, waited for by the reader itself: it would stand for as long as the reader reads."""

    def step() -> None:
        statement = Statement(scene, "TRUNCATE t RESTART IDENTITY")
        statement.join(timeout=8)
        told.append(statement.seconds if not statement.is_alive() else 99.0)

    return step


def test_verify_gives_way(scene: Scene) -> None:
    """The proof of a live database is given up, and nothing goes to the journal."""
    waited: list[float] = []
    script = Script({"comparing rows": truncating(scene, waited)})
    with pytest.raises(SourceBusy, match="gave way"):
        verify_against(scene.repo, "latest", Endpoint.parse(scene.url), progress=script)
    assert len(waited) == 1 and waited[0] < 2.0
    assert not list(Path(scene.repo.url).glob("journal/*-proof"))


def test_verify_of_a_quiet_database(scene: Scene) -> None:
    """Nobody waits: as ever."""
    assert verify_against(scene.repo, "latest", Endpoint.parse(scene.url), progress=Silent()).proof["equal"] is True


def test_diff_gives_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a live side of `diff`, which holds what it has read of views and sequences."""
    waited: list[float] = []

    def slow(session: Session) -> Iterator[Item]:
        yield from read_inventory(session)
        truncating(scene, waited)()

    monkeypatch.setattr("pgkura.operations.diff.read_inventory", slow)

    class Sources:
        def repository(self, *, need_identity: bool = False) -> Repository:
            return scene.repo

        def source(self) -> Endpoint:
            return Endpoint.parse(scene.url)

    with pytest.raises(SourceBusy, match="gave way"):
        diff.diff_snapshots(Sources(), "latest", diff.LIVE)
    assert len(waited) == 1 and waited[0] < 2.0


def test_a_url_is_a_side_of_diff() -> None:
    """As is a reference; two databases are not compared."""
    assert diff.live_side("latest", "postgresql://u:p@h/d") == ("postgresql://u:p@h/d", ("latest", diff.LIVE))
    assert diff.live_side("env:SOURCE", "latest") == ("env:SOURCE", (diff.LIVE, "latest"))
    assert diff.live_side("latest", diff.LIVE) == ("", ("latest", diff.LIVE))
    with pytest.raises(Exception, match="two live databases") as told:
        diff.live_side("postgresql://u:p@h/d", diff.LIVE)
    assert "p@h" not in json.dumps(str(told.value))
