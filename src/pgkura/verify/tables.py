"""One table of a target against the snapshot's chunks: first as a stream, then, only if that differs, as a multiset."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.refs import ChunkRef
from pgkura.core.stop import Stop
from pgkura.postgres.session import Session
from pgkura.repository.repository import Repository
from pgkura.verify.rows import Multiset, RowHasher


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """What to compare: the relations whose rows together must equal the chunks' rows.

    relations  one table, or the leaves of a partition tree that was loaded through its root
    columns    those compared; keep: their places in the stored rows, () = all of them
    select     a query instead of the columns (large objects), '' = none
    """

    name: str
    relations: tuple[QualifiedName, ...]
    columns: tuple[str, ...]
    chunks: tuple[ChunkRef, ...]
    rows: int
    bytes: int
    keep: tuple[int, ...] = ()
    where: str = ""
    select: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableResult:
    """`rows` in the target; `reason` '' when equal."""

    check: TableCheck
    rows: int
    reason: str
    in_order: bool


def compare_table(session: Session, repo: Repository, check: TableCheck, key: bytes, stop: Stop) -> TableResult:
    """Reads the target's rows once, or twice where their order differs."""
    if len(check.relations) <= 1 and not check.keep:
        # Leaving the stream early cancels it, which would spoil the transaction that all tables are read in.
        session.execute("SAVEPOINT stream")
        rows, same = _stream_equal(session, repo, check, stop)
        session.execute("RELEASE SAVEPOINT stream" if same else "ROLLBACK TO SAVEPOINT stream")
        if same:
            return TableResult(check=check, rows=rows, reason="", in_order=True)
    want = _stored(repo, check, key, stop)
    hasher = RowHasher(key)
    for relation in check.relations or (None,):
        for batch in session.copy_out(copy_statement(check, relation)):
            stop.check()
            hasher.update(batch.data)
    have = hasher.result()
    reason = "" if have == want else _difference(want, have)
    return TableResult(check=check, rows=have.rows, reason=reason, in_order=False)


def copy_statement(check: TableCheck, relation: QualifiedName | None) -> str:
    """The COPY that prints rows as the backup's did."""
    if relation is None:
        return f"COPY ({check.select}) TO STDOUT"
    columns = ", ".join(quote_ident(c) for c in check.columns)
    if check.where:
        return f"COPY (SELECT {columns} FROM ONLY {relation.sql} {check.where}) TO STDOUT"
    return f"COPY {relation.sql} ({columns}) TO STDOUT" if columns else f"COPY {relation.sql} TO STDOUT"


def _difference(want: Multiset, have: Multiset) -> str:
    if want.rows != have.rows:
        return f"{have.rows:,} rows instead of {want.rows:,}"
    return f"{have.rows:,} rows, and not the same ones"


def _stream_equal(session: Session, repo: Repository, check: TableCheck, stop: Stop) -> tuple[int, bool]:
    """(rows, whether the bytes are the chunks' bytes in their order). Equal order implies equal rows."""
    cutter = Cutter(repo, check.chunks)
    rows = 0
    statement = copy_statement(check, check.relations[0] if check.relations else None)
    with closing(session.copy_out(statement)) as stream:
        for batch in stream:
            stop.check()
            rows += batch.rows
            if not cutter.feed(batch.data):
                return rows, False
    return rows, cutter.ended()


class Cutter:
    """Cuts a stream at the lengths of chunks and compares the MAC of each cut."""

    def __init__(self, repo: Repository, chunks: Sequence[ChunkRef]) -> None:
        self._repo = repo
        self._chunks = [c for c in chunks if c.length]
        self._place = 0
        self._hasher = repo.mac_hasher()
        self._left = self._chunks[0].length if self._chunks else 0

    def feed(self, data: bytes) -> bool:
        """False as soon as a cut differs or the stream is too long."""
        view = memoryview(data)
        while view:
            if self._place >= len(self._chunks):
                return False
            part = view[: self._left]
            self._hasher.update(part)
            self._left -= len(part)
            view = view[len(part) :]
            if not self._left and not self._next():
                return False
        return True

    def _next(self) -> bool:
        if self._hasher.hexdigest() != self._chunks[self._place].mac:
            return False
        self._place += 1
        self._hasher = self._repo.mac_hasher()
        self._left = self._chunks[self._place].length if self._place < len(self._chunks) else 0
        return True

    def ended(self) -> bool:
        """Whether all chunks were seen."""
        return self._place == len(self._chunks)


def _stored(repo: Repository, check: TableCheck, key: bytes, stop: Stop) -> Multiset:
    hasher = RowHasher(key)
    for ref in check.chunks:
        stop.check()
        pieces: Iterable[bytes] = repo.read_chunk(ref)
        for piece in _projected(pieces, check.keep) if check.keep else pieces:
            hasher.update(piece)
    return hasher.result()


def _projected(pieces: Iterable[bytes], keep: Sequence[int]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield b"".join(b"\t".join(words[n] for n in keep) + b"\n" for words in (line.split(b"\t") for line in lines))
