"""`restore --at` against oracles: independent checksums at random moments, a ledger row of every transaction."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_watch import archived, the_log
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A database to be watched, owned by a role that is no superuser."""
    home = server(request.param)
    name = f"at_{request.param}"
    yield request.param, ledger.make(home, name)
    ledger.drop_slots(home, name)


def observe(url: str) -> tuple[str, dict[str, str]]:
    """What an independent reader sees, and the snapshot it sees it with."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        # First the locks: a snapshot that is older than a TRUNCATE would show an empty table.
        connection.execute(f"LOCK TABLE {', '.join(ledger.TABLES)} IN ACCESS SHARE MODE".encode())
        row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        return str(row[0]), ledger.checksums(connection)


def restored(desk: Desk, version: int, at: str, *more: str) -> tuple[dict[str, str], list[int], dict[str, object]]:
    """Checksums and ledger of a target restored to a moment, as its plain owner."""
    home = server(version)
    name = f"at_{version}_back"
    owner = f"at_{version}_owner"
    home.create_database(name)
    with psycopg.connect(home.url(name), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} OWNER TO {owner}".encode())
        connection.execute(f"ALTER SCHEMA public OWNER TO {owner}".encode())
    url = home.url(name, user=owner)
    done = desk.run("restore", *more, "--at", at, "--to", url, "--json", "--yes").expect(3).json
    assert {(f["class"], f["object"].split()[0]) for f in done["skipped"]} == {("denied", "password")}, done["skipped"]
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT n FROM ledger").fetchall()
        return ledger.checksums(connection), sorted(int(n) for (n,) in rows), done


@pytest.mark.parametrize("source", versions(), indirect=True)
def test_moments_come_back_exactly(source: tuple[int, str], desk: Desk) -> None:
    """Snapshots observed by others; prefixes by position, transaction, time and name."""
    version, url = source
    env = {"DATABASE_URL": url}
    desk.run("watch", "--once", env=env).expect()
    seen: list[tuple[str, dict[str, str]]] = []
    with ledger.Load(url, seed=version) as load:
        time.sleep(0.3)
        load.gentle = True
        made = desk.run("backup", "--json", env=env).expect(3).json
        assert {f["class"] for f in made["skipped"]} == {"denied"}  # passwords of roles
        load.gentle = False
        chance = random.Random(version)
        with ExitStack() as stack:
            watcher = desk.start("watch", "--period", "0.3s", "--quiet", env=env)
            stack.callback(watcher.wait)
            stack.callback(watcher.terminate)
            for _ in range(3):
                time.sleep(chance.uniform(0.2, 0.6))
                seen.append(observe(url))
            desk.run("mark", "before the storm", env=env).expect()
            time.sleep(0.5)
    desk.run("watch", "--once", env=env).expect()

    for snapshot, sums in seen[:: 1 if version == versions()[-1] else 2]:
        got, _, _ = restored(desk, version, f"snapshot {snapshot}")
        assert got == sums

    order = archived(the_log(desk))
    assert sorted(order) == sorted(load.committed)
    xids = by_number(url)
    after = int(seen[0][0].split(":")[1])  # what begins after the first look is later than the base
    later = [n for n in order if xids[n] >= after]
    middle = later[len(later) // 2]
    _, rows, told = restored(desk, version, f"before xid {xids[middle]}")
    assert rows == sorted(order[: order.index(middle)])
    at = told["at"]
    assert isinstance(at, dict) and at["every_change_met_its_row"] is True
    _, rows, _ = restored(desk, version, "before the storm")
    assert rows == sorted(order[: len(rows)]) and len(rows) > 10
    got, rows, _ = restored(desk, version, "latest")
    assert rows == sorted(order)
    assert got == observe(url)[1]


def by_number(url: str) -> dict[int, int]:
    """The transaction of each ledger row."""
    with psycopg.connect(url) as connection:
        return {int(n): int(x) for n, x in connection.execute("SELECT n, xid::text FROM ledger").fetchall()}
