"""Random histories, as in test_histories.py, through disasters of the whole cluster: crashes, failover, pg_upgrade."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from tests.support import servers
from tests.support.cluster import Cluster, start_cluster
from tests.support.histories import SETTINGS, Played, new_desk, play, seeds
from tests.support.history_clusters import lazy, make_standby, url_of
from tests.support.history_models import without_flush, without_timeline
from tests.support.history_strikes import DATABASE, Crash, Failover, Strike, Upgrade

SEEDS = seeds((1, 3))
GIVEN = "HISTORY_SEEDS" in os.environ


@dataclass(slots=True)
class Place:
    """The clusters of a history, its repository, and the server it is restored to."""

    folder: Path
    ended: ExitStack = field(default_factory=ExitStack)

    def keep(self, cluster: Cluster) -> Cluster:
        """Stopped at the end."""
        self.ended.callback(cluster.stop)
        return cluster

    def cluster(self, home: Path | None, what: str, settings: Mapping[str, str]) -> Cluster:
        """A new one, with an empty database."""
        servers.needs(what, home is not None)
        assert home is not None
        made = self.keep(start_cluster(home, superuser="postgres", password=servers.PASSWORD, settings=settings))
        with psycopg.connect(url_of(made), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())
        return made

    def play(self, seed: int, start: Cluster, strike: Strike) -> Played:
        """The history; it begins in `start`."""
        target = servers.newest().create_database("history_back")
        faults = [without_flush(), without_timeline()]
        return play(
            seed, url_of(start, DATABASE), target, new_desk(self.folder), snapshots=7, strike=strike, models=faults
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Empty."""
    made = Place(tmp_path / "desk")
    with made.ended:
        yield made


def _right(played: Played) -> bool:
    """Most of it happened, and the right model was right."""
    return played.tally.errors * 4 < played.tally.statements and not any(
        m.wrong for m in played.models if m.name == "right"
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_crashes(seed: int, place: Place) -> None:
    """Commits that nobody had flushed are lost; unlogged tables are emptied."""
    version = servers.versions()[-1 if seed % 4 == 1 else 0]
    start = place.cluster(servers.binaries(version), f"PostgreSQL {version}", {**SETTINGS, **lazy("700ms")})
    strike = Crash(cluster=start)
    assert _right(place.play(seed, start, strike)) and strike.count >= 3


@pytest.mark.parametrize(
    ("seed", "plain"), [*((seed, True) for seed in SEEDS), *((seed, False) for seed in SEEDS[:1])], ids=str
)
def test_failover_to_a_standby_that_lost_commits(plain: bool, seed: int, place: Place) -> None:
    """Two snapshots were taken of what it lost."""
    version = servers.versions()[-1 if seed % 4 == 1 else 0]
    start = place.cluster(servers.binaries(version), f"PostgreSQL {version}", SETTINGS)
    strike = Failover(primary=start, standby=place.keep(make_standby(start)), plain=plain)
    played = place.play(seed, start, strike)
    assert _right(played) and strike.count == 1
    if plain and not GIVEN:  # others may lose nothing that can be seen
        assert any(m.wrong for m in played.models if m.name == without_timeline().name), "the story did not happen"


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_pg_upgrade(seed: int, place: Place) -> None:
    """Another cluster, another major, the same xids and places."""
    new = servers.wheel_binaries(18)
    servers.needs("pg_upgrade from 16 to 18", new is not None and (new / "pg_upgrade").exists())
    assert new is not None
    start = place.cluster(servers.wheel_binaries(16), "PostgreSQL 16", {"max_prepared_transactions": "20"})
    strike = Upgrade(old=start, programs=new, keep=place.keep)
    assert _right(place.play(seed, start, strike)) and strike.count == 1
