"""Days of a database that was never there: layers with dropped rows, sizes and places, many chunks to a pack."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from tests.support.shelf import Shelf, manifest_of

from pgkura.core.refs import ChunkRef, Layer
from pgkura.repository.lines import pack_sizes, write_numbers
from pgkura.repository.lists import TableData, write_chunk_list
from pgkura.repository.moving import STATES, places_in
from pgkura.repository.packs import PackWriter
from pgkura.repository.repository import Repository
from pgkura.snapshot.components import store_components, store_parts
from pgkura.snapshot.detector import Before, Point
from pgkura.snapshot.state import FollowedRange, PreviousState, TableKey, write_state

POINT = Point(system="1", timeline="1", database=1, visible="9:9:", lsn="0/9", started="then")


@dataclass(slots=True)
class Batch:
    """Chunks that are written first and known later."""

    writer: PackWriter
    per_pack: int
    count: int = 0

    def put(self, data: bytes, rows: int = 0) -> int:
        """Its number."""
        self.writer.begin(self.count)
        self.writer.write(data)
        self.writer.end(rows)
        self.count += 1
        if self.count % self.per_pack == 0:
            self.writer.flush()
        return self.count - 1

    def stored(self, fresh: list[ChunkRef]) -> dict[int, ChunkRef]:
        """By number."""
        self.writer.flush()
        drained = self.writer.drain()
        fresh += [ref for _, ref, new in drained if new]
        return {int(n): ref for n, ref, _ in drained}


@dataclass(slots=True, kw_only=True)
class Held:
    """A layer, and its rows that count; while a day is made, what its parts will be by their numbers."""

    rows: list[bytes]
    layer: Layer | None = None
    chunk: int | None = None
    total: int = 0
    parts: dict[str, int] = field(default_factory=dict)

    def finish(self, data: dict[int, ChunkRef], lists: dict[int, ChunkRef]) -> None:
        """What was written is stored now."""
        if self.chunk is not None:
            self.layer = Layer(chunk=data[self.chunk])
        assert self.layer is not None
        found = {name: lists[number] for name, number in self.parts.items()}
        self.layer = replace(self.layer, dropped=self.layer.chunk.rows - len(self.rows), **found)
        self.chunk, self.parts = None, {}

    @property
    def done(self) -> Layer:
        """The layer."""
        assert self.layer is not None
        return self.layer


@dataclass(slots=True)
class Days:
    """Goes on from day to day as a backup does."""

    shelf: Shelf
    chance: random.Random
    tables: int = 4
    held: dict[str, list[Held]] = field(default_factory=dict)
    newest: str = ""

    def recall(self) -> None:
        """What the newest snapshot left, as the next backup finds it: chunks may lie elsewhere now."""
        repo = self.shelf.host()
        state = PreviousState()
        state.load(repo.state(self.newest) or ())
        for number, held in enumerate(self.held.values()):
            for k, one in enumerate(held):
                before = state.of(number, 512 * k)
                assert before is not None
                (one.layer,) = before.layers
        state.close()

    def next(self, *, ago: timedelta = timedelta(0), repo: Repository | None = None, database: str = "shop") -> str:
        """Some layers are new, some lose rows, some go, most stay; the snapshot's id.

        With a repository that was opened before, as a backup that began then.
        """
        if self.newest and self.held and repo is None:
            self.recall()
        repo = repo or self.shelf.host()
        data = Batch(repo.pack_writer(), self.chance.randrange(2, 9))
        lists = Batch(repo.pack_writer(for_hosts=True), self.chance.randrange(2, 9))
        for number in range(self.tables):
            held = [x for x in self.held.get(f"t{number}", ()) if self.chance.random() > 0.3]
            for one in held:
                self._drop(one, lists)
            held += [self._new(number % 2 == 1, data, lists) for _ in range(self.chance.randrange(1, 4))]
            self.held[f"t{number}"] = held
        fresh: list[ChunkRef] = []
        found = data.stored(fresh), lists.stored(fresh)
        for one in self._all():
            one.finish(*found)
        return self._commit(repo, fresh, datetime.now(UTC) - ago, database)

    def _commit(self, repo: Repository, fresh: list[ChunkRef], moment: datetime, database: str) -> str:
        state = store_parts(repo, write_state(POINT, 512, self._state()))
        texts = {"chunks": write_chunk_list(self._tables()), "facts": [b"always"], "inventory": [str(moment).encode()]}
        stored = store_components(repo, texts)
        made = manifest_of(repo, moment, stored.components, database=database)
        layers = [x.done for x in self._all()]
        needed = [r for x in layers for r in (*x.refs(), x.places) if r is not None]
        repo.commit_snapshot(made, [*fresh, *stored.new, *state.new], state.refs, needed=needed)
        self.newest = made.id
        self.shelf.contents[made.id] = {n: b"".join(b"".join(x.rows) for x in held) for n, held in self.held.items()}
        return made.id

    def _all(self) -> list[Held]:
        return [one for held in self.held.values() for one in held]

    def forget(self) -> None:
        """A new epoch: everything is stored once more."""
        self.held.clear()

    def _new(self, binary: bool, data: Batch, lists: Batch) -> Held:
        rows = [self.chance.randbytes(20).hex().encode() + b"\n" for _ in range(self.chance.randrange(100, 400))]
        parts = {"places": lists.put(self.chance.randbytes(8 * len(rows)))}
        if binary:
            parts["sizes"] = lists.put(pack_sizes(np.array([len(r) for r in rows], np.int64)))
        return Held(rows=rows, chunk=data.put(b"".join(rows), len(rows)), parts=parts)

    def _drop(self, one: Held, lists: Batch) -> None:
        """A third of the rows, once."""
        if one.done.drops is None and self.chance.random() < 0.3:
            drops = set(self.chance.sample(range(len(one.rows)), len(one.rows) // 3))
            one.parts["drops"] = lists.put(write_numbers(np.array(sorted(drops), np.int64) + 1))
            one.rows = [r for n, r in enumerate(one.rows) if n not in drops]

    def _tables(self) -> Iterator[TableData]:
        for number, (name, held) in enumerate(self.held.items()):
            layers = tuple(x.done for x in held)
            yield TableData(
                number=number,
                name=name,
                columns="",
                target=name,
                rows=sum(x.rows for x in layers),
                bytes=sum(x.chunk.length for x in layers),
                layers=layers,
                binary=number % 2 == 1,
            )

    def _state(self) -> Iterator[tuple[int, TableKey, list[FollowedRange]]]:
        for number, held in enumerate(self.held.values()):
            key = TableKey(filenode=1, row_type="0" * 64, form="binary" if number % 2 else "text")
            yield number, key, [_range(k, one.done) for k, one in enumerate(held)]


def _range(k: int, layer: Layer) -> FollowedRange:
    before = Before(rows=layer.rows, end=512 * (k + 1), since="2026-11-25", layers=(layer,))
    return FollowedRange(start=512 * k, before=before)


def assert_states_open(shelf: Shelf) -> None:
    """A host alone reads each state, and every list that it would need to go on."""
    repo = shelf.host()
    for snapshot_id in repo.manifest_ids():
        pieces = repo.state(snapshot_id)
        if pieces is None or repo.manifest(snapshot_id).epoch != repo.epoch:
            continue
        state = PreviousState()
        state.load(pieces)
        state.close()
        for ref in places_in(repo.state(snapshot_id) or (), STATES):
            if not ref.rows:
                repo.read_bytes(ref)
