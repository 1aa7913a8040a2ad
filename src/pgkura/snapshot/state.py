"""What a snapshot leaves for the next one: for every followed page range its layers and the places of their rows.

Stored in the index class (docs/formats/repository.md, "State"), so that a host without the identity can go on.
While a run lasts it lies in a file without a name: memory must not grow with the database.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.core.scratch import new_database
from pgkura.repository.lists import Lines, ListReader
from pgkura.snapshot.detector import Before, Point

HEADER = "pgkura-state"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableKey:
    """What must be the same for a table's tuples to be the same ones.

    filenode  of its heap; row_type: fingerprint of its columns and their types; form: text or binary
    """

    filenode: int
    row_type: str
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedRange:
    """One page range as it will be found next time."""

    start: int
    before: Before


def write_state(
    point: Point, pages: int, tables: Iterable[tuple[int, TableKey, Iterable[FollowedRange]]]
) -> Iterator[bytes]:
    """Lines of a state. `pages`: how many make a range."""
    yield f"{HEADER}\t1\n".encode()
    yield _line("point", point.system, point.timeline, point.database, point.visible, point.lsn, point.started, pages)
    lines = Lines()
    for oid, key, ranges in tables:
        yield _line("table", oid, key.filenode, key.row_type, key.form)
        for one in ranges:
            end = "-" if one.before.end is None else one.before.end
            yield _line("range", one.start, end, one.before.rows, one.before.since)
            for layer in one.before.layers:
                if layer.places is not None:
                    yield from lines.chunk(layer.places, word="places")
                yield from lines.layer(layer, "")


def _line(*words: object) -> bytes:
    return ("\t".join(map(str, words)) + "\n").encode()


class PreviousState:
    """The last state, ready to be asked. Close it after use."""

    def __init__(self) -> None:
        self.point: Point | None = None
        self.pages = 0
        self._keys: dict[int, TableKey] = {}
        self._database = new_database()
        self._database.execute("CREATE TABLE ranges (oid, start, before, PRIMARY KEY (oid, start)) WITHOUT ROWID")

    def load(self, pieces: Iterable[bytes]) -> None:
        """Read a stored state. Raises Tampered, FormatTooNew; then it must not be used."""
        self._database.execute("BEGIN")
        for oid, one in self._read(ListReader(pieces, HEADER, "a state")):
            row = (oid, one.start, _packed(one.before))
            self._database.execute("INSERT OR REPLACE INTO ranges VALUES (?, ?, ?)", row)
        self._database.execute("COMMIT")

    def _read(self, reader: ListReader) -> Iterator[tuple[int, FollowedRange]]:
        oid, head = 0, ("", "", "", "")
        layers: list[Layer] = []
        parts: dict[str, tuple[int, ChunkRef]] = {}
        try:
            for word, *rest in reader:
                if word in ("range", "table") and head[0]:
                    yield oid, _range(head, layers)
                    head, layers = ("", "", "", ""), []
                if word == "point":
                    system, timeline, database, visible, lsn, started, pages = rest
                    self.pages = int(pages)
                    self.point = Point(
                        system=system,
                        timeline=timeline,
                        database=int(database),
                        visible=visible,
                        lsn=lsn,
                        started=started,
                    )
                elif word == "table":
                    oid = int(rest[0])
                    self._keys[oid] = TableKey(filenode=int(rest[1]), row_type=rest[2], form=rest[3])
                elif word == "range":
                    start, end, rows, since = rest
                    head = (start, end, rows, since)
                elif word in ("places", "sizes"):
                    parts[word] = 0, reader.chunk(rest)
                elif word == "drops":
                    parts[word] = int(rest[0]), reader.chunk(rest[1:])
                elif word == "chunk":
                    layers.append(_layer(reader.chunk(rest), parts))
                    parts = {}
                elif word != "object":
                    raise reader.damaged()
            if head[0]:
                yield oid, _range(head, layers)
        except (ValueError, IndexError) as error:
            raise reader.damaged() from error

    def key(self, oid: int) -> TableKey | None:
        """Of a table that was followed."""
        return self._keys.get(oid)

    def of(self, oid: int, start: int) -> Before | None:
        """A range that was followed."""
        row = self._database.execute("SELECT before FROM ranges WHERE oid = ? AND start = ?", (oid, start)).fetchone()
        return None if row is None else _unpacked(row[0])

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def _layer(chunk: ChunkRef, parts: Mapping[str, tuple[int, ChunkRef]]) -> Layer:
    dropped, drops = parts.get("drops", (0, None))
    sizes, places = (parts[word][1] if word in parts else None for word in ("sizes", "places"))
    return Layer(chunk=chunk, dropped=dropped, drops=drops, sizes=sizes, places=places)


def _range(head: tuple[str, str, str, str], layers: list[Layer]) -> FollowedRange:
    start, end, rows, since = head
    if int(rows) != sum(layer.rows for layer in layers):
        raise ValueError("rows do not add up")
    before = Before(rows=int(rows), end=None if end == "-" else int(end), since=since, layers=tuple(layers))
    return FollowedRange(start=int(start), before=before)


def _packed(before: Before) -> str:
    def ref(r: ChunkRef | None) -> list[object] | None:
        if r is None:
            return None
        return [r.object.id, r.object.cipher_bytes, r.object.sha256, r.offset, r.stored, r.length, r.rows, r.mac]

    layers = [[x.dropped, ref(x.chunk), ref(x.drops), ref(x.sizes), ref(x.places)] for x in before.layers]
    return json.dumps([before.rows, before.end, before.since, layers])


def _unpacked(text: str) -> Before:
    rows, end, since, layers = json.loads(text)
    return Before(
        rows=rows,
        end=end,
        since=since,
        layers=tuple(
            Layer(dropped=dropped, chunk=_ref(chunk), drops=_maybe(drops), sizes=_maybe(sizes), places=_maybe(places))
            for dropped, chunk, drops, sizes, places in layers
        ),
    )


def _maybe(words: list[object] | None) -> ChunkRef | None:
    return None if words is None else _ref(words)


def _ref(words: list[object]) -> ChunkRef:
    object_id, size, digest, offset, stored, length, rows, mac = words
    return ChunkRef(
        object=ObjectRef(id=str(object_id), cipher_bytes=int(str(size)), sha256=str(digest)),
        offset=int(str(offset)),
        stored=int(str(stored)),
        length=int(str(length)),
        rows=int(str(rows)),
        mac=str(mac),
    )
