"""The ledger's load and beside it all that is hard for a change log; and commit order as another plugin tells it."""

import random
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
from tests.support import ledger
from tests.support.servers import Server

SCHEMA = """
CREATE TABLE whole (v int, j json, t text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE bare (v int, t text);
CREATE TABLE parent (id int PRIMARY KEY, v int);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent, big text);
ALTER TABLE child ALTER COLUMN big SET STORAGE EXTERNAL;
CREATE TABLE part (k int, id int, v text, PRIMARY KEY (k, id)) PARTITION BY RANGE (k);
CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (50);
CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (50) TO (100);
CREATE TABLE bulk (id int PRIMARY KEY, v int, t text);
INSERT INTO parent SELECT g, 0 FROM generate_series(1, 20) g;
INSERT INTO part SELECT g % 100, g, 'p' || g FROM generate_series(1, 200) g;
"""
# `bare` has no key: before version 15 it is not in a log at all.
TABLES = (*ledger.TABLES, "whole", "parent", "child", "part", "bulk")
NO_KEY = "bare"


@dataclass(slots=True)
class Mixed(ledger.Load):
    """bulk: rows of the large transaction that comes now and then, at_most so often; prepared: how many were committed
    in two phases."""

    bulk: int = 10_000
    at_most: int = 1_000_000
    bulks: list[int] = field(default_factory=list)
    prepared: int = 0
    _large_begun: int = 0

    def _transaction(self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random, who: int) -> None:
        kind = chance.random()
        if kind < 0.03:
            self._in_two_phases(connection, chance, who)
        elif kind < 0.033 and not self.gentle and self._may_be_large():
            self._large(connection, who)
        else:
            ledger.Load._transaction(self, connection, chance, who)

    def _may_be_large(self) -> bool:
        with self._lock:
            may = self._large_begun < self.at_most
            self._large_begun += may
            return may

    def _in_two_phases(
        self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random, who: int
    ) -> None:
        n = self.number()
        try:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO ledger (n, client) VALUES (%s, %s)", (n, who))
            for _ in range(chance.randrange(1, 3)):
                self._step(connection, chance)
            connection.execute(f"PREPARE TRANSACTION 'two-{n}'".encode())
        except ledger.YIELDING:
            connection.execute("ROLLBACK")
            return
        time.sleep(chance.choice((0, 0.05, 0.6)))  # snapshots are taken meanwhile
        keep = chance.random() < 0.8
        connection.execute(f"{'COMMIT' if keep else 'ROLLBACK'} PREPARED 'two-{n}'".encode())
        if keep:
            with self._lock:
                self.committed.append(n)
                self.prepared += 1

    def _large(self, connection: psycopg.Connection[tuple[object, ...]], who: int) -> None:
        n = self.number()
        with connection.transaction():
            connection.execute("INSERT INTO ledger (n, client) VALUES (%s, %s)", (n, who))
            connection.execute("LOCK TABLE bulk IN EXCLUSIVE MODE")
            connection.execute("DELETE FROM bulk WHERE id %% 3 = %s", (n % 3,))
            connection.execute(
                "INSERT INTO bulk SELECT g, %s, md5(g::text) FROM generate_series(1, %s) g "
                "ON CONFLICT (id) DO UPDATE SET v = excluded.v",
                (n, self.bulk),
            )
        with self._lock:
            self.committed.append(n)
            self.bulks.append(n)

    def _step(self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random) -> None:
        kind = chance.randrange(100)
        number = chance.randrange(1, 21)
        if kind < 60:
            ledger.Load._step(self, connection, chance)
        elif kind < 67:
            connection.execute(
                "INSERT INTO whole VALUES (%s, %s, %s)",
                (number, '{"a": 1,  "a": 2}', chance.choice((None, "x", "y\t"))),
            )
        elif kind < 71:
            connection.execute("UPDATE whole SET t = t || 'z' WHERE ctid = (SELECT min(ctid) FROM whole)")
        elif kind < 74:
            connection.execute("DELETE FROM whole WHERE v = %s AND t IS NULL", (number,))
        elif kind < 78:
            connection.execute("INSERT INTO bare VALUES (%s, 'only added to')", (number,))
        elif kind < 84:
            connection.execute("UPDATE part SET k = %s WHERE id = %s", (chance.randrange(100), number * 7))
        elif kind < 88:
            big = "".join(chance.choice("gh") for _ in range(4000))
            connection.execute("INSERT INTO child (parent, big) VALUES (%s, %s)", (number, big))
        elif kind < 94:
            # The large value stays where it is.
            connection.execute("UPDATE child SET parent = %s WHERE id %% 20 = %s", (number, number - 1))
        elif kind < 99 or self.gentle:
            connection.execute("UPDATE parent SET v = v + 1 WHERE id = %s", (number,))
        else:
            connection.execute("SET LOCAL lock_timeout = '1s'")
            connection.execute("TRUNCATE parent CASCADE")
            connection.execute("INSERT INTO parent SELECT g, 0 FROM generate_series(1, 20) g")


def make(home: Server, name: str) -> str:
    """A database with all tables, of an owner who is no superuser; returns his URL."""
    url = ledger.make(home, name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA.encode())
    return url


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A transaction as test_decoding tells it. `ledger`: its number there, 0 for none; mark: a named point's."""

    end: int
    xid: int
    time: int
    ledger: int
    mark: bool


_NUMBER = re.compile(r"table public\.ledger: INSERT: n\[bigint\]:([0-9]+) ")
_COMMIT = re.compile(r"COMMIT ([0-9]+) \(at (.+)\)\Z")


def begin_oracle(home: Server, database: str) -> None:
    """A slot of another plugin: it decodes the same log in its own way."""
    with psycopg.connect(home.url(database), autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('oracle', 'test_decoding')")


def read_oracle(home: Server, database: str) -> list[Commit]:
    """All commits in their order. The slot goes."""
    found: list[Commit] = []
    number, mark = 0, False
    with psycopg.connect(home.url(database), autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(
            "SELECT (lsn - '0/0')::numeric::int8, data FROM pg_logical_slot_get_changes('oracle', NULL, NULL, "
            "'include-timestamp', '1') "
            "WHERE data ~ '^(BEGIN|COMMIT|message:|table public.ledger)'"
        ).fetchall()
        with suppress(psycopg.Error):
            connection.execute("SELECT pg_drop_replication_slot('oracle')")
    for lsn, data in rows:
        if data.startswith("BEGIN"):
            number, mark = 0, False
        elif told := _NUMBER.match(data):
            number = int(told[1])
        elif data.startswith("message:"):
            mark = mark or "pgkura.mark" in data
        elif told := _COMMIT.match(data):
            since = datetime.fromisoformat(told[2].replace("+00", "+00:00")) - datetime(1970, 1, 1, tzinfo=UTC)
            when = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
            found.append(Commit(end=int(lsn), xid=int(told[1]), time=when, ledger=number, mark=mark))
    return found
