"""The net under the detector: one that sees no change at all is found out by a proof, and made good within a month."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.postgres.test_snapshot_incremental import same, take
from tests.support.cli import Desk
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.operations.verify import verify_against
from pgkura.postgres.endpoint import Endpoint
from pgkura.snapshot import following
from pgkura.snapshot.detector import Policy
from pgkura.snapshot.remembering import Remembered
from pgkura.snapshot.units import Piece

TABLES = """
CREATE TABLE wide (id int PRIMARY KEY, body text);
CREATE TABLE other (id int PRIMARY KEY, body text);
INSERT INTO wide SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 20000) g;
INSERT INTO other SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 400) g;
"""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One table of some sixty ranges, one of a few."""
    name = f"periodic_{uuid4().hex[:8]}"
    made = make_scene(newest().create_database(name), tmp_path / "repository")
    made.sql(TABLES, "VACUUM ANALYZE")
    yield made
    newest().drop_database(name)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every range that is asked about looks as it did."""

    def counts(_: Any, pieces: Sequence[Piece], __: QualifiedName | None) -> Iterator[tuple[Piece, Any]]:
        for piece in pieces:
            assert piece.before is not None
            yield piece, following._Counted(piece.before.rows, 0)

    monkeypatch.setattr(following.Follower, "_counts", counts)


def days_later(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """The host's calendar, as a backup sees it."""

    def remembered(keys: Any, binary: Any, options: Any, today: date) -> Remembered:
        return Remembered(keys, binary, options, today + timedelta(days=days))

    monkeypatch.setattr("pgkura.snapshot.take.Remembered", remembered)


@pytest.mark.usefixtures("blind")
def test_a_blind_detector_is_found_out_and_made_good(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a proof at once; by reading ranges again, in turn, over the last quarter of a period; then all is exact."""
    first = take(scene)
    scene.sql("UPDATE wide SET body = 'changed' WHERE id % 100 = 0")
    second = take(scene)
    assert second.counts["bytes_read"] < first.counts["bytes_read"] / 10
    source = Endpoint.parse(scene.url)
    found = verify_against(scene.repo, "latest", source, progress=Silent(), access=scene.access)
    assert found.result is not Result.OK
    assert any("wide" in d.object for d in found.differences)

    days_later(monkeypatch, 22)
    assert take(scene).counts["bytes_read"] <= second.counts["bytes_read"] + 1000
    read: list[int] = []
    for day in (24, 26, 28, 30):
        days_later(monkeypatch, day)
        read.append(take(scene).counts["bytes_read"])
    assert all(0 < some < first.counts["bytes_read"] for some in read), read
    last = take(scene)
    same(scene, last)
    assert verify_against(scene.repo, "latest", source, progress=Silent(), access=scene.access).result is Result.OK
    days_later(monkeypatch, 31)
    assert take(scene).counts["bytes_read"] < first.counts["bytes_read"] / 2, "each has a day of its own from then on"


@pytest.mark.usefixtures("blind")
def test_the_period_is_what_is_asked_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days instead of thirty."""
    take(scene)
    scene.sql("UPDATE wide SET body = 'changed' WHERE id % 100 = 0")
    days_later(monkeypatch, 2)
    take(scene)
    wrong = verify_against(scene.repo, "latest", Endpoint.parse(scene.url), progress=Silent(), access=scene.access)
    assert wrong.result is not Result.OK
    same(scene, take(scene, follow=Policy(days=2)))


def test_the_share_is_what_is_asked_for(scene: Scene) -> None:
    """A tenth of each range changed: by default new rows alone, with a share of nothing all rows again."""
    first = take(scene)
    scene.sql("UPDATE wide SET body = repeat(md5(body), 10) WHERE id % 10 = 0")
    usual = take(scene)
    same(scene, usual)
    scene.sql("UPDATE wide SET body = repeat(md5(body), 10) WHERE id % 10 = 1")
    strict = take(scene, follow=Policy(share=0.0))
    same(scene, strict)
    assert usual.counts["bytes_read"] * 2 < first.counts["bytes_read"]
    assert strict.counts["bytes_read"] * 1.2 > first.counts["bytes_read"] * 0.9


def test_by_the_command_line(scene: Scene, tmp_path: Path) -> None:
    """Both options are refused where they mean nothing, and taken where they mean something."""
    desk = Desk(tmp_path / "desk")
    desk.run("init").expect()
    env = {"DATABASE_URL": scene.url}
    desk.run("backup", env=env).expect()
    scene.sql("UPDATE wide SET body = md5(body) WHERE id % 50 = 0")
    made = desk.run("backup", "--rebase-share", "0", "--reread-after", "7d", "--json", env=env).expect().json
    assert made["rows"] == 20_400
    for wrong in (("--reread-after", "3h"), ("--reread-after", "soon"), ("--rebase-share", "-1")):
        desk.run("backup", *wrong, env=env).expect(2)
