"""How the rows of a table that was altered go into what it became. Pure; workers are sent it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Where each value of a row of today is in an old row, or what old rows have there.

    columns  (name, place or None, value as text or None for NULL), in the order of today
    width    columns of an old row
    """

    columns: tuple[tuple[str, int | None, str | None], ...]
    width: int

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of today."""
        return tuple(name for name, _, _ in self.columns)

    def new_name(self, place: int) -> str | None:
        """What a column of an old row is called now, None for one that is gone."""
        return next((name for name, at, _ in self.columns if at == place), None)

    def take(self, row: Sequence[V], constants: Sequence[V]) -> tuple[V, ...]:
        """An old row as a new one. `constants`: what stands where no old value is, by the new column's place."""
        return tuple([constants[n] if place is None else row[place] for n, (_, place, _) in enumerate(self.columns)])
