"""What is loaded already, told in the target itself: a row is written in the transaction that writes a table's rows, or
a part of them.

So nothing is loaded twice, whichever worker tries, and a restore that was cut short goes on where it was. The ledger
lies beside the mark (marker.py) and goes with it.
"""

from collections.abc import Sequence

from pgkura.core.names import quote_ident
from pgkura.postgres.session import Session

LEDGER_SCHEMA = "pgkura_restore"
_LOADED = f"{quote_ident(LEDGER_SCHEMA)}.parts"
# A table, by its number, and the place of the first chunk of one of its parts; whole tables begin at 0.
Place = tuple[int, int]
# Numbers below those of tables and of the large objects (-1) are moments of a restore.
READY = -2
OPENING = -3


def make_ledger(session: Session) -> None:
    """In the transaction that makes the mark and its schema."""
    session.execute(f"CREATE TABLE {_LOADED} (number int, first int, layers int NOT NULL, PRIMARY KEY (number, first))")
    session.execute(f"REVOKE ALL ON {_LOADED} FROM PUBLIC")


def read_ledger(session: Session) -> dict[int, dict[int, int]]:
    """All of it: of each table how many chunks are there, from which one on."""
    found: dict[int, dict[int, int]] = {}
    for number, first, layers in session.rows(f"SELECT number, first, layers FROM ONLY {_LOADED}"):
        found.setdefault(number, {})[first] = layers
    return found


def note(session: Session, moment: int) -> None:
    """A moment is reached."""
    session.execute(f"INSERT INTO {_LOADED} VALUES (%s, 0, 0) ON CONFLICT DO NOTHING", (moment,))


def claim(session: Session, wanted: Sequence[tuple[Place, int]]) -> frozenset[Place]:
    """Write down (place, chunks) of what is to be loaded first of all; returns what was not loaded yet.

    Another worker at the same makes this wait, until its transaction has ended either way.
    """
    columns = [n for (n, _), _ in wanted], [first for (_, first), _ in wanted], [count for _, count in wanted]
    rows = session.rows(
        f"INSERT INTO {_LOADED} SELECT * FROM ROWS FROM (pg_catalog.unnest(%s::int[]), pg_catalog.unnest(%s::int[]), "
        "pg_catalog.unnest(%s::int[])) ON CONFLICT DO NOTHING RETURNING number, first",
        columns,
    )
    return frozenset((number, first) for number, first in rows)


def forget(session: Session, number: int) -> None:
    """A table is empty again."""
    session.execute(f"DELETE FROM {_LOADED} WHERE number = %s", (number,))
