"""Transfers and DDL while backups run: each stored table is of the snapshot's instant, or it is named."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support import soak
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.errors import SourceBusy
from pgkura.core.outcome import FindingClass
from pgkura.snapshot.taken import Taken

ACCOUNTS = 50
SCRATCH_ROWS = 100
BOUND = 1.5


class Load:
    """Clients that move money between accounts and write a ledger; one that changes tables all the time."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._ended = threading.Event()
        self._seed = seed
        self.slowest = 0.0
        self.changes = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._transfer, args=(n,), daemon=True) for n in range(2)]
        self._threads.append(threading.Thread(target=self._change, daemon=True))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _transfer(self, number: int) -> None:
        dice = random.Random(self._seed * 100 + number)
        with psycopg.connect(self._scene.url) as connection:
            while not self._ended.is_set():
                one, two = sorted(dice.sample(range(ACCOUNTS), 2))
                amount = dice.randint(-100, 100)
                for account, change in ((one, amount), (two, -amount)):
                    connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (change, account))
                    connection.execute("INSERT INTO ledger (account, amount) VALUES (%s, %s)", (account, change))
                connection.commit()

    def _change(self) -> None:
        dice = random.Random(self._seed)
        generation = 1
        with psycopg.connect(self._scene.url) as connection:
            while not self._ended.is_set():
                table = f"scratch{dice.randrange(4)}"
                generation += 1
                fill = f"INSERT INTO {table} (generation) SELECT {generation} FROM generate_series(1, {SCRATCH_ROWS})"
                change = dice.choice(
                    (
                        f"TRUNCATE {table}; {fill}",
                        f"DELETE FROM {table}; {fill}",
                        f"ALTER TABLE {table} ALTER generation TYPE bigint; "
                        f"ALTER TABLE {table} ALTER generation TYPE int",
                        f"DROP TABLE {table}; CREATE TABLE {table} (generation int); {fill}",
                        f"ALTER TABLE {table} ADD COLUMN c{generation} int DEFAULT 1",
                        "REFRESH MATERIALIZED VIEW totals",
                        f"CREATE TABLE extra{generation} (a int); DROP TABLE extra{generation}",
                    )
                )
                began = time.monotonic()
                try:
                    connection.execute(change.encode())
                    connection.commit()
                    self.changes += 1
                except psycopg.Error as error:
                    connection.rollback()
                    self.failures.append(str(error))
                self.slowest = max(self.slowest, time.monotonic() - began)
                time.sleep(dice.uniform(0, 0.05))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Accounts, their ledger, four scratch tables, a matview."""
    name = f"fire_{uuid4().hex[:12]}"
    host = newest()
    made = make_scene(host.create_database(name), tmp_path / "repository")
    made.sql(
        "CREATE TABLE accounts (id int PRIMARY KEY, balance int)",
        f"INSERT INTO accounts SELECT g, 0 FROM generate_series(0, {ACCOUNTS - 1}) g",
        "CREATE TABLE ledger (id bigserial, account int, amount int)",
        "CREATE TABLE ballast AS SELECT repeat('x', 500) v FROM generate_series(1, 6000)",
        "CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM ledger",
        *(f"CREATE TABLE scratch{i} (generation int)" for i in range(4)),
        *(f"INSERT INTO scratch{i} SELECT 0 FROM generate_series(1, {SCRATCH_ROWS})" for i in range(4)),
    )
    yield made
    assert made.leftovers() == []
    host.drop_database(name)


def _check(scene: Scene, taken: Taken) -> None:
    named = {f.object for f in taken.findings if f.cls is FindingClass.LOST}
    stored = scene.stored(taken)
    assert not named & {'table "public"."accounts"', 'table "public"."ledger"', 'table "public"."ballast"'}
    balances = {int(i): int(b) for i, b in (line.split(b"\t") for line in stored['"public"."accounts"'])}
    sums: Counter[int] = Counter()
    for line in stored['"public"."ledger"']:
        _, account, amount = line.split(b"\t")
        sums[int(account)] += int(amount)
    assert sum(balances.values()) == 0
    assert {i: b for i, b in balances.items() if b} == {i: s for i, s in sums.items() if s}
    for i in range(4):
        name = f'"public"."scratch{i}"'
        if name in stored and f"table {name}" not in named:
            generations = Counter(line.split(b"\t")[0] for line in stored[name])
            assert list(generations.values()) == [SCRATCH_ROWS], (name, generations, taken.findings)


@pytest.mark.parametrize("seed", [1, 2])
def test_one_instant_or_named(scene: Scene, seed: int) -> None:
    _fire(scene, seed, seconds=8)


@pytest.mark.soak
@pytest.mark.timeout(soak.TIMEOUT)
def test_one_instant_or_named_for_long(scene: Scene) -> None:
    """Other seeds on the same tables; the ledger starts anew, so that rounds stay alike."""
    for seed in soak.rounds():
        scene.sql("TRUNCATE ledger", "UPDATE accounts SET balance = 0 WHERE balance <> 0")
        _fire(scene, seed, seconds=20)


def _fire(scene: Scene, seed: int, *, seconds: float) -> None:
    results: Counter[str] = Counter()
    with Load(scene, seed) as load:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                taken = scene.take(bytes_per_second=6_000_000, max_blocking_seconds=BOUND, attempts=5)
            except SourceBusy as busy:
                results[busy.msg] += 1
                continue
            results[taken.result.value] += 1
            _check(scene, taken)
    assert load.failures == []
    assert load.slowest < BOUND
    assert load.changes > 20
    assert results["ok"] + results["incomplete"] > 0, results
