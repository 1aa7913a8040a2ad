"""Many changes of one table become the few rows that differ at the end. Pure.

Rows are told apart by their key. What is folded can be applied in any order of tables, since triggers and foreign keys
come after the replay, and as a whole: rows that are gone first, then rows that came.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from pgkura.changes.pgoutput import INSERT, UNCHANGED, Parts, Row, Value
from pgkura.core.errors import Tampered

Key = tuple[Value, ...]
# A row as it is at the end, and its origin: the key under which large values that did not change lie in the target.
Came = tuple[Row, Key | None]


def missing(row: Row) -> tuple[int, ...]:
    """Places of the values that are only in the target."""
    return tuple([n for n, v in enumerate(row) if v is UNCHANGED]) if UNCHANGED in row else ()


def in_order(keys: Collection[Key]) -> Collection[Key]:
    """Neighbours together, as far as their text tells: the server then finds a page where the one before left it."""
    try:
        return sorted(keys)
    except TypeError:  # a NULL
        return keys


@dataclass(slots=True, kw_only=True)
class Fold:
    """One table's changes since it was last applied. `keys`: places of the key's columns in a row."""

    name: str
    keys: Sequence[int]
    emptied: bool = False
    gone: set[Key] = field(default_factory=set)
    came: dict[Key, Came] = field(default_factory=dict)
    _key_of: Callable[[Row], Key] = field(init=False)

    def __post_init__(self) -> None:
        first, *more = self.keys
        self._key_of = itemgetter(first, *more) if more else lambda row: (row[first],)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to apply."""
        return not (self.emptied or self.gone or self.came)

    def take(self, change: Parts) -> None:
        """One change. Raises Tampered where it cannot follow what was there before."""
        kind, _, old, row, whole, _ = change
        if old is None:
            if row is None:
                raise self._wrong("a change without a row")
            if kind == INSERT:
                self._come(row, None)
            else:
                self._become(row)
            return
        before, origin = self._go(old)
        if row is not None:
            # With the whole old row at hand large values are told there.
            self._come(_filled(row, old if whole else before), origin)

    def empty_table(self) -> None:
        """TRUNCATE."""
        self.emptied = True
        self.gone.clear()
        self.came.clear()

    def _become(self, row: Row) -> None:
        """Another row under the same key."""
        key = self._key_of(row)
        found = self.came.get(key)
        if found is not None:
            self.came[key] = _filled(row, found[0]), found[1]
        else:
            self._leave(key)
            self.came[key] = row, key

    def _come(self, row: Row, origin: Key | None) -> None:
        key = self._key_of(row)
        if UNCHANGED in key:
            raise self._wrong("a key is not told")
        if key in self.came:
            raise self._wrong("a row comes that is there already")
        self.came[key] = row, origin

    def _go(self, row: Row) -> Came:
        """The row as it was. One that is not here yet lies in the target under its key."""
        key = self._key_of(row)
        found = self.came.pop(key, None)
        if found is None:
            self._leave(key)
            found = (), key
        return found

    def _leave(self, key: Key) -> None:
        """What lies in the target goes, once."""
        if UNCHANGED in key:
            raise self._wrong("a key is not told")
        if key in self.gone or self.emptied:
            raise self._wrong("a row changes that is not there")
        self.gone.add(key)

    def _wrong(self, why: str) -> Tampered:
        return Tampered(f"the change log of {self.name} does not follow its base", detail=why)


def _filled(row: Row, known: Row) -> Row:
    """With the values that are not told, as far as they are known."""
    if not known or UNCHANGED not in row:
        return row
    return tuple([k if v is UNCHANGED else v for v, k in zip(row, known, strict=True)])
