"""A source of a million chunks, simulated: each step that grows with the number of chunks, in a process of its own.

    PGKURA_REPOSITORY=… PGKURA_IDENTITY=… PGKURA_HOST_KEY=… python -m benchmarks.many_chunks STEP COUNT

`make` fills an initialised repository through the product's own API with an index and a chunk list of references to
sealed files that hold nothing (sparse, of the right size); the other steps read them back as the product does.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from pgkura.app.compose import Composition
from pgkura.app.settings import read_settings
from pgkura.core.memory import rarely_collect, use_again
from pgkura.core.progress import Silent
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.operations.prune import plan_prune
from pgkura.repository.lists import TableData, write_chunk_list
from pgkura.repository.manifest import Manifest, new_id
from pgkura.repository.packs import object_key
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.snapshot.booked import Booked, TableLayers
from pgkura.snapshot.components import store_components, store_parts
from pgkura.snapshot.detector import Before, Point
from pgkura.snapshot.state import FollowedRange, PreviousState, TableKey, write_state
from pgkura.snapshot.units import RangeRead, StoredChunk

PER_OBJECT = 8
PER_TABLE = 10_000
OBJECT_BYTES = 8 * 1024 * 1024
ROWS = 30_000


def layers(count: int, first: int = 0) -> Iterator[Layer]:
    """As a backup makes them, of tables in binary: every chunk has the sizes of its rows beside it."""
    count += first
    for number in range(first, count, PER_OBJECT):
        digest = hashlib.sha256(b"object %d" % number).hexdigest()
        held = ObjectRef(id=digest[:32], cipher_bytes=OBJECT_BYTES, sha256=digest)
        for k in range(number, min(number + PER_OBJECT, count)):
            offset = (k - number) * 1_000_000
            rows = _ref(held, "chunk", k, offset, 950_000, 4_000_000 + k % 1000, ROWS)
            yield Layer(chunk=rows, sizes=_ref(held, "sizes", k, offset + 950_000, 50_000, 2 * ROWS, 0))


def _ref(held: ObjectRef, what: str, number: int, offset: int, stored: int, length: int, rows: int) -> ChunkRef:
    mac = hashlib.sha256(f"{what} {number}".encode()).hexdigest()
    return ChunkRef(object=held, offset=offset, stored=stored, length=length, rows=rows, mac=mac)


def chunks(count: int) -> Iterator[ChunkRef]:
    """Everything the index has to know."""
    for layer in layers(count):
        yield from layer.refs()


def tables(count: int) -> Iterator[TableData]:
    """The layers as tables, streamed."""
    waiting: list[Layer] = []
    number = 0
    for layer in layers(count):
        waiting.append(layer)
        if len(waiting) == PER_TABLE:
            yield _table(number, waiting)
            number, waiting = number + 1, []
    if waiting:
        yield _table(number, waiting)


def _table(number: int, held: list[Layer]) -> TableData:
    name = f'"public"."big_{number}"'
    return TableData(
        number=number,
        name=name,
        columns='("id", "body")',
        target=name,
        rows=ROWS * len(held),
        bytes=sum(layer.chunk.length for layer in held),
        layers=tuple(held),
        binary=True,
    )


def make(repo: Repository, count: int) -> int:
    """Sparse objects, the chunk list, index and manifest."""
    folder = Path(os.environ["PGKURA_REPOSITORY"])
    for ref in chunks(count):
        if ref.offset == 0:
            path = folder / object_key(ref.object.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(OBJECT_BYTES)
    listed = store_components(repo, {"chunks": write_chunk_list(tables(count))})
    state = store_parts(repo, _state(count))
    now = datetime.now(UTC)
    manifest = Manifest(
        id=new_id(now, None),
        created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        host_id=repo.host_id,
        database="simulated",
        server_version_num=150000,
        system_identifier="1",
        snapshot="1:1:",
        lsn="0/0",
        pgkura_version="0",
        pg_dump_version="0",
        result="ok",
        skipped=(),
        accepted=(),
        counts={},
        components=listed.components,
    )
    new = chain(chunks(count), listed.new, state.new)
    repo.commit_snapshot(manifest, new, state.refs, needed=chunks(count))
    return count


def _state(count: int) -> Iterator[bytes]:
    """What a backup leaves for the next one: a range for each layer, the places of its rows beside it."""
    point = Point(system="1", timeline="1", database=1, visible="9:9:", lsn="0/9", started="then")
    key = TableKey(filenode=1, row_type="0" * 64, form="binary")
    found = ((number, key, _ranges(number, count)) for number in range((count + PER_TABLE - 1) // PER_TABLE))
    return write_state(point, 512, found)


def _ranges(number: int, count: int) -> Iterator[FollowedRange]:
    first = number * PER_TABLE
    for k, layer in enumerate(layers(min(PER_TABLE, count - first), first)):
        placed = replace(layer, places=_ref(layer.chunk.object, "places", first + k, 990_000, 9_000, 8 * ROWS, 0))
        before = Before(rows=ROWS, end=512 * (k + 1), since="2026-11-25", layers=(placed,))
        yield FollowedRange(start=512 * k, before=before)


def nothing(repo: Repository, count: int) -> int:
    """What an opened repository takes before anything is read: the floor of the others."""
    return 0


def index(repo: Repository, count: int) -> int:
    """The signed index, as a backup asks it for known chunks."""
    return sum(repo.known(layer.chunk.mac) is not None for layer in layers(count))


def list_read(repo: Repository, count: int) -> int:
    """The chunk list of a snapshot, one table after the other."""
    return sum(len(table.layers) for table in repo.chunk_list(repo.manifest("latest")))


def list_whole(repo: Repository, count: int) -> int:
    """The chunk list of a snapshot as a restore holds it."""
    held = list(repo.chunk_list(repo.manifest("latest")))
    return sum(len(table.layers) for table in held)


def list_write(repo: Repository, count: int) -> int:
    """The chunk list, written again."""
    store_components(repo, {"chunks": write_chunk_list(tables(count))})
    return count


def booked(repo: Repository, count: int) -> int:
    """What a backup keeps of its reading until it has ended, then the chunk list from it."""
    kept = Booked()
    for k, layer in enumerate(layers(count)):
        chunk = StoredChunk(piece=k, position=0, layer=layer, fresh=layer.refs())
        kept.add(0, (chunk,), (RangeRead(piece=k, start=512 * k, end=512 * k + 512, rows=ROWS),))
    told = TableLayers(kept, 0, count)
    store_components(repo, {"chunks": write_chunk_list([replace(next(tables(1)), layers=told)])})
    return sum(1 for _ in kept.fresh()) // 2


def state_write(repo: Repository, count: int) -> int:
    """The state, written again."""
    store_parts(repo, _state(count))
    return count


def state_load(repo: Repository, count: int) -> int:
    """The state of the last snapshot, as the next backup loads and asks it."""
    found = PreviousState()
    found.load(repo.state(repo.manifest_ids()[-1]) or ())
    places = ((n, 512 * k) for n in range((count + PER_TABLE - 1) // PER_TABLE) for k in range(PER_TABLE))
    return sum(found.of(number, start) is not None for number, start in places)


def prune_plan(repo: Repository, count: int) -> int:
    """What a prune would remove."""
    planned = plan_prune(repo, Rules(last=1), progress=Silent())
    if planned.removed or planned.problems:
        raise ValueError(f"the plan removes {planned.removed}; {planned.problems}")
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step and what it is in words."""

    act: Callable[[Repository, int], int]
    what: str


STEPS = {
    "make": Step(act=make, what="made"),
    "nothing": Step(act=nothing, what="repository opened, nothing read"),
    "index": Step(act=index, what="index loaded"),
    "list-read": Step(act=list_read, what="chunk list streamed"),
    "list-whole": Step(act=list_whole, what="chunk list held"),
    "list-write": Step(act=list_write, what="chunk list written"),
    "booked": Step(act=booked, what="reading booked, chunk list from it"),
    "state-write": Step(act=state_write, what="state written"),
    "state-load": Step(act=state_load, what="state loaded and asked"),
    "prune-plan": Step(act=prune_plan, what="prune planned"),
}


def main() -> None:
    """One step."""
    step, count = STEPS[sys.argv[1]], int(sys.argv[2])
    rarely_collect()
    use_again()
    repo = Composition(read_settings()).repository(need_host=True, need_identity=True)
    begun = time.monotonic()
    done = step.act(repo, count)
    print(json.dumps({"chunks": done, "what": step.what, "seconds": round(time.monotonic() - begun, 3)}))


if __name__ == "__main__":
    main()
