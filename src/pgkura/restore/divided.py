"""A large table's rows in parts: who may be loaded so, and what becomes of the table once all parts are done."""

from collections.abc import Collection
from dataclasses import dataclass

from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding
from pgkura.postgres.session import Session
from pgkura.repository.sums import Sums
from pgkura.restore import ledger
from pgkura.restore.going_on import Kept
from pgkura.restore.load import Loaded
from pgkura.restore.loads import DIVIDED_BYTES, Load


def divisible(load: Load, kept: Kept, holding: Collection[QualifiedName]) -> bool:
    """Whether parts may be loaded side by side: into a table that is empty but for parts that are told in the ledger,
    for none of them can empty it. Pure."""
    known = load.target not in holding or load.data.number in kept.layers
    return load.plain and load.data.bytes >= DIVIDED_BYTES and known


@dataclass(slots=True, kw_only=True)
class Divided:
    """One such table."""

    load: Load
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
