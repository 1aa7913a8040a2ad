"""From a COPY stream to chunks: cut at row boundaries, count, hand over to the pack writer."""

import time
from dataclasses import dataclass, field

from pgkura.postgres.session import Session
from pgkura.repository.repository import Repository
from pgkura.snapshot.units import Read, StoredChunk, TableRead, WorkUnit


@dataclass(slots=True, kw_only=True)
class _Sum:
    rows: int = 0
    bytes: int = 0
    chunks: list[StoredChunk] = field(default_factory=list)


class Copier:
    """Copies pieces of tables into packs of its own; nothing counts before `finish`.

    Packs stored by a copier that is never finished are orphans that no index names. `largest` is the most bytes that
    came at once: a row's size, for large rows.
    """

    def __init__(self, repo: Repository, unit: WorkUnit) -> None:
        self._writer = repo.pack_writer(storage_class=unit.storage_class)
        self._unit = unit
        self._sums: dict[int, _Sum] = {n: _Sum() for n in unit.numbers}
        self._started = time.monotonic()
        self._received = 0
        self.largest = 0

    def copy(self, session: Session, number: int, piece: int, statement: str) -> None:
        """Run one COPY and store its rows as chunks."""
        position = rows = size = 0
        total = self._sums[number]
        for batch in session.copy_out(statement):
            if not size:
                self._writer.begin((number, piece, position))
            self._writer.write(batch.data)
            rows, size = rows + batch.rows, size + len(batch.data)
            total.rows, total.bytes = total.rows + batch.rows, total.bytes + len(batch.data)
            if size >= self._unit.chunk_bytes:
                self._writer.end(rows)
                position, rows, size = position + 1, 0, 0
            self.largest = max(self.largest, len(batch.data))
            self._pace(len(batch.data))
        if size:
            self._writer.end(rows)

    def finish(self) -> dict[int, TableRead]:
        """Everything copied is in the repository after this."""
        self._writer.flush()
        for (number, piece, position), ref, is_new in self._writer.drain():
            self._sums[number].chunks.append(StoredChunk(piece=piece, position=position, ref=ref, is_new=is_new))
        return {
            n: TableRead(number=n, outcome=Read.DONE, rows=s.rows, bytes=s.bytes, chunks=tuple(s.chunks))
            for n, s in self._sums.items()
        }

    def _pace(self, received: int) -> None:
        """Stay below the unit's rate; short sleeps, so that a cancelled statement is noticed."""
        rate = self._unit.bytes_per_second
        if not rate:
            return
        self._received += received
        ahead = self._received / rate - (time.monotonic() - self._started)
        if ahead > 0:
            time.sleep(min(ahead, 0.5))
