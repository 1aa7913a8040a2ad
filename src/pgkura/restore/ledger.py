"""What is loaded already, chunk by chunk, told in the target itself: in the transaction that writes a chunk's rows.

So nothing is loaded twice, whichever worker tries, and a restore that was cut short goes on where it was. The ledger
lies beside the mark (marker.py) and goes with it.
"""

from collections.abc import Sequence

from pgkura.core.names import quote_ident
from pgkura.postgres.session import Session

LEDGER_SCHEMA = "pgkura_restore"
_LOADED = f"{quote_ident(LEDGER_SCHEMA)}.chunks"
# A table, by its number, and the place of one of its chunks.
Place = tuple[int, int]
# Numbers below those of tables and of the large objects (-1) are moments of a restore.
READY = -2
OPENING = -3


def make_ledger(session: Session) -> None:
    """In the transaction that makes the mark and its schema."""
    session.execute(f"CREATE TABLE {_LOADED} (number int, chunk int, PRIMARY KEY (number, chunk))")
    session.execute(f"REVOKE ALL ON {_LOADED} FROM PUBLIC")


def read_ledger(session: Session) -> dict[int, dict[int, int]]:
    """All of it, in runs: of each table how many chunks are there, from which one on."""
    found: dict[int, dict[int, int]] = {}
    # Neighbours are as far from their rank as each other: the server counts them, however many there are.
    ranked = "SELECT *, chunk - pg_catalog.row_number() OVER (PARTITION BY number ORDER BY chunk) AS run"
    what = "number, pg_catalog.min(chunk), pg_catalog.count(*)"
    runs = f"SELECT {what} FROM ({ranked} FROM ONLY {_LOADED}) x GROUP BY number, run"
    for number, first, count in session.rows(runs):
        found.setdefault(number, {})[first] = count
    return found


def note(session: Session, moment: int) -> None:
    """A moment is reached."""
    session.execute(f"INSERT INTO {_LOADED} VALUES (%s, 0) ON CONFLICT DO NOTHING", (moment,))


def claim(session: Session, wanted: Sequence[tuple[Place, int]]) -> frozenset[Place]:
    """Write down what is to be loaded, first of all: of each table so many chunks from a place on; returns those that
    were not loaded yet.

    Another worker at the same makes this wait, until its transaction has ended either way.
    """
    columns = [n for (n, _), _ in wanted], [first for (_, first), _ in wanted], [count for _, count in wanted]
    rows = session.rows(
        f"INSERT INTO {_LOADED} SELECT n, pg_catalog.generate_series(f, f + c - 1) FROM ROWS FROM "
        "(pg_catalog.unnest(%s::int[]), pg_catalog.unnest(%s::int[]), pg_catalog.unnest(%s::int[])) x (n, f, c) "
        "ON CONFLICT DO NOTHING RETURNING number, chunk",
        columns,
    )
    return frozenset((number, chunk) for number, chunk in rows)


def count(session: Session, number: int) -> int:
    """Chunks of a table that are there, or are being loaded by this transaction."""
    return int(session.one(f"SELECT pg_catalog.count(*) FROM ONLY {_LOADED} WHERE number = %s", (number,))[0])


def forget(session: Session, number: int) -> None:
    """A table is empty again."""
    session.execute(f"DELETE FROM {_LOADED} WHERE number = %s", (number,))
