"""A load in which every transaction tells about itself: the oracle of everything that a change log promises."""

import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import psycopg
from psycopg.sql import SQL, Identifier
from tests.support.servers import Server

SCHEMA = """
CREATE TABLE ledger (n bigint PRIMARY KEY, client int NOT NULL, xid xid8 NOT NULL DEFAULT pg_current_xact_id());
CREATE TABLE account (id int PRIMARY KEY, balance numeric NOT NULL, note text, big text, double int
    GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE item (a int, b text, amount int, PRIMARY KEY (a, b));
CREATE TABLE auto (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int REFERENCES account, v jsonb);
CREATE TABLE scratch (id serial PRIMARY KEY, v text);
CREATE UNIQUE INDEX item_amount ON item (amount, b) WHERE amount > 1000000;
INSERT INTO account SELECT g, 100, 'n' || g, repeat(md5(g::text), 200) FROM generate_series(1, 60) g;
ALTER TABLE account ALTER COLUMN big SET STORAGE EXTERNAL;
"""
# Two writers met, and one gave way.
YIELDING = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.SerializationFailure,
)
TABLES = ("ledger", "account", "item", "auto", "scratch")


@dataclass(slots=True)
class Load:
    """Writers that run until stopped; `committed` are ledger numbers whose commit was confirmed.

    gentle   no TRUNCATE: a backup would read that table as of a later instant, and could be no base of the log
    patient  a server that is gone comes back; whether what was being committed then is there, only its tables say
    """

    url: str
    clients: int = 3
    seed: int = 1
    committed: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    gentle: bool = False
    patient: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: int = 0

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._run, args=(c,)) for c in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all writers at a commit."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors[:3]

    def number(self) -> int:
        """The next ledger number."""
        with self._lock:
            self._next += 1
            return self._next

    def _run(self, client: int) -> None:
        chance = random.Random(self.seed * 1000 + client)
        while not self._stop.is_set():
            try:
                with psycopg.connect(self.url, autocommit=True) as connection:
                    while not self._stop.is_set():
                        self._transaction(connection, chance, client)
            except Exception as error:  # noqa: BLE001 - told by the test
                if not (self.patient and isinstance(error, psycopg.OperationalError)):
                    self.errors.append(repr(error))
                    return
                time.sleep(0.05)

    def _transaction(self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random, who: int) -> None:
        n = self.number()
        rolled_back = chance.random() < 0.08
        try:
            with connection.transaction(force_rollback=rolled_back):
                if chance.random() < 0.5:
                    connection.execute("SET LOCAL synchronous_commit = off")
                connection.execute("INSERT INTO ledger (n, client) VALUES (%s, %s)", (n, who))
                for _ in range(chance.randrange(1, 5)):
                    self._step(connection, chance)
        except YIELDING:
            return
        if not rolled_back:
            with self._lock:
                self.committed.append(n)

    def _step(self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random) -> None:
        account = chance.randrange(1, 61)
        kind = chance.randrange(100)
        if kind < 35:
            connection.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (kind, account))
        elif kind < 45:
            big = "".join(chance.choice("abcdef") for _ in range(5000))
            connection.execute("UPDATE account SET big = %s, note = NULL WHERE id = %s", (big, account))
        elif kind < 60:
            connection.execute(
                "INSERT INTO item VALUES (%s, %s, 1) ON CONFLICT (a, b) DO UPDATE SET amount = item.amount + 1",
                (chance.randrange(20), f"k\t\\{chance.randrange(5)}"),
            )
        elif kind < 66:
            with suppress(psycopg.errors.UniqueViolation), connection.transaction():
                connection.execute("UPDATE item SET a = %s WHERE a = %s", (chance.randrange(20), chance.randrange(20)))
        elif kind < 72:
            connection.execute("DELETE FROM item WHERE a = %s", (chance.randrange(20),))
        elif kind < 84:
            connection.execute(
                "INSERT INTO auto (account, v) VALUES (%s, jsonb_build_object('t', clock_timestamp()))", (account,)
            )
        elif kind < 90:
            with connection.transaction(force_rollback=chance.random() < 0.5):  # a savepoint
                connection.execute("DELETE FROM auto WHERE id = (SELECT min(id) FROM auto)")
        elif kind < 99 or self.gentle:
            connection.execute("INSERT INTO scratch (v) VALUES (E'line\\nand \\\\ \t tab')")
        else:
            connection.execute("SET LOCAL lock_timeout = '1s'")
            connection.execute("TRUNCATE scratch RESTART IDENTITY")


def make(home: Server, name: str, *, owner: str = "") -> str:
    """A database with the load's tables, owned by a role that is no superuser; returns the owner's URL."""
    owner = owner or f"{name}_owner"
    admin = home.create_database(name)
    with psycopg.connect(admin, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (owner,)).fetchone() is None:
            connection.execute(SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD 'test-only'").format(Identifier(owner)))
        connection.execute(SQL("ALTER DATABASE {} OWNER TO {}").format(Identifier(name), Identifier(owner)))
        connection.execute(SQL("ALTER SCHEMA public OWNER TO {}").format(Identifier(owner)))
    url = home.url(name, user=owner)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA.encode())
    return url


def drop_slots(home: Server, database: str) -> None:
    """Slots keep a database from being dropped; their process may take a moment to end."""
    with psycopg.connect(home.url(), autocommit=True) as connection:
        for _ in range(100):
            with suppress(psycopg.errors.ObjectInUse):
                connection.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s",
                    (database,),
                )
                return
            connection.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s", (database,)
            )
            time.sleep(0.1)


def checksums(connection: psycopg.Connection[tuple[object, ...]], tables: tuple[str, ...] = TABLES) -> dict[str, str]:
    """Of every table's rows as text, in the transaction of this connection."""
    found = {}
    for table in tables:
        row = connection.execute(
            SQL(
                "SELECT count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY t::text COLLATE \"C\")), "
                "'') FROM {} t"
            ).format(Identifier(table))
        ).fetchone()
        assert row is not None
        found[table] = str(row[0])
    return found
