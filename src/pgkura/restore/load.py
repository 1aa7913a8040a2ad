"""Rows back into tables: small ones share a transaction, the parts of a large one take one each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pgkura.core.errors import PlanOutdated
from pgkura.core.names import quote_ident, quote_literal
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.progress import Progress
from pgkura.core.refs import ChunkRef, Layer
from pgkura.core.stop import Stop
from pgkura.postgres.messages import BINARY_HEADER, BINARY_TRAILER
from pgkura.postgres.sending import CopyWriter
from pgkura.postgres.session import Session, SqlError
from pgkura.repository.cuts import CutPile, Cuts
from pgkura.repository.lists import BLOBS, TableData
from pgkura.repository.repository import Repository
from pgkura.repository.rowsums import Multiset, RowHasher
from pgkura.repository.sums import summed
from pgkura.restore import ledger
from pgkura.restore.ledger import Place
from pgkura.restore.loads import Load
from pgkura.restore.paths import NAME_ERRORS, under_path

_TEXT = "FORMAT text, ENCODING 'UTF8'"
_BINARY = "FORMAT binary, ENCODING 'UTF8'"


def _unheard(count: int) -> None:
    """Nobody wants to know how many bytes went."""


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
        return self.load.plain and self.load.first is None

    @property
    def frozen(self) -> bool:
        """It can be loaded so that no reader ever asks for its rows' transaction."""
        return self.load.plain and self.truncate


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What one load did; `finding` when it could not; `by_path` when it took the source's search_path.

    cuts  of the layers that were read, for the proof that follows; None = not known
    sums  of the rows that were sent, of a part of a table
    """

    rows: int
    finding: Finding | None = None
    by_path: bool = False
    cuts: Cuts | None = None
    sums: Multiset | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Loads on one connection.

    ledger  what is loaded is told in the target, and what is told is not loaded again
    epoch   of the snapshot: its key is that of the cuts; 0 = none are wanted
    sent    told of plain bytes as they go
    draw    of this restore alone: the sums of rows are made under a key that follows from it
    """

    session: Session
    repo: Repository
    stop: Stop
    ledger: bool
    epoch: int = 0
    draw: str = ""
    sent: Callable[[int], None] = _unheard

    def together(self, items: Sequence[Item]) -> list[Loaded]:
        """Small tables in one transaction; each by itself where that fails. Parts of a table one after the other."""
        if items[0].load.first is not None:
            return list(self._parts(items))
        if len(items) > 1:
            try:
                return self._in_one(items)
            except SqlError:
                if self.session.broken:
                    raise
                self.session.rollback()
        return [self.table(item) for item in items]

    def _parts(self, items: Sequence[Item]) -> Iterator[Loaded]:
        """Where one cannot be loaded the table stays empty: the others are needless."""
        failed = False
        for item in items:
            loaded = self.table(item) if not failed else Loaded(rows=0)
            failed = failed or loaded.finding is not None
            yield loaded

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
        return Loaded(rows=0, finding=_not_loaded(load, failed))

    def _load(self, item: Item) -> Loaded:
        if item.load.managed:
            return self._managed(item)
        return self._in_one([item])[0]

    def _in_one(self, items: Sequence[Item]) -> list[Loaded]:
        self.session.begin(isolation="read committed", read_only=False)
        left = self._claim([item.load for item in items])
        notes = [self._notes(item.load) if load is item.load else None for item, load in zip(items, left, strict=True)]
        for item, load, noted in zip(items, left, notes, strict=True):
            if load is not None:
                if item.frozen:
                    self._empty(load)
                self._rows(replace(item, load=load), noted)
        self.session.commit()
        return [_loaded(item.load, noted) for item, noted in zip(items, notes, strict=True)]

    def _notes(self, load: Load) -> "Notes":
        """For the proof: sums of a part's rows, else the cuts of a table whose stored rows come in one stream."""
        if not self.epoch or load.keep or load.form is not None or (load.facts is not None and load.facts.load_root):
            return Notes()
        if load.first is not None:
            return Notes(sums=RowHasher(self.repo.row_key(self.epoch, self.draw)))
        return Notes(pile=CutPile(lambda: self.repo.chunk_hasher(self.epoch)))

    def _claim(self, loads: Sequence[Load]) -> list[Load | None]:
        """Of each what is not loaded yet, itself where that is all; None: nothing."""
        if not self.ledger:
            return list(loads)
        new = ledger.claim(self.session, [(load.place, len(load.data.layers)) for load in loads])
        return [_left(load, new) for load in loads]

    def _empty(self, load: Load) -> None:
        """Truncating in the same transaction lets COPY write frozen rows, and makes a repeated load harmless. Nothing
        that the ledger tells of may go by it."""
        self.session.execute(f"TRUNCATE ONLY {load.target.sql}")
        # Counted once the table is ours alone: whoever wrote to it until then has told of it by now.
        if self.ledger and ledger.count(self.session, load.data.number) > len(load.data.layers):
            raise PlanOutdated(
                "another restore loads rows into this target",
                hint="let it end, or end its connections, and run this again",
            )

    def _rows(self, item: Item, notes: "Notes | None") -> None:
        load = item.load
        if load.form is not None:
            if item.truncate:
                self.session.execute(f"TRUNCATE ONLY {load.target.sql}")
            copy_in_form(self.session, self.repo, load, self.stop, self.sent)
            return
        if load.delete_where is not None:
            # Rows that CREATE EXTENSION put there itself; the condition is the extension's own.
            self.session.execute(f"DELETE FROM ONLY {load.target.sql} {load.delete_where}")
        copy_chunks(self.session, self.repo, load, self.stop, self.sent, freeze=item.frozen, notes=notes)

    def _managed(self, item: Item) -> Loaded:
        self.session.replica_role()
        notes = None
        try:
            self.session.begin(isolation="read committed", read_only=False)
            (load,) = self._claim([item.load])
            if load is not None:
                notes = self._notes(load) if load is item.load else None
                copy_chunks(self.session, self.repo, load, self.stop, self.sent, freeze=False, notes=notes)
            self.session.commit()
            return _loaded(item.load, notes)
        finally:
            if not self.session.broken:
                self.session.rollback()
                self.session.execute("SET session_replication_role = origin")


def _left(load: Load, new: frozenset[Place]) -> Load | None:
    """What these chunks are of it: all, some, or none. Pure."""
    number, first = load.place
    places = [place for place in range(first, first + len(load.data.layers)) if (number, place) in new]
    if len(places) == len(load.data.layers):
        return load
    if not places:
        return None
    layers = tuple(layer for place, layer in enumerate(load.data.layers, first) if (number, place) in new)
    return replace(load, data=replace(load.data, layers=layers))


def _not_loaded(load: Load, error: SqlError) -> Finding:
    cls = FindingClass.DENIED if error.sqlstate == "42501" else FindingClass.LOST
    reason = f"its rows could not be loaded: {error.msg}"
    if load.absent:
        names = ", ".join(map(quote_ident, load.absent))
        reason += f"; the snapshot has no values of {names} to load with them; `pgkura export` gives the rows"
    return Finding(cls=cls, object=f"rows of {load.target}", reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What the proof wants to know of rows that go by: the cuts of layers with dropped rows, or the sums of all."""

    pile: CutPile | None = None
    sums: RowHasher | None = None


def _loaded(load: Load, notes: Notes | None) -> Loaded:
    if notes is None:
        return Loaded(rows=load.data.rows)
    return Loaded(
        rows=load.data.rows,
        cuts=notes.pile.take() if notes.pile is not None else None,
        sums=notes.sums.result() if notes.sums is not None else None,
    )


def copy_chunks(
    session: Session,
    repo: Repository,
    load: Load,
    stop: Stop,
    sent: Callable[[int], None] = _unheard,
    *,
    freeze: bool,
    notes: Notes | None = None,
) -> None:
    """COPY a table's chunks in, or some of them."""
    names = ", ".join(map(quote_ident, (*load.columns, *load.absent)))
    columns = f"({names})" if names else ""
    _copy(session, repo, load, stop, sent, f"{load.target.sql} {columns}", freeze=freeze, notes=notes)


def _copy(
    session: Session,
    repo: Repository,
    load: Load,
    stop: Stop,
    sent: Callable[[int], None],
    where: str,
    *,
    freeze: bool = False,
    notes: Notes | None = None,
) -> None:
    options = (_BINARY if load.data.binary else _TEXT) + (", FREEZE true" if freeze else "")
    with session.copy_in(f"COPY {where} FROM STDIN WITH ({options})") as copy:
        if load.data.binary:
            copy.write(BINARY_HEADER)
        for layer in load.data.layers:
            stop.check()
            _send(copy, _noted(repo, layer, load.data.binary, notes or Notes()), load)
            sent(layer.chunk.length)
        if load.data.binary:
            copy.write(BINARY_TRAILER)


def _noted(repo: Repository, layer: Layer, binary: bool, notes: Notes) -> Iterable[bytes]:
    pieces = repo.read_rows(layer)
    if notes.sums is not None:
        return summed(pieces, repo.read_sizes(layer) if binary else None, notes.sums)
    if notes.pile is not None and layer.drops is not None:
        return notes.pile.through(pieces)
    return pieces


def copy_in_form(session: Session, repo: Repository, load: Load, stop: Stop, sent: Callable[[int], None]) -> None:
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
    _copy(session, repo, load, stop, sent, beside)
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


def _send(copy: CopyWriter, pieces: Iterable[bytes], load: Load) -> None:
    end = b"\t\\N" * len(load.absent) + b"\n"
    if not load.keep:
        for piece in pieces:
            copy.write(piece.replace(b"\n", end) if load.absent else piece)
        return
    for line in whole_lines(pieces):
        words = line.split(b"\t")
        copy.write(b"\t".join(words[n] for n in load.keep) + end)


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
