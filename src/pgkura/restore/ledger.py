"""What is loaded already, told in the target itself: a row is written in the transaction that writes a table's rows.

So nothing is loaded twice, whichever worker tries, and a restore that was cut short goes on where it was. The ledger
lies beside the mark (marker.py) and goes with it.
"""

from collections.abc import Sequence

from pgkura.core.names import quote_ident
from pgkura.postgres.session import Session

LEDGER_SCHEMA = "pgkura_restore"
_LOADED = f"{quote_ident(LEDGER_SCHEMA)}.loaded"
# Numbers below those of tables and of the large objects (-1) are moments of a restore.
READY = -2
OPENING = -3


def make_ledger(session: Session) -> None:
    """In the transaction that makes the mark and its schema."""
    session.execute(f"CREATE TABLE {_LOADED} (number int PRIMARY KEY, layers int NOT NULL)")
    session.execute(f"REVOKE ALL ON {_LOADED} FROM PUBLIC")


def read_ledger(session: Session) -> dict[int, int]:
    """All of it."""
    return dict(session.rows(f"SELECT number, layers FROM ONLY {_LOADED}"))


def note(session: Session, moment: int) -> None:
    """A moment is reached."""
    session.execute(f"INSERT INTO {_LOADED} VALUES (%s, 0) ON CONFLICT DO NOTHING", (moment,))


def claim(session: Session, wanted: Sequence[tuple[int, int]]) -> frozenset[int]:
    """Write down (number, chunks) of whole tables first of all; returns those that were not loaded yet.

    Another worker at the same table makes this wait, until its transaction has ended either way.
    """
    numbers, layers = [n for n, _ in wanted], [count for _, count in wanted]
    rows = session.rows(
        f"INSERT INTO {_LOADED} SELECT * FROM ROWS FROM (pg_catalog.unnest(%s::int[]), pg_catalog.unnest(%s::int[])) "
        "ON CONFLICT DO NOTHING RETURNING number",
        (numbers, layers),
    )
    return frozenset(n for (n,) in rows)


def loaded(session: Session, number: int) -> int:
    """Chunks of a table that are there."""
    rows = session.rows(f"SELECT layers FROM ONLY {_LOADED} WHERE number = %s", (number,))
    return int(rows[0][0]) if rows else 0


def step(session: Session, number: int, before: int, after: int) -> bool:
    """From so many chunks to so many; False where another worker was here meanwhile."""
    return (
        session.execute(
            f"INSERT INTO {_LOADED} AS l VALUES (%s, %s) ON CONFLICT (number) DO UPDATE SET layers = EXCLUDED.layers "
            "WHERE l.layers = %s",
            (number, after, before),
        )
        == 1
    )


def forget(session: Session, number: int) -> None:
    """A table is empty again."""
    session.execute(f"DELETE FROM {_LOADED} WHERE number = %s", (number,))
