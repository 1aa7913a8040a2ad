"""From a COPY stream to chunks: cut at row boundaries, count, hand over to the pack writers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pgkura.core.refs import ChunkRef, Layer
from pgkura.postgres.messages import CopyBatch
from pgkura.postgres.several import CopySource
from pgkura.repository.lines import Numbers, pack_sizes, write_numbers
from pgkura.repository.repository import Repository
from pgkura.snapshot.pacing import Pacer
from pgkura.snapshot.places import Places, encode, from_server, from_text, split_binary, split_text
from pgkura.snapshot.units import Piece, RangeRead, Read, StoredChunk, TableRead, WorkUnit

_Field = Literal["chunk", "drops", "sizes", "places"]


@dataclass(slots=True, kw_only=True)
class Draft:
    """A layer in the making: its parts get their references once their packs are stored."""

    rows: int
    dropped: int = 0
    chunk: ChunkRef | None = None
    drops: ChunkRef | None = None
    sizes: ChunkRef | None = None
    places: ChunkRef | None = None
    fresh: list[ChunkRef] = field(default_factory=list)

    def finished(self) -> Layer:
        """The layer."""
        if self.chunk is None:
            raise ValueError("its chunk is not stored yet")
        return Layer(chunk=self.chunk, dropped=self.dropped, drops=self.drops, sizes=self.sizes, places=self.places)


@dataclass(slots=True, kw_only=True)
class _Sum:
    received: int = 0
    drafts: dict[int, list[Draft]] = field(default_factory=dict)
    ranges: list[RangeRead] = field(default_factory=list)


class Copier:
    """Copies pieces of tables into packs of its own; nothing counts before `finish`.

    Packs stored by a copier that is never finished are orphans that no index names. `largest` is the most bytes that
    came at once: a row's size, for large rows.
    """

    def __init__(self, repo: Repository, unit: WorkUnit, pacer: Pacer) -> None:
        self._writer = repo.pack_writer(storage_class=unit.storage_class)
        # Places are wanted again tomorrow: never in a class that bills each retrieval.
        self._lists = repo.pack_writer(for_hosts=True)
        self._unit = unit
        self._sums: dict[int, _Sum] = {n: _Sum() for n in unit.numbers}
        self.pacer = pacer
        self.largest = 0

    def copy(self, source: CopySource, piece: Piece, statement: str) -> list[Draft]:
        """Run the COPY of a piece and store its rows as chunks."""
        return self.copy_rows(source, piece.number, piece.first, statement, binary=piece.binary)

    def copy_rows(
        self, source: CopySource, number: int, piece: int, statement: str, *, binary: bool = False
    ) -> list[Draft]:
        """Run one COPY and store its rows as chunks."""
        drafts = self._drafts(number, piece)
        sizes: list[Numbers] = []
        rows = size = 0
        for batch in self._batches(source, statement, binary=binary):
            if not size:
                drafts.append(Draft(rows=0))
                self._writer.begin((drafts[-1], "chunk"))
            self._writer.write(batch.data)
            rows, size = rows + batch.rows, size + len(batch.data)
            sizes.append(batch.sizes)
            self.received(number, len(batch.data))
            if size >= self._unit.chunk_bytes:
                self._end(drafts[-1], rows, sizes)
                rows, size, sizes = 0, 0, []
        if size:
            self._end(drafts[-1], rows, sizes)
        return drafts

    def copy_placed(self, source: CopySource, piece: Piece, statement: str) -> Places:
        """Run a COPY of a few rows, each with its place in front; store the rows as further chunks.

        Returns the places, in the order of the rows; without rows nothing is stored.
        """
        drafts = self._drafts(piece.number, piece.first)
        found = [from_server(b"")]
        sent: list[bytes] = []
        sizes: list[Numbers] = []
        size = 0
        for batch in self._batches(source, statement, binary=piece.binary):
            if not sent:
                drafts.append(Draft(rows=0))
                self._writer.begin((drafts[-1], "chunk"))
            if piece.binary:
                places, rest, rows = split_binary(batch.data, batch.sizes)
                sizes.append(rows)
            else:
                places, rest = split_text(bytes(batch.data))
            sent.append(places)
            self._writer.write(rest)
            size += len(rest)
            self.received(piece.number, len(batch.data))
            if size >= self._unit.chunk_bytes:
                found.append(self._end_placed(drafts[-1], piece, sent, sizes))
                sent, sizes, size = [], [], 0
        if sent:
            found.append(self._end_placed(drafts[-1], piece, sent, sizes))
        return np.concatenate(found)

    def _end_placed(self, draft: Draft, piece: Piece, sent: Sequence[bytes], sizes: Sequence[Numbers]) -> Places:
        joined = b"".join(sent)
        found = from_server(joined) if piece.binary else from_text(joined)
        self._end(draft, len(found), sizes)
        self.store_places(draft, found)
        return found

    def _end(self, draft: Draft, rows: int, sizes: Sequence[Numbers]) -> None:
        draft.rows = rows
        self._writer.end(rows)
        if any(map(len, sizes)):
            self._store(draft, "sizes", pack_sizes(np.concatenate(sizes)))

    def store_places(self, draft: Draft, places: Places) -> None:
        """Where the rows of a new chunk lie."""
        self._store(draft, "places", encode(places))

    def keep(self, piece: Piece, layers: Sequence[Layer]) -> list[Draft]:
        """Take layers of the last run over as they are."""
        drafts = self._drafts(piece.number, piece.first)
        for layer in layers:
            drafts.append(
                Draft(
                    rows=layer.chunk.rows,
                    dropped=layer.dropped,
                    chunk=layer.chunk,
                    drops=layer.drops,
                    sizes=layer.sizes,
                    places=layer.places,
                )
            )
        return drafts

    def drop(self, draft: Draft, lines: Numbers) -> None:
        """From now on these rows of a layer do not count (all that are dropped, from 1)."""
        draft.dropped = len(lines)
        draft.drops = None
        self._store(draft, "drops", write_numbers(lines))

    def read(self, number: int, done: RangeRead) -> None:
        """Remember that a piece can be followed."""
        self._sums[number].ranges.append(done)

    def received(self, number: int, count: int) -> None:
        """Bytes that came from the server for a table."""
        self._sums[number].received += count
        self.largest = max(self.largest, count)
        self.pacer.received(count)

    def forget(self, number: int, piece: int) -> None:
        """What was kept or copied of a piece does not count after all."""
        self._sums[number].drafts.pop(piece, None)

    def _drafts(self, number: int, piece: int) -> list[Draft]:
        return self._sums[number].drafts.setdefault(piece, [])

    def _store(self, draft: Draft, what: _Field, content: bytes) -> None:
        self._lists.begin((draft, what))
        self._lists.write(content)
        self._lists.end(0)

    def finish(self) -> dict[int, TableRead]:
        """Everything copied is in the repository after this."""
        for writer in (self._writer, self._lists):
            writer.flush()
            for (draft, what), ref, is_new in writer.drain():
                setattr(draft, what, ref)
                if is_new:
                    draft.fresh.append(ref)
        return {n: _table_read(n, s) for n, s in self._sums.items()}

    def _batches(self, source: CopySource, statement: str, *, binary: bool) -> Iterator[CopyBatch]:
        with self.pacer.statement():
            yield from source.copy_out(statement, binary=binary)


def _table_read(number: int, total: _Sum) -> TableRead:
    chunks: list[StoredChunk] = []
    for piece, drafts in total.drafts.items():
        # A chunk none of whose rows count any more is not needed.
        counting: Sequence[Draft] = [d for d in drafts if d.rows > d.dropped]
        chunks.extend(
            StoredChunk(piece=piece, position=i, layer=d.finished(), fresh=tuple(d.fresh))
            for i, d in enumerate(counting)
        )
    return TableRead(
        number=number,
        outcome=Read.DONE,
        rows=sum(c.layer.rows for c in chunks),
        bytes=total.received,
        chunks=tuple(chunks),
        ranges=tuple(total.ranges),
    )
