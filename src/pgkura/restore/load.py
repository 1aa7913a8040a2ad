"""Rows back into tables: small ones share a transaction, large ones take several, each in one COPY at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from pgkura.core.errors import Interrupted
from pgkura.core.names import quote_ident, quote_literal
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.progress import Progress
from pgkura.core.refs import ChunkRef, Layer
from pgkura.core.stop import Stop
from pgkura.postgres.messages import BINARY_HEADER, BINARY_TRAILER
from pgkura.postgres.session import CopyWriter, Session, SqlError
from pgkura.repository.cuts import CutPile, Cuts
from pgkura.repository.lists import BLOBS, TableData
from pgkura.repository.repository import Repository
from pgkura.restore import ledger
from pgkura.restore.loads import Load
from pgkura.restore.paths import NAME_ERRORS, under_path

_TEXT = "FORMAT text, ENCODING 'UTF8'"
_BINARY = "FORMAT binary, ENCODING 'UTF8'"


# Tables from this size on are loaded in several transactions, so that what is there survives a restore cut short.
GROUPED_BYTES = 128 * 1024 * 1024
GROUP_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A load and how it is done.

    path      a SET search_path to try once more with, for checks that name functions without a schema
    truncate  the table is emptied in the same transaction: it may hold rows, or is large enough for COPY FREEZE
    """

    load: Load
    path: str = ""
    truncate: bool = True

    @property
    def alone(self) -> bool:
        """A plain table whose only rows these are."""
        facts = self.load.facts
        own = facts is not None and facts.kind == "r" and not facts.load_root
        return own and self.load.delete_where is None and not self.load.managed and self.load.form is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What one load did; `finding` when it could not; `by_path` when it took the source's search_path.

    cuts  of the layers that were read, for the proof that follows; None = not known
    """

    rows: int
    finding: Finding | None = None
    by_path: bool = False
    cuts: Cuts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Loads on one connection.

    ledger  what is loaded is told in the target, and what is told is not loaded again
    epoch   of the snapshot: its key is that of the cuts; 0 = none are wanted
    """

    session: Session
    repo: Repository
    stop: Stop
    ledger: bool
    epoch: int = 0

    def together(self, items: Sequence[Item]) -> list[Loaded]:
        """Small tables in one transaction; each by itself where that fails."""
        if len(items) > 1:
            try:
                return self._in_one(items)
            except SqlError:
                if self.session.broken:
                    raise
                self.session.rollback()
        return [self.table(item) for item in items]

    def table(self, item: Item) -> Loaded:
        """All rows of one table. A failure of the server's becomes a finding."""
        load = item.load
        try:
            return self._load(item)
        except SqlError as error:
            if self.session.broken:
                raise
            self.session.rollback()
            failed = error
        if item.path and failed.sqlstate in NAME_ERRORS:
            try:
                with under_path(self.session, item.path):
                    return replace(self._load(item), by_path=True)
            except SqlError:
                if self.session.broken:
                    raise
        cls = FindingClass.DENIED if failed.sqlstate == "42501" else FindingClass.LOST
        reason = f"its rows could not be loaded: {failed.msg}"
        return Loaded(rows=0, finding=Finding(cls=cls, object=f"rows of {load.target}", reason=reason))

    def _load(self, item: Item) -> Loaded:
        if item.load.managed:
            return self._managed(item)
        if self.ledger and item.alone and item.load.data.bytes >= GROUPED_BYTES:
            return self._in_groups(item.load)
        return self._in_one([item])[0]

    def _in_one(self, items: Sequence[Item]) -> list[Loaded]:
        self.session.begin(isolation="read committed", read_only=False)
        wanted = self._claim([item.load for item in items])
        piles = {number: self._pile(item.load) for item in items if (number := item.load.data.number) in wanted}
        for item in items:
            if item.load.data.number in wanted:
                self._rows(item, piles[item.load.data.number])
        self.session.commit()
        return [_loaded(item.load, piles.get(item.load.data.number)) for item in items]

    def _pile(self, load: Load, first: int = 0) -> CutPile | None:
        """For the cuts of a table whose stored rows can be met again in one stream."""
        if not self.epoch or load.keep or load.form is not None or (load.facts is not None and load.facts.load_root):
            return None
        return CutPile(lambda: self.repo.chunk_hasher(self.epoch), first)

    def _claim(self, loads: Sequence[Load]) -> frozenset[int]:
        if not self.ledger:
            return frozenset(load.data.number for load in loads)
        return ledger.claim(self.session, [(load.data.number, len(load.data.layers)) for load in loads])

    def _rows(self, item: Item, pile: CutPile | None) -> None:
        load = item.load
        if load.form is not None:
            if item.truncate:
                self.session.execute(f"TRUNCATE ONLY {load.target.sql}")
            copy_in_form(self.session, self.repo, load, self.stop)
            return
        freeze = item.alone and item.truncate
        if load.delete_where is not None:
            # Rows that CREATE EXTENSION put there itself; the condition is the extension's own.
            self.session.execute(f"DELETE FROM ONLY {load.target.sql} {load.delete_where}")
        elif freeze:
            # Truncating in the same transaction lets COPY write frozen rows, and makes a repeated load harmless.
            self.session.execute(f"TRUNCATE ONLY {load.target.sql}")
        copy_chunks(self.session, self.repo, load, self.stop, freeze=freeze, pile=pile)

    def _in_groups(self, load: Load) -> Loaded:
        """A transaction for every so many chunks. Only the first can write frozen rows."""
        done = ledger.loaded(self.session, load.data.number)
        pile = self._pile(load, done)
        for start, layers in groups(load.data.layers, done):
            try:
                self._group(load, start, layers, pile)
            except SqlError:
                if not self.session.broken and not self.stop.requested:
                    self._forget(load)
                raise
        return _loaded(load, pile)

    def _forget(self, load: Load) -> None:
        """A table that cannot be loaded is left empty."""
        self.session.rollback()
        self.session.begin(isolation="read committed", read_only=False)
        self.session.execute(f"TRUNCATE ONLY {load.target.sql}")
        ledger.forget(self.session, load.data.number)
        self.session.commit()

    def _group(self, load: Load, start: int, layers: Sequence[Layer], pile: CutPile | None) -> None:
        self.session.begin(isolation="read committed", read_only=False)
        if not ledger.step(self.session, load.data.number, start, start + len(layers)):
            raise Interrupted(f"rows of {load.target} are loaded by another worker")
        if start == 0:
            self.session.execute(f"TRUNCATE ONLY {load.target.sql}")
        copy_chunks(self.session, self.repo, load, self.stop, freeze=start == 0, layers=layers, pile=pile)
        self.session.commit()

    def _managed(self, item: Item) -> Loaded:
        self.session.replica_role()
        pile = None
        try:
            self.session.begin(isolation="read committed", read_only=False)
            if self._claim([item.load]):
                pile = self._pile(item.load)
                copy_chunks(self.session, self.repo, item.load, self.stop, freeze=False, pile=pile)
            self.session.commit()
            return _loaded(item.load, pile)
        finally:
            if not self.session.broken:
                self.session.rollback()
                self.session.execute("SET session_replication_role = origin")


def _loaded(load: Load, pile: CutPile | None) -> Loaded:
    return Loaded(rows=load.data.rows, cuts=pile.take() if pile is not None else None)


def groups(layers: Iterable[Layer], done: int) -> Iterator[tuple[int, list[Layer]]]:
    """(place of the first, chunks) of each transaction, after those done. Pure."""
    group: list[Layer] = []
    start, size = done, 0
    for layer in islice(layers, done, None):
        group.append(layer)
        size += layer.chunk.length
        if size >= GROUP_BYTES:
            yield start, group
            start, size, group = start + len(group), 0, []
    if group:
        yield start, group


def copy_chunks(
    session: Session,
    repo: Repository,
    load: Load,
    stop: Stop,
    *,
    freeze: bool,
    layers: Sequence[Layer] | None = None,
    pile: CutPile | None = None,
) -> None:
    """COPY a table's chunks in, or some of them. `pile` notes the cuts of layers with dropped rows."""
    columns = f"({', '.join(quote_ident(c) for c in load.columns)})" if load.columns else ""
    _copy(session, repo, load, stop, f"{load.target.sql} {columns}", freeze=freeze, layers=layers, pile=pile)


def _copy(
    session: Session,
    repo: Repository,
    load: Load,
    stop: Stop,
    where: str,
    *,
    freeze: bool = False,
    layers: Sequence[Layer] | None = None,
    pile: CutPile | None = None,
) -> None:
    options = (_BINARY if load.data.binary else _TEXT) + (", FREEZE true" if freeze else "")
    with session.copy_in(f"COPY {where} FROM STDIN WITH ({options})") as copy:
        if load.data.binary:
            copy.write(BINARY_HEADER)
        for layer in load.data.layers if layers is None else layers:
            stop.check()
            pieces = repo.read_rows(layer)
            _send(copy, pieces if pile is None or layer.drops is None else pile.through(pieces), load.keep)
        if load.data.binary:
            copy.write(BINARY_TRAILER)


def copy_in_form(session: Session, repo: Repository, load: Load, stop: Stop) -> None:
    """Rows of before a table was altered, through a table beside it. In the caller's transaction."""
    form = load.form
    if form is None or not form.width:
        return
    beside = 'pg_temp."pgkura_form"'
    # A column that is gone is read as bytes, which any value is, in either form of COPY.
    gone = "NULL::pg_catalog.text" if not load.data.binary else "NULL::pg_catalog.bytea"
    shape = ", ".join(
        f"{quote_ident(name) if (name := form.new_name(place)) is not None else gone} AS c{place}"
        for place in range(form.width)
    )
    session.execute(
        f"CREATE TEMPORARY TABLE {beside} ON COMMIT DROP AS SELECT {shape} FROM ONLY {load.target.sql} WITH NO DATA"
    )
    _copy(session, repo, load, stop, beside)
    values = ", ".join(
        f"c{place}" if place is not None else "NULL" if value is None else quote_literal(value)
        for _, place, value in form.columns
    )
    names = ", ".join(map(quote_ident, form.names))
    if form.names:
        session.execute(
            f"INSERT INTO {load.target.sql} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {beside}"
        )
    session.execute(f"DROP TABLE {beside}")


def _send(copy: CopyWriter, pieces: Iterable[bytes], keep: Sequence[int]) -> None:
    if not keep:
        for piece in pieces:
            copy.write(piece)
        return
    for line in whole_lines(pieces):
        words = line.split(b"\t")
        copy.write(b"\t".join(words[n] for n in keep) + b"\n")


def whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Rows of COPY text without their newlines (a value never holds a raw one)."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def load_large_objects(
    session: Session,
    repo: Repository,
    blobs: TableData | None,
    oids: Sequence[int],
    stop: Stop,
    progress: Progress,
    told: bool,
) -> None:
    """Contents of large objects, made with their old numbers in one transaction; empty ones have no rows."""
    wanted = frozenset(oids)
    session.begin(isolation="read committed", read_only=False)
    session.rows("SELECT pg_catalog.lo_create(o) FROM pg_catalog.unnest(%s::oid[]) o", (list(oids),))
    for layer in blobs.layers if blobs is not None else ():
        stop.check()
        _put_chunk(session, repo, layer.chunk, wanted)
        progress.advance(layer.chunk.length)
    if told:
        ledger.note(session, BLOBS)
    session.commit()


def _put_chunk(session: Session, repo: Repository, ref: ChunkRef, wanted: frozenset[int]) -> None:
    for line in whole_lines(repo.read_chunk(ref)):
        oid, offset, data = line.split(b"\t")
        if int(oid) not in wanted:
            continue
        # COPY text doubles the backslash of bytea's \x form.
        piece = bytes.fromhex(data.removeprefix(b"\\\\x").decode("ascii"))
        session.execute("SELECT pg_catalog.lo_put(%s, %s, %s)", (int(oid), int(offset), piece))
