"""Random histories: every incremental snapshot equals a full reading of the same moment, whatever happened between.

What the histories are worth is measured too: toy incremental backups with one fault each (see history_models.py in
tests/support) look at the same moments, and every one of them must be caught.
"""

import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from tests.support import servers
from tests.support.cluster import start_cluster
from tests.support.histories import SETTINGS, Played, new_desk, play, seeds
from tests.support.history_oracle import HistoryFailed

from pgkura.core.errors import PgkuraError
from pgkura.snapshot.detector import Before, Point, Policy, Verdict, judge
from pgkura.snapshot.places import Places
from pgkura.snapshot.remembering import keys_of
from pgkura.snapshot.state import TableKey

VERSIONS = sorted({servers.versions()[0], servers.versions()[-1]})
SEEDS = seeds((1, 2, 3, 4))
_started: dict[int, servers.Server] = {}


@pytest.fixture(scope="module", autouse=True)
def _clusters() -> Iterator[None]:
    yield
    for one in _started.values():
        one.cluster.stop()
    _started.clear()
    _played.cache_clear()


def _cluster(version: int) -> servers.Server:
    """A server of its own: prepared transactions allowed, nobody else's open ones."""
    if version not in _started:
        home = servers.binaries(version)
        servers.needs(f"PostgreSQL {version}", home is not None)
        assert home is not None
        cluster = start_cluster(home, superuser="postgres", password=servers.PASSWORD, settings=SETTINGS)
        _started[version] = servers.Server(version=version, cluster=cluster, contrib=False)
    return _started[version]


@contextmanager
def _autovacuum(host: servers.Server, *, on: bool) -> Iterator[None]:
    with psycopg.connect(host.url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET autovacuum = {'on' if on else 'off'}".encode())
        connection.execute("SELECT pg_reload_conf()")
        yield
        connection.execute("ALTER SYSTEM RESET autovacuum")
        connection.execute("SELECT pg_reload_conf()")


@cache
def _played(seed: int, version: int, snapshots: int = 8) -> Played:
    host = _cluster(version)
    with _autovacuum(host, on=seed % 4 == 0):
        url, target = host.create_database(f"history_{seed}"), host.create_database(f"history_{seed}_back")
        folder = Path(mkdtemp(prefix="kura-history-"))
        try:
            return play(seed, url, target, new_desk(folder), snapshots=snapshots)
        finally:
            shutil.rmtree(folder)
            host.drop_database(f"history_{seed}")
            host.drop_database(f"history_{seed}_back")


def _version(seed: int) -> int:
    return VERSIONS[seed % len(VERSIONS)]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_snapshot_of_a_random_history_equals_a_full_reading(seed: int) -> None:
    played = _played(seed, _version(seed))
    assert played.tally.errors * 4 < played.tally.statements, "most of the history did not happen"


@pytest.mark.skipif("HISTORY_SEEDS" in os.environ, reason="needs the default seeds")
def test_the_histories_can_tell_right_from_wrong() -> None:
    """Snapshots whose xmin is their xmax prove nothing: most of these had writers that committed later."""
    played = [_played(seed, _version(seed)) for seed in SEEDS]
    snapshots = sum(p.tally.snapshots for p in played)
    later = sum(len(p.tally.later) for p in played)
    assert later >= 0.6 * snapshots, (later, snapshots)
    assert sum(len(p.tally.sub_later) for p in played) >= 0.3 * snapshots
    assert sum(len(p.tally.prepared_later) for p in played) >= 2
    assert all(p.reused for p in played) and sum(p.deltas for p in played) > 50, [(p.reused, p.deltas) for p in played]
    wrong = {m.name: any(n.wrong for p in played for n in p.models if n.name == m.name) for m in played[0].models}
    assert wrong.pop("right") is False
    assert all(wrong.values()), wrong


def _fails(snapshots: int = 8) -> bool:
    """Whether some history finds the fault that is in the product now: by other rows, or rows that cannot be read."""
    for seed in SEEDS:
        try:
            _played.__wrapped__(seed, _version(seed), snapshots)
        except (HistoryFailed, PgkuraError, ValueError, LookupError, struct.error):
            return True
    return False


def _without(field: str, value: object) -> Callable[..., dict[int, TableKey]]:
    def keys(*given: object) -> dict[int, TableKey]:
        return {oid: replace(key, **{field: value}) for oid, key in keys_of(*given).items()}  # type: ignore[arg-type]

    return keys


def _keeps_all(layers: Sequence[tuple[Places, Places]], visible: Places, new: Places) -> list[NDArray[np.int64]]:
    return [drops for _, drops in layers]


def _believes_counts(before: Before, count: int, new: int, policy: Policy) -> Verdict:
    return Verdict.QUIET if count == before.rows else judge(before, count, new, policy)


def _never_loses(before: Before, count: int, new: int, policy: Policy) -> Verdict:
    found = judge(before, count, new, policy)
    return Verdict.GROWN if found is Verdict.CHANGED else found


# The product's deciders, each with one fault: where it lies, and what takes its place.
FAULTS = {
    "new is what is at or after xmax": ("pgkura.snapshot.detector.Point.xmin", Point.xmax),
    "the file is not in the key": ("pgkura.snapshot.attempt.keys_of", _without("filenode", 0)),
    "the row type is not in the key": ("pgkura.snapshot.attempt.keys_of", _without("row_type", "")),
    "an equal count is believed": ("pgkura.snapshot.following.judge", _believes_counts),
    "lost rows are not looked for": ("pgkura.snapshot.following.judge", _never_loses),
    "rows that are gone are kept": ("pgkura.snapshot.following.gone", _keeps_all),
}


@pytest.mark.parametrize("fault", ["new is what is at or after xmax"])
def test_a_fault_in_the_product_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation check, in short: patched where the product looks its decider up, the histories must fail."""
    monkeypatch.setattr(*FAULTS[fault])
    assert _fails()


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_in_the_product_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them take minutes."""
    monkeypatch.setattr(*FAULTS[fault])
    assert _fails()


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak() -> None:
    """As many histories as SOAK_SECONDS allow, over all versions; HISTORY_FIRST is the first seed."""
    until = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "600"))
    seed = int(os.environ.get("HISTORY_FIRST", "") or time.time())
    present = servers.versions()
    while time.monotonic() < until:
        print(f"seed {seed}", flush=True)
        _played.__wrapped__(seed, present[seed % len(present)], snapshots=15)
        seed += 1
