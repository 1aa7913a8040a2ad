"""A large table's rows in parts: who may be loaded so, and what becomes of the table once all parts are done."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pgkura.core.outcome import Finding
from pgkura.postgres.session import Session
from pgkura.repository.sums import Sums
from pgkura.restore import ledger
from pgkura.restore.load import Item, Loaded
from pgkura.restore.loads import DIVIDED_BYTES, HEAD_BYTES, PART_BYTES, Load


def divisible(load: Load) -> bool:
    """Whether it is large, and nothing but stored rows go into its table. Pure."""
    return load.plain and load.data.bytes >= DIVIDED_BYTES


def head_bytes(sizes: Iterable[int], parallel: int) -> int:
    """Bytes of each large table that one connection loads, frozen, before others may share it; 0 = none. Pure.

    As many as leave each of `parallel` connections a table of its own meanwhile: the largest x for which the sum of
    min(size, x) is `parallel` times x or more. That sum is the least, over all k, of k times x and the tables that are
    left without the k largest.
    """
    largest = sorted(sizes, reverse=True)
    most, rest = HEAD_BYTES, sum(largest)
    for k in range(parallel):
        most = min(most, rest // (parallel - k))
        rest -= sum(largest[k : k + 1])
    return most if most >= PART_BYTES else 0


def turns(parts: Iterable[Item]) -> Iterator[Sequence[Item]]:
    """Parts of a table in their order, as many as one connection loads in turn. Pure.

    Each is a transaction still: together they are one unit of work, for a unit costs more than a transaction.
    """
    turn: list[Item] = []
    size = 0
    for part in parts:
        if turn and size >= PART_BYTES:
            yield turn
            turn, size = [], 0
        turn.append(part)
        size += part.load.data.bytes
    if turn:
        yield turn


@dataclass(slots=True, kw_only=True)
class Divided:
    """One such table. `head`: the job that loads its first part before all others; None = there is no such part."""

    load: Load
    head: int | None = None
    finding: Finding | None = None
    by_path: bool = False
    _rows: int = 0
    _sums: Sums | None = None

    @property
    def failed(self) -> bool:
        """No more parts are needed."""
        return self.finding is not None

    def add(self, part: Load, loaded: Loaded) -> None:
        """A part is there, or cannot be."""
        self.finding = self.finding or loaded.finding
        self.by_path |= loaded.by_path
        self._rows += loaded.rows
        if loaded.sums is not None:
            sums = Sums(rows=loaded.sums, covered={part.first or 0: len(part.data.layers)})
            self._sums = sums if self._sums is None else self._sums + sums

    @property
    def result(self) -> tuple[Loaded, Sums | None]:
        """Of all parts together."""
        if self.failed:
            return Loaded(rows=0, finding=self.finding), None
        return Loaded(rows=self._rows, by_path=self.by_path), self._sums

    def empty(self, session: Session) -> None:
        """A table that cannot be whole is left empty."""
        session.begin(isolation="read committed", read_only=False)
        session.execute(f"TRUNCATE ONLY {self.load.target.sql}")
        ledger.forget(session, self.load.data.number)
        session.commit()
