"""Lists whose chunks lie elsewhere now: the same lines, with other places."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from pgkura.core.refs import ChunkRef
from pgkura.core.scratch import new_database
from pgkura.repository.lists import Lines, ListReader
from pgkura.repository.spool import pack_ref, unpack_ref

# In every list a line that begins so ends in the six words of a chunk.
_PLACED = frozenset({"chunk", "sizes", "drops", "places"})
_REF_WORDS = 6
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A list: the word that it begins with, the newest version that is known, and what errors call it."""

    header: str
    newest: int
    what: str

    def reader(self, pieces: Iterable[bytes]) -> ListReader:
        """Of such a list."""
        return ListReader(pieces, self.header, self.what, newest=self.newest)


CHUNKS = Form(header="pgkura-chunks", newest=2, what="the chunk list")
STATES = Form(header="pgkura-state", newest=1, what="a state")


def places_in(pieces: Iterable[bytes], form: Form) -> Iterator[ChunkRef]:
    """Every chunk that a list names. Raises Tampered, FormatTooNew."""
    reader = form.reader(pieces)
    for words in reader:
        if words[0] in _PLACED:
            yield reader.chunk(words[-_REF_WORDS:])


class Moves:
    """Old place → new place, in a file without a name."""

    def __init__(self) -> None:
        self._database = new_database()
        self._database.execute(
            "CREATE TABLE moves (object BLOB, start, length, ref BLOB, PRIMARY KEY (object, start, length)) "
            "WITHOUT ROWID"
        )
        self._objects: set[str] = set()

    def add(self, moved: Iterable[tuple[ChunkRef, ChunkRef]]) -> None:
        """(where it was, where it is)."""
        rows = iter(moved)
        while some := list(islice(rows, _AT_ONCE)):
            self._objects.update(was.object.id for was, _ in some)
            packed = [(bytes.fromhex(w.object.id), w.offset, w.length, pack_ref(now)) for w, now in some]
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO moves VALUES (?, ?, ?, ?)", packed)
            self._database.execute("COMMIT")

    def now(self, ref: ChunkRef) -> ChunkRef:
        """Where a chunk lies now: where it was, if it did not move."""
        if ref.object.id not in self._objects:
            return ref
        sql = "SELECT ref FROM moves WHERE object = ? AND start = ? AND length = ?"
        row = self._database.execute(sql, (bytes.fromhex(ref.object.id), ref.offset, ref.length)).fetchone()
        return ref if row is None else replace(unpack_ref(row[0]), rows=ref.rows)

    def all(self) -> Iterator[ChunkRef]:
        """The new places."""
        return (unpack_ref(row[0]) for row in self._database.execute("SELECT ref FROM moves"))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def repointed(pieces: Iterable[bytes], form: Form, moves: Moves) -> Iterator[bytes]:
    """The same list with the places of now."""
    reader = form.reader(pieces)
    lines = Lines()
    begun = False
    for words in reader:
        if not begun:
            yield f"{form.header}\t{reader.version}\n".encode()
            begun = True
        if words[0] == "object":
            continue  # `lines` writes those that are named, before the first chunk in each
        if words[0] not in _PLACED:
            yield ("\t".join(words) + "\n").encode()
            continue
        ref = moves.now(reader.chunk(words[-_REF_WORDS:]))
        prefix = "".join(f"{word}\t" for word in words[1:-_REF_WORDS])
        yield from lines.chunk(ref, prefix, word=words[0])
    if not begun:
        yield f"{form.header}\t{reader.version}\n".encode()
