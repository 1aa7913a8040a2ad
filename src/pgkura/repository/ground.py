"""What surveys find of objects, in a file without a name: which lie in the store, and which lists name them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import TypeVar

from pgkura.core.scratch import new_database
from pgkura.storage.base import Stored

T = TypeVar("T")
_AT_ONCE = 1_000
_TABLES = (
    # Hundreds of snapshots name the same objects: a number for each. Of one type, else no index serves a join.
    "CREATE TABLE ids (number INTEGER PRIMARY KEY, id BLOB UNIQUE)",
    "CREATE TABLE needs (list INTEGER, number INTEGER, PRIMARY KEY (number, list)) WITHOUT ROWID",
    "CREATE INDEX by_list ON needs (list)",
    "CREATE TABLE lying (look INTEGER, number INTEGER, size INTEGER, modified REAL, PRIMARY KEY (look, number)) "
    "WITHOUT ROWID",
    "CREATE TEMP TABLE chosen (list INTEGER PRIMARY KEY) WITHOUT ROWID",
)
_FREE = (
    "SELECT id, size, modified FROM lying JOIN ids USING (number) WHERE look = ? AND NOT EXISTS "
    "(SELECT 1 FROM needs JOIN chosen USING (list) WHERE needs.number = lying.number)"
)
_NAMED = "SELECT 1 FROM needs JOIN ids USING (number) JOIN chosen USING (list) WHERE id = ? LIMIT 1"


@dataclass(frozen=True, slots=True)
class Lying:
    """An object in the store: its size, and the store's time of it."""

    size: int
    modified: float


class Ground:
    """Lists of ids and listings of the store, by number. One thread."""

    def __init__(self) -> None:
        self._database = new_database()
        for table in _TABLES:
            self._database.execute(table)
        self._numbers = count(1)
        self._chosen: frozenset[int] = frozenset()

    def keep(self, objects: Iterable[str]) -> int:
        """A list; its number."""
        made = next(self._numbers)
        for some in _slices(objects):
            ids = [(bytes.fromhex(i),) for i in some]
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO ids (id) VALUES (?)", ids)
            self._database.executemany(f"INSERT OR IGNORE INTO needs SELECT {made}, number FROM ids WHERE id = ?", ids)
            self._database.execute("COMMIT")
        return made

    def look(self, listed: Iterable[tuple[str, Stored]]) -> int:
        """A listing of objects by id; its number."""
        made = next(self._numbers)
        for some in _slices(listed):
            rows = [(s.size, s.modified, bytes.fromhex(i)) for i, s in some]
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO ids (id) VALUES (?)", [(r[2],) for r in rows])
            self._database.executemany(
                f"INSERT OR REPLACE INTO lying SELECT {made}, number, ?, ? FROM ids WHERE id = ?", rows
            )
            self._database.execute("COMMIT")
        return made

    def names(self, lists: frozenset[int], object_id: str) -> bool:
        """Whether one of these lists names it."""
        self._choose(lists)
        return self._database.execute(_NAMED, (bytes.fromhex(object_id),)).fetchone() is not None

    def of(self, number: int) -> Iterator[str]:
        """The ids of a list."""
        sql = "SELECT id FROM needs JOIN ids USING (number) WHERE list = ?"
        return (row[0].hex() for row in self._database.execute(sql, (number,)))

    def lists(self, object_id: str) -> list[int]:
        """The numbers of the lists that name it."""
        sql = "SELECT list FROM needs JOIN ids USING (number) WHERE id = ?"
        return [row[0] for row in self._database.execute(sql, (bytes.fromhex(object_id),))]

    def lying(self, look: int, object_id: str) -> Lying | None:
        """What a listing had of it."""
        sql = "SELECT size, modified FROM lying JOIN ids USING (number) WHERE look = ? AND id = ?"
        row = self._database.execute(sql, (look, bytes.fromhex(object_id))).fetchone()
        return None if row is None else Lying(*row)

    def free(self, look: int, lists: frozenset[int]) -> Iterator[tuple[str, Lying]]:
        """The listed objects that none of these lists names."""
        self._choose(lists)
        return ((i.hex(), Lying(size, modified)) for i, size, modified in self._database.execute(_FREE, (look,)))

    def _choose(self, lists: frozenset[int]) -> None:
        if lists != self._chosen:
            self._database.execute("DELETE FROM chosen")
            self._database.executemany("INSERT INTO chosen VALUES (?)", [(n,) for n in lists])
            self._chosen = lists


def _slices(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
