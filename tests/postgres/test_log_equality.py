"""Equality, not plausibility: under a mixed load every moment that others saw comes back exactly as they saw it.

Snapshots are held against checksums that independent readers took in them; prefixes of the commit order against what
another plugin decodes of the same log.
"""

import random
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from tests.support import ledger, mixed, soak
from tests.support.cli import Desk
from tests.support.servers import Server, versions
from tests.support.watchers import limited

from pgkura.core.wal import lsn_text
from pgkura.replay.moments import time_text

CI = sorted({versions()[0], versions()[-1]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of it. once: one large transaction, behind the last base but one, where each moment is dear."""

    moments: int  # random moments that are restored
    looks: int  # snapshots that are taken
    bases: int
    clients: int
    bulk: int
    pause: float = 0.3
    once: bool = False


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a load left behind: bases with the number of looks that were before each."""

    looks: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bases: list[tuple[str, int]] = field(default_factory=list)
    order: list[mixed.Commit] = field(default_factory=list)
    last: dict[str, str] = field(default_factory=dict)


def tables(version: int) -> tuple[str, ...]:
    """What is compared."""
    return (*mixed.TABLES, mixed.NO_KEY) if version >= 15 else mixed.TABLES


def observe(url: str, version: int) -> tuple[str, dict[str, str]]:
    """What an independent reader sees, and the snapshot it sees it with; again when a deadlock ended it."""
    while True:
        with suppress(psycopg.errors.DeadlockDetected):
            return look(url, version)


def look(url: str, version: int) -> tuple[str, dict[str, str]]:
    """Once."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        # First the locks: a snapshot that is older than a TRUNCATE would show an empty table.
        connection.execute(f"LOCK TABLE {', '.join(tables(version))} IN ACCESS SHARE MODE".encode())
        row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        return str(row[0]), ledger.checksums(connection, tables(version))


def run_load(home: Server, url: str, desk: Desk, size: Size, seed: int) -> Seen:
    """A watcher, backups in between, looks and a mark."""
    env, chance, seen = {"DATABASE_URL": url}, random.Random(seed), Seen()
    desk.run("watch", "--once", env=env).expect()
    mixed.begin_oracle(home, "equal")
    most = 0 if size.once else 1_000_000
    with mixed.Mixed(url, clients=size.clients, seed=seed, bulk=size.bulk, at_most=most) as load, ExitStack() as stack:
        watcher = desk.start("watch", "--period", "0.3s", "--quiet", env=env)
        stack.callback(watcher.wait)
        stack.callback(watcher.terminate)
        for turn in range(size.bases):
            if size.once:
                load.at_most = int(turn >= size.bases - 2)
            load.gentle = True
            time.sleep(0.5)
            made = desk.run("backup", "--json", env=env).expect(3).json
            assert {f["class"] for f in made["skipped"]} == {"denied"}, made["skipped"]  # passwords of roles
            seen.bases.append((made["snapshot"], len(seen.looks)))
            load.gentle = False
            for _ in range(size.looks // size.bases):
                time.sleep(chance.uniform(0, 2 * size.pause))
                seen.looks.append(observe(url, home.version))
            desk.run("mark", f"after base {turn}", env=env).expect()
        load.stop()
        assert watcher.poll() is None
    assert load.prepared > 0
    assert load.bulks or not size.once
    desk.run("watch", "--once", env=env).expect()
    assert desk.run("watch", "--once", "--json", env=env).expect().json["holes"] == 0
    seen.order = mixed.read_oracle(home, "equal")
    seen.last = observe(url, home.version)[1]
    assert sorted(c.ledger for c in seen.order if c.ledger) == sorted(load.committed)
    return seen


def restored(desk: Desk, home: Server, base: str, at: str) -> tuple[dict[str, str], list[int]]:
    """Checksums and ledger of a new database at a moment."""
    home.create_database("equal_back")
    with psycopg.connect(home.url("equal_back"), autocommit=True) as connection:
        connection.execute("ALTER DATABASE equal_back OWNER TO equal_owner")
        connection.execute("ALTER SCHEMA public OWNER TO equal_owner")
    url = home.url("equal_back", user="equal_owner")
    done = desk.run("restore", base, "--at", at, "--to", url, "--json", "--yes").expect(3).json
    assert {f["class"] for f in done["skipped"]} == {"denied"}, done["skipped"]
    assert done["at"]["every_change_met_its_row"] is True
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT n FROM ledger ORDER BY n").fetchall()
        return ledger.checksums(connection, tables(home.version)), [int(n) for (n,) in rows]


def check_snapshot(desk: Desk, home: Server, seen: Seen, chance: random.Random) -> None:
    """A random look, from a random base that is older."""
    number = chance.randrange(len(seen.looks))
    snapshot, sums = seen.looks[number]
    base = chance.choice([name for name, before in seen.bases if before <= number] or ["latest"])
    got, _ = restored(desk, home, base, f"snapshot {snapshot}")
    assert got == sums, f"snapshot {snapshot} from {base}"


def check_prefix(desk: Desk, home: Server, seen: Seen, chance: random.Random) -> None:
    """A random commit that is later than the first look, told in one of the ways that there are."""
    after = int(seen.looks[0][0].split(":")[1])
    places = [p for p, c in enumerate(seen.order) if c.ledger and c.xid >= after]
    place = chance.choice(places)
    one = seen.order[place]
    kind = chance.choice(("xid", "before", "lsn", "time", "mark"))
    count = place + 1
    if kind == "xid":
        at = f"xid {one.xid}"
    elif kind == "before":
        at, count = f"before xid {one.xid}", place
    elif kind == "lsn":
        at = lsn_text(one.end - 1)
    elif kind == "time":
        when = one.time + chance.choice((-1, 0, 1, 1000))
        at = time_text(when)
        count = next((p for p, c in enumerate(seen.order) if c.time > when), len(seen.order))
    else:
        marks = [p for p, c in enumerate(seen.order) if c.mark]
        number = chance.randrange(len(marks))
        at, count = f"mark after base {number}", marks[number] + 1
    _, rows = restored(desk, home, "latest", at)
    assert rows == sorted(c.ledger for c in seen.order[:count] if c.ledger), at


def check(version: int, folder: Path, size: Size, seed: int) -> None:
    """One run."""
    desk, chance = Desk(folder), random.Random(seed)
    desk.run("init").expect()
    with limited(version, max_prepared_transactions="20") as home:
        url = mixed.make(home, "equal")
        seen = run_load(home, url, desk, size, seed)
        got, rows = restored(desk, home, "latest", "latest")
        assert got == seen.last and rows == sorted(c.ledger for c in seen.order if c.ledger)
        for number in range(size.moments):
            (check_prefix if number % 3 == 2 else check_snapshot)(desk, home, seen, chance)


@pytest.mark.parametrize("version", CI)
def test_moments_are_exact(version: int, tmp_path: Path) -> None:
    """A few of them."""
    check(version, tmp_path, Size(moments=4, looks=6, bases=2, clients=4, bulk=10_000), seed=version)


@pytest.mark.soak
@pytest.mark.timeout(soak.TIMEOUT)
def test_soak_moments_are_exact(tmp_path: Path) -> None:
    """A hundred of them for each version, a million rows in a transaction; what the time allows."""
    for seed in soak.rounds():
        version = versions()[seed % len(versions())]
        size = Size(moments=100, looks=120, bases=5, clients=5, bulk=1_000_000, pause=0.5, once=True)
        check(version, tmp_path / str(seed), size, seed)
