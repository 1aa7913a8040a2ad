"""Schema changes under load: the watcher takes new bases by itself; what is promised is exact, what is not is named."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.postgres.test_watch import open_repository
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions

from pgkura.core.errors import Unreachable
from pgkura.core.wal import parse_lsn
from pgkura.replay.moments import parse_moment
from pgkura.replay.planning import plan_replay

CHANGES = (
    (
        "ALTER TABLE wide ADD COLUMN c7 int NOT NULL DEFAULT 7",
        "CREATE TABLE fresh (id int PRIMARY KEY, v text)",
        "INSERT INTO fresh VALUES (0, 'logged')",
    ),
    (
        "ALTER TABLE wide ADD COLUMN chance float8 DEFAULT random()",
        "INSERT INTO fresh SELECT g, 'x' FROM generate_series(1, 9) g",
    ),
    ("ALTER TABLE wide DROP COLUMN c7", "ALTER TABLE wide RENAME COLUMN note TO remark", "DROP TABLE fresh"),
    ("ALTER TABLE wide ALTER COLUMN n TYPE bigint USING n * 10", "CREATE VIEW seen AS SELECT id FROM wide"),
)


@dataclass(slots=True)
class Seen:
    """What an independent reader saw: its snapshot, a position read just before, columns and rows of all tables."""

    snapshot: str
    position: int
    tables: dict[str, str]


@dataclass(slots=True)
class Busy:
    """Changes rows of the table that is altered, and looks at everything, until stopped."""

    url: str
    seen: list[Seen] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Busy":
        for work in (self._write, self._look):
            self._threads.append(threading.Thread(target=self._guarded, args=(work,)))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors[:3]

    def _guarded(self, work: "object") -> None:
        try:
            assert callable(work)
            work()
        except Exception as error:  # noqa: BLE001 - told by the test
            self.errors.append(repr(error))

    def _write(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            n = 0
            while not self._stop.is_set():
                n += 1
                connection.execute("UPDATE wide SET n = n + 1 WHERE id = %s", (n % 50,))
                if n % 5 == 0:
                    connection.execute("INSERT INTO wide (id, n) VALUES (%s, 0)", (1000 + n,))
                if n % 11 == 0:
                    connection.execute("DELETE FROM wide WHERE id = (SELECT max(id) FROM wide)")
                time.sleep(0.004)

    def _look(self) -> None:
        while not self._stop.wait(0.35):
            if (one := look(self.url)) is not None:
                self.seen.append(one)


def names_of(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """All tables of the public schema."""
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1"
    )
    return [str(name) for (name,) in found]


def columns_of(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, str]:
    """Names and types, in their order."""
    found = connection.execute(
        "SELECT c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ',' ORDER BY a.attnum) "
        "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' GROUP BY 1"
    )
    return {str(name): str(columns) for name, columns in found}


def contents(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, str]:
    """Columns and rows of all tables, in the transaction of this connection."""
    columns = columns_of(connection)
    return {n: f"{columns[n]} {s}" for n, s in ledger.checksums(connection, tuple(columns)).items()}


def look(url: str) -> Seen | None:
    """Locks first, then the snapshot; None where tables came or went meanwhile."""
    with psycopg.connect(url, autocommit=True) as connection:
        names = names_of(connection)
        (position,) = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone() or ("",)
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            connection.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(SQL(", ").join(map(Identifier, names))))
        except psycopg.errors.UndefinedTable:
            return None
        (snapshot,) = connection.execute("SELECT pg_current_snapshot()::text").fetchone() or ("",)
        if names_of(connection) != names:
            return None
        return Seen(snapshot=str(snapshot), position=parse_lsn(str(position)), tables=contents(connection))


def bases(desk: Desk) -> int:
    """How many the newest chain has."""
    return len(desk.run("timeline", "--json").expect().json["chains"][-1]["stretches"])


def wait_for_base(desk: Desk, before: int) -> None:
    """A fault of the watcher's must not hang the tests."""
    for _ in range(200):
        if bases(desk) > before:
            return
        time.sleep(0.5)
    raise AssertionError("the watcher took no base")


def wait_for_window(desk: Desk, url: str) -> None:
    """Until a base has everything that was committed by now, and no window is open."""
    with psycopg.connect(url) as connection:
        (now,) = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone() or ("",)
    for _ in range(200):
        chain = desk.run("timeline", "--json").expect().json["chains"][-1]
        last = parse_lsn(chain["stretches"][-1]["from_lsn"])
        if last >= parse_lsn(str(now)) and all(w["until_lsn"] for w in chain["windows"]):
            return
        time.sleep(0.5)
    raise AssertionError("the watcher took no base")


def back(version: int) -> str:
    """An empty database of the owner's."""
    home = server(version)
    name, owner = f"rebasing_{version}_back", f"rebasing_{version}_owner"
    home.create_database(name)
    with psycopg.connect(home.url(name), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} OWNER TO {owner}".encode())
        connection.execute(f"ALTER SCHEMA public OWNER TO {owner}".encode())
    return home.url(name, user=owner)


def change(url: str, statements: Sequence[str], *, pause: float = 0.4) -> None:
    """A migration, statement by statement, each until it gets its lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
            time.sleep(pause)


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
    name = f"rebasing_{request.param}"
    url = ledger.make(home, name)
    change(
        url,
        (
            "CREATE TABLE wide (id int PRIMARY KEY, n int NOT NULL, note text)",
            "INSERT INTO wide SELECT g, 0, md5(g::text) FROM generate_series(0, 50) g",
        ),
    )
    yield request.param, url
    ledger.drop_slots(home, name)


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_a_change_right_after_the_first_base(source: tuple[int, str], desk: Desk) -> None:
    """No segment lies between them: what came between is in a window all the same, which begins with the base."""
    _, url = source
    env = {"DATABASE_URL": url}
    desk.run("watch", "--once", env=env).expect()
    base = desk.run("backup", "--json", env=env).expect(3).json["snapshot"]
    (position,) = sql(url, "SELECT pg_current_wal_insert_lsn()::text")[0]
    sql(url, "UPDATE wide SET n = 7")
    between = sql(url, "SELECT pg_current_wal_insert_lsn()::text")[0][0]
    sql(url, "ALTER TABLE wide ADD COLUMN chance float8 DEFAULT random()")
    desk.run("watch", "--once", env=env).expect()
    (window,) = desk.run("timeline", "--json").expect().json["chains"][0]["windows"]
    assert parse_lsn(window["since_lsn"]) <= parse_lsn(str(position)) and window["until_lsn"] == ""
    refused = desk.run("restore", "--at", f"lsn {between}", "--dry-run", "--json", env=env)
    assert refused.code == 23 and f"snapshot {base} itself" in refused.json["error"]["next"], refused
    desk.run("backup", env=env).expect(3)
    desk.run("watch", "--once", env=env).expect()
    (window,) = desk.run("timeline", "--json").expect().json["chains"][0]["windows"]
    assert (
        parse_lsn(window["since_lsn"])
        <= parse_lsn(str(position))
        < parse_lsn(str(between))
        < parse_lsn(window["until_lsn"])
    )


@pytest.mark.parametrize("source", sorted({*versions()[:1], *versions()[-1:]}), indirect=True)
def test_schema_changes_under_load(source: tuple[int, str], desk: Desk) -> None:
    """Every moment that is promised is exact; every one that is not lies in a window that has a name."""
    version, url = source
    env = {"DATABASE_URL": url}
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    with ledger.Load(url, seed=version, clients=2, gentle=True), Busy(url) as busy, ExitStack() as stack:
        watcher = desk.start("watch", "--period", "0.3s", "--base-after", "1s", "--quiet", env=env)
        stack.callback(watcher.wait)
        stack.callback(watcher.terminate)
        time.sleep(1)
        for statements in CHANGES:
            change(url, statements)
            wait_for_window(desk, url)
            time.sleep(1.5)
    desk.run("watch", "--once", env=env).expect()

    (chain,) = desk.run("timeline", "--json").expect().json["chains"]
    assert all(b["why"] for b in chain["stretches"][1:])
    windows = chain["windows"]
    # Where the machine is slow, a base comes between two statements of a change.
    assert len(windows) >= len(CHANGES) and all(w["until_lsn"] for w in windows)
    spans = [(parse_lsn(w["since_lsn"]), parse_lsn(w["until_lsn"])) for w in windows]
    promised: list[Seen] = []
    crossing: list[Seen] = []
    repo = open_repository(desk)
    for one in busy.seen:
        try:
            plan = plan_replay(repo, "latest", parse_moment(f"snapshot {one.snapshot}"))
        except Unreachable as refused:
            assert "before it" in refused.hint or "after it" in refused.hint
            # What commits while somebody looks lies a little behind the position that was read before.
            assert any(a - (1 << 20) < one.position <= b for a, b in spans), (one.snapshot, spans)
        else:
            promised.append(one)
            if plan.over is not None:
                crossing.append(one)
    print(f"{len(busy.seen)} moments, {len(promised)} promised, {len(crossing)} of them crossing, windows {windows}")
    assert len(promised) > len(busy.seen) // 3
    # From a base before a change into the definitions of the one after it.
    assert crossing
    # Some of those, both ends of each window, and some between.
    edges = [one for i, one in enumerate(promised) for a, b in spans if near(promised, i, a, b)]
    for one in {one.snapshot: one for one in (*edges, *some(promised, 4), *some(crossing, 4))}.values():
        target = back(version)
        desk.run("restore", "--at", f"snapshot {one.snapshot}", "--to", target).expect(3)
        with psycopg.connect(target) as connection:
            assert contents(connection) == one.tables, one.snapshot


def some(moments: list[Seen], count: int) -> list[Seen]:
    """So many or fewer of these, far from each other, however many a machine was quick enough to see."""
    return moments[:: -(-len(moments) // count)]


def near(moments: list[Seen], i: int, since: int, until: int) -> bool:
    """Whether the moment is the last one before a window, or the first one after it."""
    here = moments[i].position
    last = here <= since and (i + 1 == len(moments) or moments[i + 1].position > since)
    first = here >= until and (i == 0 or moments[i - 1].position < until)
    return last or first


def sql(url: str, text: str) -> list[tuple[object, ...]]:
    """Run one statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def snapshots(desk: Desk) -> int:
    """How many there are."""
    return len(desk.run("snapshots", "--json").expect().json["snapshots"])


def ours(url: str) -> int:
    """Connections of a backup."""
    found = sql(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pgkura (?!watch)'")
    return int(str(found[0][0]))


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_bases_are_taken_when_they_can_be_used(source: tuple[int, str], desk: Desk) -> None:
    """Never the first; not beside one that fits; not before older transactions have ended; and they end with us."""
    version, url = source
    env = {"DATABASE_URL": url}
    with ExitStack() as stack:
        watcher = desk.start("watch", "--period", "0.2s", "--base-after", "0.5s", env=env)
        stack.callback(watcher.wait)
        stack.callback(watcher.terminate)
        time.sleep(4)
        assert snapshots(desk) == 0
        desk.run("backup", env=env).expect(3)
        with psycopg.connect(url) as older:
            older.execute("SELECT pg_current_xact_id()")
            sql(url, "CREATE TABLE late (id int PRIMARY KEY, v text)")
            older.execute("INSERT INTO late VALUES (1, 'before it is in the log')")
            time.sleep(4)
            assert snapshots(desk) == 1
            older.execute("INSERT INTO late VALUES (2, 'after')")
            older.commit()
        wait_for_base(desk, 1)
        sql(url, "INSERT INTO late VALUES (3, 'logged')")
    desk.run("watch", "--once", env=env).expect()
    target = back(version)
    done = desk.run("restore", "--at", "latest", "--to", target, "--json").expect(3).json
    assert [i for (i,) in sql(target, "SELECT id FROM late ORDER BY id")] == [1, 2, 3]
    assert done["at"]["exact_from"] and snapshots(desk) == 2

    sql(url, "INSERT INTO late SELECT g, repeat(md5(g::text), 10) FROM generate_series(10, 9999) g")
    sql(url, "ALTER TABLE late ADD COLUMN w int")
    slow = ("--base-after", "0.2s", "--base-options", "--max-rate 1000 --full")
    watcher = desk.start("watch", "--period", "0.2s", *slow, env=env)
    for _ in range(200):
        if ours(url):
            break
        time.sleep(0.1)
    time.sleep(1)
    watcher.terminate()
    assert watcher.wait(40) == 0
    for _ in range(100):
        if not ours(url):
            break
        time.sleep(0.1)
    assert not ours(url) and snapshots(desk) == 2
    for wrong in ("--nonsense", "--repository elsewhere", "--json", "'open"):
        desk.run("watch", "--base-options", wrong, env=env).expect(2)
