"""pgbench and DDL while backups run; a snapshot is restored, and its books balance as pgbench keeps them."""

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support import soak
from tests.support.servers import needs, server, versions
from tests.support.snapshot_scene import Scene, make_scene

from pgkura.core.errors import SourceBusy
from pgkura.core.outcome import FindingClass, Result
from pgkura.core.progress import Silent
from pgkura.operations.restore import execute_restore, plan_restore
from pgkura.postgres.endpoint import Endpoint
from pgkura.snapshot.taken import Taken

CLIENTS = 4
SCRATCH_ROWS = 50
BALANCE = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
       (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
       (SELECT count(*) FROM pgbench_accounts), (SELECT count(*) FROM pgbench_history)
"""


def pgbench() -> str:
    """The program: on the PATH, or Debian's."""
    found = shutil.which("pgbench") or next(
        (str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)), None
    )
    needs("the program pgbench", found is not None)
    assert found is not None
    return found


@dataclass(slots=True)
class Ddl(threading.Thread):
    """Changes tables all the time: pgbench's own, too, in ways its transactions survive."""

    url: str
    seed: int
    changes: int = 0
    failures: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread.__init__(self, daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        """Until told to end."""
        dice = random.Random(self.seed)
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self.ended.is_set():
                self.changes += 1
                n, scratch = self.changes, f"scratch{dice.randrange(3)}"
                fill = f"INSERT INTO {scratch} (generation) SELECT {n} FROM generate_series(1, {SCRATCH_ROWS})"
                change = dice.choice(
                    (
                        f"BEGIN; TRUNCATE {scratch}; {fill}; COMMIT",
                        f"BEGIN; ALTER TABLE {scratch} ALTER generation TYPE bigint; "
                        f"ALTER TABLE {scratch} ALTER generation TYPE int; COMMIT",
                        f"BEGIN; DROP TABLE {scratch}; CREATE TABLE {scratch} (generation int); {fill}; COMMIT",
                        f"CREATE TABLE extra{n} (a int); DROP TABLE extra{n}",
                        "REFRESH MATERIALIZED VIEW totals",
                        f"ALTER TABLE pgbench_tellers ADD COLUMN c{n} int DEFAULT {n}",
                        f"CREATE INDEX i{n} ON pgbench_history (tid); DROP INDEX i{n}",
                    )
                )
                try:
                    connection.execute(change.encode())
                except psycopg.Error as error:
                    self.failures.append(str(error))
                    connection.execute("ROLLBACK")
                time.sleep(dice.uniform(0.1, 0.4))


@pytest.fixture(params=sorted({versions()[0], versions()[-1]}))
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Scene, str]]:
    """pgbench's tables, three scratch ones, a matview; and the URL of an empty database."""
    home, name = server(request.param), f"pgbench_{uuid4().hex[:10]}"
    made = make_scene(home.create_database(name), tmp_path / "repository")
    subprocess.run([pgbench(), "-i", "-q", "-s", "1", made.url], check=True, capture_output=True, timeout=120)
    made.sql(
        "CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM pgbench_history",
        *(f"CREATE TABLE scratch{i} (generation int)" for i in range(3)),
        *(f"INSERT INTO scratch{i} SELECT 0 FROM generate_series(1, {SCRATCH_ROWS})" for i in range(3)),
    )
    yield made, home.create_database(f"{name}_back")
    assert made.leftovers() == []
    home.drop_database(name)
    home.drop_database(f"{name}_back")


def fire(scene: Scene, seed: int, at_least: float) -> list[Taken]:
    """Backups, one after the other, until one has all of pgbench's tables and the time is over."""
    argv = [pgbench(), "-n", "-c", str(CLIENTS), "-j", "2", "-T", "600", "--random-seed", str(seed), scene.url]
    ddl = Ddl(scene.url, seed)
    taken: list[Taken] = []
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as bench:
        ddl.start()
        begun = time.monotonic()
        try:
            while not _enough(taken, time.monotonic() - begun, at_least):
                try:
                    taken.append(scene.take(attempts=6))
                except SourceBusy:
                    continue
            assert bench.poll() is None, "pgbench ended"
        finally:
            ddl.ended.set()
            ddl.join()
            bench.terminate()
            said = bench.stderr.read().decode() if bench.stderr else ""
    assert ddl.failures == [] and ddl.changes >= 3
    assert "ERROR" not in said, said[-2000:]
    return taken


def _enough(taken: list[Taken], seconds: float, at_least: float) -> bool:
    assert seconds < at_least + 60, f"{seconds:.0f} s: {[sorted(named(t)) for t in taken]}"
    return seconds > at_least and any(map(has_the_books, taken))


def named(taken: Taken) -> set[str]:
    """What it says that it lacks, or has as of another instant."""
    return {f.object for f in taken.findings if f.cls is FindingClass.LOST}


def has_the_books(taken: Taken) -> bool:
    """Whether pgbench's own tables are all of the one instant, by its own word."""
    return not any("pgbench_" in name for name in named(taken))


def check_restored(scene: Scene, taken: Taken, target: str) -> int:
    """Restore it, and ask the restored database itself; the transactions in it."""
    planned = plan_restore(scene.repo, taken.manifest.id, Endpoint.parse(target), progress=Silent())
    restored = execute_restore(planned, progress=Silent())
    assert restored.proof["equal"] is True or named(taken), restored.skipped
    with psycopg.connect(target) as connection:
        row = connection.execute(BALANCE.encode()).fetchone()
        assert row is not None
        accounts, tellers, branches, history, count, transactions = row
        assert accounts == tellers == branches == history, row
        assert count == 100_000
        for i in range(3):
            if f'table "public"."scratch{i}"' in named(taken):
                continue
            found = connection.execute(f"SELECT count(*), count(DISTINCT generation) FROM scratch{i}".encode())
            assert found.fetchone() == (SCRATCH_ROWS, 1), f"scratch{i}"
    return int(transactions)


def test_books_balance(scene: tuple[Scene, str]) -> None:
    """The last snapshot of some seconds of fire; every incomplete one names what it lacks."""
    source, target = scene
    taken = fire(source, 7, at_least=3)
    for one in taken:
        assert one.result is Result.OK or named(one)
    last = [t for t in taken if has_the_books(t)][-1]
    assert check_restored(source, last, target) > 0


@pytest.mark.soak
@pytest.mark.timeout(soak.TIMEOUT)
def test_books_balance_for_long(scene: tuple[Scene, str]) -> None:
    """The same with other seeds, until the time is over."""
    source, target = scene
    for seed in soak.rounds():
        source.sql("TRUNCATE pgbench_history", "UPDATE pgbench_accounts SET abalance = 0 WHERE abalance <> 0")
        source.sql("UPDATE pgbench_tellers SET tbalance = 0", "UPDATE pgbench_branches SET bbalance = 0")
        last = [t for t in fire(source, seed, at_least=5) if has_the_books(t)][-1]
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        check_restored(source, last, target)
