"""One table's rows against its chunks: first as a stream, then, only if that differs, as a multiset."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.refs import Layer
from pgkura.core.stop import Stop
from pgkura.postgres.messages import CopyBatch
from pgkura.postgres.session import UNTRANSLATABLE, Session, SqlError
from pgkura.repository.lines import Numbers
from pgkura.repository.repository import Repository
from pgkura.repository.rowsums import Multiset, RowHasher
from pgkura.repository.spool import outside
from pgkura.repository.sums import summed
from pgkura.verify.checks import LARGE_OBJECTS, Part, TableCheck

_SAVEPOINT = "pgkura_stream"
_TOGETHER = "pgkura_together"
_NO_RIGHT = "42501"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableResult:
    """`rows` in the target; `finding` None when equal; `in_order` when the stream alone showed it."""

    check: TableCheck
    rows: int
    finding: Finding | None
    in_order: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What comparing tables needs beside a session. `received` is told how many bytes came from the server."""

    repo: Repository
    epoch: int
    key: bytes
    stop: Stop
    received: Callable[[int], None]


def compare_tables(session: Session, reader: Reader, checks: Sequence[TableCheck]) -> list[TableResult]:
    """Several tables, in one round trip each as long as they are equal; what is not, or is refused, is looked at
    once more by itself."""
    if len(checks) == 1:
        return [compare_table(session, reader, checks[0])]
    equal: dict[int, TableResult] = {}
    with session.given_back(_TOGETHER):
        for number, check in enumerate(checks):
            rows, same = _stream_together(session, reader, check)
            if same:
                equal[number] = TableResult(check=check, rows=rows, finding=None, in_order=True)
    return [equal.get(number) or compare_table(session, reader, check) for number, check in enumerate(checks)]


def _stream_together(session: Session, reader: Reader, check: TableCheck) -> tuple[int, bool]:
    try:
        rows, same = _stream(session, reader, check)
    except SqlError:
        if session.broken:
            raise
        rows, same = 0, False
    if not same:
        session.execute(f"ROLLBACK TO SAVEPOINT {_TOGETHER}")
    return rows, same


def compare_table(session: Session, reader: Reader, check: TableCheck) -> TableResult:
    """Reads the target's rows once, or twice where their order differs; memory is bounded by the longest row."""
    try:
        with session.given_back():
            return _compare(session, reader, check)
    except SqlError as error:
        return TableResult(check=check, rows=0, finding=_refused(session, check, error), in_order=False)


def sum_table(session: Session, reader: Reader, check: TableCheck) -> tuple[Multiset, Finding | None]:
    """The rows of `check` under the key of its draw, or why they cannot be read."""
    try:
        with session.given_back():
            return _multiset_there(session, reader, check, _key(reader, check)), None
    except SqlError as error:
        return Multiset(0, 0), _refused(session, check, error)


def result_of_sums(check: TableCheck, want: Multiset, have: Multiset, denied: Finding | None) -> TableResult:
    """What the sums of all its ranges say of a table. Pure."""
    finding = denied
    if finding is None and have != want:
        finding = Finding(cls=FindingClass.LOST, object=check.title, reason=_difference(want, have, check))
    return TableResult(check=check, rows=have.rows, finding=finding, in_order=False)


def _refused(session: Session, check: TableCheck, error: SqlError) -> Finding:
    if not session.broken and error.sqlstate in UNTRANSLATABLE:
        reason = "it holds a value that cannot be written in UTF-8, which no snapshot has"
        return Finding(cls=FindingClass.LOST, object=check.title, reason=reason)
    if session.broken or error.sqlstate != _NO_RIGHT:
        raise error
    return Finding(cls=FindingClass.DENIED, object=check.title, reason=error.msg)


def _key(reader: Reader, check: TableCheck) -> bytes:
    return reader.repo.row_key(reader.epoch, check.draw) if check.draw else reader.key


def _compare(session: Session, reader: Reader, check: TableCheck) -> TableResult:
    if check.in_one_stream:
        rows, same = _stream_equal(session, reader, check)
        if same:
            return TableResult(check=check, rows=rows, finding=None, in_order=True)
    key = _key(reader, check)
    have = _multiset_there(session, reader, check, key)
    return result_of_sums(check, _multiset_stored(reader, check, key), have, None)


def _copied(session: Session, check: TableCheck, number: int) -> Generator[CopyBatch, None, None]:
    return session.copy_out(copy_statements(check)[number], binary=check.binary)


def copy_statements(check: TableCheck) -> list[str]:
    """The COPYs that print rows as the backup's did. COPY of a table reads it alone, never its children. Pure."""
    if check.select:
        return [f"COPY ({check.select}) TO STDOUT"]
    form = " WITH (FORMAT binary)" if check.binary else ""
    return [_copy(relation, check.columns, check.where) + form for relation in check.relations]


def _copy(relation: QualifiedName, columns: Sequence[str], where: str) -> str:
    names = ", ".join(quote_ident(c) for c in columns)
    if where:
        return f"COPY (SELECT {names} FROM ONLY {relation.sql} {where}) TO STDOUT"
    return f"COPY {relation.sql} ({names}) TO STDOUT" if names else f"COPY {relation.sql} TO STDOUT"


def _difference(want: Multiset, have: Multiset, check: TableCheck) -> str:
    unit = "pieces" if check.name == LARGE_OBJECTS else "rows"
    if want.rows != have.rows:
        return f"{have.rows:,} {unit} instead of {want.rows:,}"
    return f"{have.rows:,} {unit}, and not the same ones"


def _stream_equal(session: Session, reader: Reader, check: TableCheck) -> tuple[int, bool]:
    """As `_stream`, and the transaction stays good."""
    with _abandonable(session):
        return _stream(session, reader, check)


def _stream(session: Session, reader: Reader, check: TableCheck) -> tuple[int, bool]:
    """(rows, whether the bytes are the chunks' bytes in their order). Equal order implies equal rows.

    One that differs is given up, which may end the transaction.
    """

    def hasher() -> Any:
        return reader.repo.chunk_hasher(reader.epoch)

    cutter = Cutter(hasher, cuts(reader.repo, check.parts[0], hasher))
    rows = 0
    with closing(_copied(session, check, 0)) as batches:
        for batch in batches:
            reader.stop.check()
            reader.received(len(batch.data))
            rows += batch.rows
            if not cutter.feed(batch.data):
                return rows, False
    return rows, cutter.ended() and rows == check.rows


@contextmanager
def _abandonable(session: Session) -> Iterator[None]:
    """A COPY given up half-way is cancelled, which must not end the transaction and its snapshot."""
    session.execute(f"SAVEPOINT {_SAVEPOINT}")
    yield
    session.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
    session.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")


def cuts(repo: Repository, part: Part, hasher: Callable[[], Any]) -> Iterator[tuple[int, str]]:
    """(length, MAC) of the rows that count of each layer. Only layers with dropped rows are read, and of these only
    those that the restore before this proof has not just read."""
    seen = iter(part.cuts or ())
    for layer in part.layers:
        if layer.drops is None:
            yield layer.chunk.length, layer.chunk.mac
            continue
        cut = next(seen, None)
        if cut is not None:
            yield cut
            continue
        mac, length = hasher(), 0
        for piece in repo.read_rows(layer):
            mac.update(piece)
            length += len(piece)
        yield length, mac.hexdigest()


class Cutter:
    """Cuts a stream at these lengths and compares the MAC of each cut."""

    def __init__(self, new_mac: Callable[[], Any], cuts: Iterable[tuple[int, str]]) -> None:
        self._new_mac = new_mac
        self._cuts = ((length, mac) for length, mac in cuts if length)
        self._begin()

    def _begin(self) -> None:
        self._mac = self._new_mac()
        self._left, self._want = next(self._cuts, (0, ""))

    def feed(self, data: bytes | memoryview) -> bool:
        """False as soon as a cut differs or the stream is too long."""
        view = memoryview(data)
        while view:
            if not self._want:
                return False
            part = view[: self._left]
            self._mac.update(part)
            self._left -= len(part)
            view = view[len(part) :]
            if not self._left and not self._next():
                return False
        return True

    def _next(self) -> bool:
        if self._mac.hexdigest() != self._want:
            return False
        self._begin()
        return True

    def ended(self) -> bool:
        """Whether all chunks were seen."""
        return not self._want


def _multiset_there(session: Session, reader: Reader, check: TableCheck, key: bytes) -> Multiset:
    hasher = RowHasher(key)
    for number in range(len(copy_statements(check))):
        for batch in _copied(session, check, number):
            reader.stop.check()
            reader.received(len(batch.data))
            if check.binary:
                hasher.update_rows(batch.data, batch.sizes)
            else:
                hasher.update(batch.data)
    return hasher.result()


def _multiset_stored(reader: Reader, check: TableCheck, key: bytes) -> Multiset:
    """What the restore before did not add up already is read."""
    hasher = RowHasher(key)
    seen = Multiset(0, 0)
    for part in check.parts:
        covered = part.sums.covered if part.sums is not None else {}
        seen += part.sums.rows if part.sums is not None else Multiset(0, 0)
        for layer in outside(part.layers, covered):
            reader.stop.check()
            _add_stored(reader.repo, check, part, layer, hasher)
    return seen + hasher.result()


def _add_stored(repo: Repository, check: TableCheck, part: Part, layer: Layer, hasher: RowHasher) -> None:
    pieces: Iterable[bytes] = repo.read_rows(layer)
    if check.binary and part.keep:
        hasher.update_rows(*projected_tuples(b"".join(pieces), repo.read_sizes(layer), part.keep))
        return
    if part.keep:
        pieces = projected(pieces, part.keep)
    if check.numbers is not None:
        pieces = numbered(pieces, check.numbers)
    for _ in summed(pieces, repo.read_sizes(layer) if check.binary else None, hasher):
        pass


def projected(pieces: Iterable[bytes], keep: Sequence[int]) -> Iterator[bytes]:
    """Rows with only these columns, in this order. A value never holds a raw tab or newline. Pure."""
    for lines in whole_lines(pieces):
        yield b"".join(b"\t".join(words[n] for n in keep) + b"\n" for words in (line.split(b"\t") for line in lines))


def projected_tuples(rows: bytes, sizes: Numbers, keep: Sequence[int]) -> tuple[bytes, Numbers]:
    """Binary rows with only these columns, in this order, and their sizes. Pure."""
    made = []
    start = 0
    for size in sizes.tolist():
        fields, at = [], start + 2
        for _ in range(int.from_bytes(rows[start : start + 2], "big")):
            end = at + 4 + max(0, int.from_bytes(rows[at : at + 4], "big", signed=True))
            fields.append(rows[at:end])
            at = end
        made.append(len(keep).to_bytes(2, "big") + b"".join(fields[n] for n in keep))
        start += size
    return b"".join(made), np.array([len(row) for row in made], np.int64)


def numbered(pieces: Iterable[bytes], numbers: frozenset[int]) -> Iterator[bytes]:
    """Rows whose first column is one of these numbers. Pure."""
    for lines in whole_lines(pieces):
        yield b"".join(line + b"\n" for line in lines if int(line.partition(b"\t")[0]) in numbers)


def whole_lines(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines without their newlines, some at a time."""
    begun: list[bytes] = []
    for piece in pieces:
        head, newline, rest = piece.rpartition(b"\n")
        if not newline:
            begun.append(rest)
            continue
        begun.append(head)
        yield b"".join(begun).split(b"\n")
        begun = [rest] if rest else []
