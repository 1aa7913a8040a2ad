"""Rows back into tables: one connection and one COPY per table."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pgkura.core.names import quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.progress import Progress
from pgkura.core.refs import ChunkRef
from pgkura.core.stop import Stop
from pgkura.postgres.session import BINARY_HEADER, BINARY_TRAILER, CopyWriter, Session, SqlError
from pgkura.repository.lists import TableData
from pgkura.repository.repository import Repository
from pgkura.restore.loads import Load
from pgkura.restore.paths import NAME_ERRORS, under_path

_TEXT = "FORMAT text, ENCODING 'UTF8'"
_BINARY = "FORMAT binary, ENCODING 'UTF8'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What one load did; `finding` when it could not; `by_path` when it took the source's search_path."""

    load: Load
    rows: int
    finding: Finding | None = None
    by_path: bool = False


def load_table(session: Session, repo: Repository, load: Load, stop: Stop, path: str = "") -> Loaded:
    """All rows of one table in one transaction. A failure of the server's becomes a finding, nothing half-loaded.

    `path`: a SET search_path to try once more with, for checks that name functions without a schema.
    """
    try:
        return Loaded(load=load, rows=_load(session, repo, load, stop))
    except SqlError as error:
        if session.broken:
            raise
        session.rollback()
        failed = error
    if path and failed.sqlstate in NAME_ERRORS:
        try:
            with under_path(session, path):
                return Loaded(load=load, rows=_load(session, repo, load, stop), by_path=True)
        except SqlError:
            if session.broken:
                raise
    cls = FindingClass.DENIED if failed.sqlstate == "42501" else FindingClass.LOST
    reason = f"its rows could not be loaded: {failed.msg}"
    return Loaded(load=load, rows=0, finding=Finding(cls=cls, object=f"rows of {load.target}", reason=reason))


def _load(session: Session, repo: Repository, load: Load, stop: Stop) -> int:
    return (_load_managed if load.managed else _load_own)(session, repo, load, stop)


def _load_own(session: Session, repo: Repository, load: Load, stop: Stop) -> int:
    facts = load.facts
    alone = facts is not None and facts.kind == "r" and not facts.load_root and load.delete_where is None
    session.begin(isolation="read committed", read_only=False)
    if load.delete_where is not None:
        # Rows that CREATE EXTENSION put there itself; the condition is the extension's own.
        session.execute(f"DELETE FROM ONLY {load.target.sql} {load.delete_where}")
    elif alone:
        # Truncating in the same transaction lets COPY write frozen rows, and makes a repeated load harmless.
        session.execute(f"TRUNCATE ONLY {load.target.sql}")
    rows = copy_chunks(session, repo, load, stop, freeze=alone)
    session.commit()
    return rows


def _load_managed(session: Session, repo: Repository, load: Load, stop: Stop) -> int:
    session.replica_role()
    try:
        session.begin(isolation="read committed", read_only=False)
        rows = copy_chunks(session, repo, load, stop, freeze=False)
        session.commit()
        return rows
    finally:
        if not session.broken:
            session.rollback()
            session.execute("SET session_replication_role = origin")


def copy_chunks(session: Session, repo: Repository, load: Load, stop: Stop, *, freeze: bool) -> int:
    """COPY a table's chunks in; returns the rows sent."""
    columns = f"({', '.join(quote_ident(c) for c in load.columns)})" if load.columns else ""
    options = (_BINARY if load.data.binary else _TEXT) + (", FREEZE true" if freeze else "")
    with session.copy_in(f"COPY {load.target.sql} {columns} FROM STDIN WITH ({options})") as copy:
        if load.data.binary:
            copy.write(BINARY_HEADER)
        for layer in load.data.layers:
            stop.check()
            _send(copy, repo.read_rows(layer), load.keep)
        if load.data.binary:
            copy.write(BINARY_TRAILER)
    return load.data.rows


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
    session: Session, repo: Repository, blobs: TableData | None, oids: Sequence[int], stop: Stop, progress: Progress
) -> None:
    """Contents of large objects, made with their old numbers in one transaction; empty ones have no rows."""
    wanted = frozenset(oids)
    session.begin(isolation="read committed", read_only=False)
    session.rows("SELECT pg_catalog.lo_create(o) FROM pg_catalog.unnest(%s::oid[]) o", (list(oids),))
    for layer in blobs.layers if blobs is not None else ():
        stop.check()
        _put_chunk(session, repo, layer.chunk, wanted)
        progress.advance(layer.chunk.length)
    session.commit()


def _put_chunk(session: Session, repo: Repository, ref: ChunkRef, wanted: frozenset[int]) -> None:
    for line in whole_lines(repo.read_chunk(ref)):
        oid, offset, data = line.split(b"\t")
        if int(oid) not in wanted:
            continue
        # COPY text doubles the backslash of bytea's \x form.
        piece = bytes.fromhex(data.removeprefix(b"\\\\x").decode("ascii"))
        session.execute("SELECT pg_catalog.lo_put(%s, %s, %s)", (int(oid), int(offset), piece))
