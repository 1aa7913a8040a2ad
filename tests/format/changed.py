"""The database of the vectors `v1-changes`: two chains, and what each transaction did, as it was written down then.

The first chain ended and lies in a bundle; the second goes on, lies in segments, and its beginning was cut away.
"""

import json
from pathlib import Path

import psycopg
from tests.support.cli import Desk

SETUP = """
CREATE TABLE ledger (n int PRIMARY KEY, note text);
CREATE TABLE item (a int, b text, v numeric, PRIMARY KEY (a, b));
"""
# Rows of one transaction that do not fit into a segment's own file.
MANY = 17_000

Transaction = list[list[object]]


def work(url: str, first: int, count: int) -> list[Transaction]:
    """So many transactions; of each its changes: table, kind, old key or row, new row, as text."""
    done: list[Transaction] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = on")
        for n in range(first, first + count):
            told: Transaction = []
            with connection.transaction():
                connection.execute("INSERT INTO ledger VALUES (%s, %s)", (n, f"note\t{n} 🎧"))
                told.append(["ledger", "I", None, [str(n), f"note\t{n} 🎧"]])
                if n % 3 == 0:
                    connection.execute("INSERT INTO item VALUES (%s, 'x', NULL)", (n,))
                    connection.execute("UPDATE item SET a = -a, v = 0.10 WHERE a = %s", (n,))
                    told.append(["item", "I", None, [str(n), "x", None]])
                    told.append(["item", "U", [str(n), "x", None], [str(-n), "x", "0.10"]])
                if n % 6 == 0:
                    connection.execute("DELETE FROM item WHERE a = %s", (-n,))
                    told.append(["item", "D", [str(-n), "x", None], None])
                if n % 8 == 0:
                    connection.execute("TRUNCATE item")
                    told.append(["item", "T", None, None])
            done.append(told)
    return done


def large(url: str, n: int) -> list[Transaction]:
    """One transaction of many rows: it is in parts. Only their number and the first are kept."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO ledger SELECT %s + g, repeat('large ', 200) FROM generate_series(0, %s) g", (n, MANY - 1)
        )
    return [[["ledger", "I", None, [str(n), "large " * 200]], ["ledger", "more", None, [str(MANY - 1)]]]]


def make(desk: Desk, url: str) -> dict[str, list[Transaction]]:
    """Two chains; what is expected of each, from its oldest base on."""
    env = {"DATABASE_URL": url}
    expected: dict[str, list[Transaction]] = {}

    def chain() -> str:
        return str(desk.run("timeline", "--json").expect().json["chains"][-1]["chain"])

    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect()
    found: list[Transaction] = []
    for first in (1, 4, 6, 9):
        found += work(url, first, 3 if first != 4 else 2)
        desk.run("watch", "--once", env=env).expect()
    found += large(url, 1000)
    desk.run("mark", "after the large one", env=env).expect()
    desk.run("watch", "--once", env=env).expect()
    expected[chain()] = found
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    desk.run("watch", "--once", env=env).expect(3)
    for first in (20, 22):
        work(url, first, 2)
        desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect()
    found = []
    for first in (30, 32):
        found += work(url, first, 2)
        desk.run("watch", "--once", env=env).expect()
    expected[chain()] = found
    for _ in range(2):
        desk.run("prune", "--keep-last", "9", "--grace", "0", "--yes").expect()
    return expected


def keep(folder: Path, expected: dict[str, list[Transaction]]) -> None:
    """One file per chain."""
    folder.mkdir(parents=True)
    for name, transactions in expected.items():
        (folder / f"{name}.json").write_text(json.dumps(transactions, ensure_ascii=False) + "\n")


def kept(folder: Path) -> dict[str, list[Transaction]]:
    """The inverse."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.iterdir())}
