"""One connection. All SQL of the product passes through here; driver errors leave as SqlError with their SQLSTATE."""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import pq

from pgkura.core.errors import UNTRANSLATABLE_HINT, DatabaseError
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.messages import CopyBatch
from pgkura.postgres.receiving import ROOM, Broken, Refused, Rows, Wire, by_libpq, plain
from pgkura.postgres.sending import CopyWriter, copy_writer

Answer = list[tuple[Any, ...]]
_GIVEN_UP = b"given up by pgkura"
# Text that is not valid in an encoding, or has no equivalent in the other one.
NOT_IN_REPERTOIRE = "22021"
UNTRANSLATABLE = frozenset({NOT_IN_REPERTOIRE, "22P05"})


class SqlError(DatabaseError):
    """A statement failed. `sqlstate` is the server's five-character code ('' when the connection broke)."""

    def __init__(self, msg: str, *, detail: str = "", hint: str = "", sqlstate: str = "") -> None:
        super().__init__(msg, detail=detail, hint=hint)
        self.sqlstate = sqlstate

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_sql_error, (self.msg, self.detail, self.hint, self.sqlstate))


def _rebuild_sql_error(msg: str, detail: str, hint: str, sqlstate: str) -> SqlError:
    return SqlError(msg, detail=detail, hint=hint, sqlstate=sqlstate)


class Session:
    """One pinned server connection; autocommit unless `begin` was called. Use from one thread, but `cancel`.

    `pid` is the server process's, asked of the server: poolers announce a number of their own, which is how an
    unannounced one is recognized (`pooled`).
    """

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], endpoint: Endpoint) -> None:
        self._connection = connection
        self.endpoint = endpoint
        self._ask: Callable[[Callable[[], Answer]], Answer] | None = None
        self.nested = 0  # savepoints open now
        self.early = False  # looks for deadlocks before others do
        self.pid: int = self.one("SELECT pg_catalog.pg_backend_pid()")[0]
        self.pooled: bool = bool(endpoint.pooler) or self.pid != connection.info.backend_pid
        self._roomy = False
        self._plain: bool | None = None
        self._wire: Wire | None = None
        self.server_version: int = connection.info.server_version

    def rows(self, sql: str, params: Sequence[Any] = ()) -> Answer:
        """All rows of one statement; `%s` placeholders only when `params` are given."""
        return self._ask(lambda: self._rows(sql, params)) if self._ask else self._rows(sql, params)

    def asked_by(self, ask: Callable[[Callable[[], Answer]], Answer] | None) -> None:
        """From now on `rows` and `one` are carried out by `ask`, which may repeat them; None: at once, as usual."""
        self._ask = ask

    def _rows(self, sql: str, params: Sequence[Any]) -> Answer:
        with _translated(sql):
            cursor = self._connection.execute(sql.encode(), params or None)
            return cursor.fetchall() if cursor.description is not None else []

    def binary_rows(self, sql: str) -> list[tuple[Any, ...]]:
        """As `rows`, but values travel in binary form: bytea at half the size."""
        with _translated(sql):
            return self._connection.cursor(binary=True).execute(sql.encode()).fetchall()

    def one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...]:
        """The single row of a statement. Raises SqlError when there is not exactly one."""
        found = self.rows(sql, params)
        if len(found) != 1:
            raise SqlError(f"expected one row, got {len(found)}", detail=_short(sql))
        return found[0]

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it touched (-1 where that has no meaning)."""
        with _translated(sql):
            return self._connection.execute(sql.encode(), params or None).rowcount

    def stream(self, sql: str, params: Sequence[Any] = (), *, size: int = 2000) -> Iterator[tuple[Any, ...]]:
        """Rows of a large result with bounded memory, in one round trip; `size` at a time where the driver can."""
        at_once = size if psycopg.capabilities.has_stream_chunked() else 1
        with _translated(sql), self._connection.cursor() as cursor:
            yield from cursor.stream(sql.encode(), params or None, size=at_once)

    def script(self, text: str) -> None:
        """Several statements by the simple protocol, in one round trip: one implicit transaction unless one is open."""
        with _translated(text):
            result = self._connection.pgconn.exec_(text.encode())
        if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY):
            raise self._failed(result, text)

    def begin(self, isolation: str = "repeatable read", *, read_only: bool = True) -> None:
        """Open a transaction. No snapshot is taken until the first query (LOCK TABLE takes none)."""
        mode = "READ ONLY" if read_only else "READ WRITE"
        self.execute(f"BEGIN ISOLATION LEVEL {isolation.upper()} {mode}")

    def adopt(self, snapshot: str) -> None:
        """Open a repeatable-read transaction at an exported snapshot."""
        if not re.fullmatch(r"[0-9A-F]+-[0-9A-F]+-[0-9]+", snapshot):
            raise SqlError(f"not a snapshot id: {snapshot!r}")
        self.script(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'")

    def commit(self) -> None:
        """End the transaction; raises SqlError when the server turned it into a rollback."""
        if self._connection.info.transaction_status == pq.TransactionStatus.INERROR:
            self.rollback()
            raise SqlError("the transaction had failed and was rolled back", sqlstate="25P02")
        self.execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction, undoing it; quiet when there is none."""
        if self._connection.info.transaction_status not in (pq.TransactionStatus.IDLE, pq.TransactionStatus.UNKNOWN):
            self.execute("ROLLBACK")

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.info.transaction_status != pq.TransactionStatus.IDLE

    @property
    def broken(self) -> bool:
        """Whether the connection is gone."""
        return bool(self._connection.closed or self._connection.broken)

    @contextmanager
    def savepoint(self, name: str = "pgkura") -> Iterator[None]:
        """A part of a transaction that may fail alone."""
        self.execute(f"SAVEPOINT {name}")
        self.nested += 1
        try:
            yield
        except SqlError:
            if not self.broken:
                self.execute(f"ROLLBACK TO SAVEPOINT {name}")
                self.execute(f"RELEASE SAVEPOINT {name}")
            raise
        finally:
            self.nested -= 1
        self.execute(f"RELEASE SAVEPOINT {name}")

    @contextmanager
    def given_back(self, name: str = "pgkura") -> Iterator[None]:
        """A part of a transaction that only reads, and may fail alone. The locks that it took are given back: one for
        each table and index of thousands would use up the server's."""
        self.execute(f"SAVEPOINT {name}")
        try:
            yield
        finally:
            if not self.broken:
                self.script(f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}")

    def replica_role(self) -> None:
        """Triggers and FK checks off for this session. A plain SET: hosted platforms hook exactly that statement."""
        self.execute("SET session_replication_role = replica")

    def copy_out(self, sql: str, *, binary: bool = False) -> Generator[CopyBatch, None, None]:
        """Rows of a COPY … TO STDOUT in batches of 256 KiB and more, by the cheapest receive path.

        `binary`: the statement asks for FORMAT binary.

        Abandoning the iterator early cancels the statement. Raises SqlError when the server ends it with an error,
        also after rows were delivered: nothing may be kept before the iterator is exhausted.
        """
        wire = self.wire()
        if wire is not None:
            return self._copy_by_wire(wire, sql, Rows(binary=binary))
        return self._copy_by_libpq(self._connection.pgconn, sql, Rows(binary=binary))

    def wire(self) -> Wire | None:
        """The connection's socket, to read answers past the driver; None where it is encrypted."""
        pgconn = self._connection.pgconn
        if self._plain is None:
            self._plain = plain(pgconn)
        if not self._plain or pgconn.flush():
            return None
        if self._wire is None:
            self._wire = Wire(pgconn)
        return self._wire

    @contextmanager
    def wire_errors(self, sql: str) -> Iterator[None]:
        """What a wire raises, as SqlError."""
        try:
            yield
        except Refused as refused:
            self._connection.pgconn.exec_(b"")  # libpq learns what has become of the transaction
            raise _server_error(refused.field("M"), refused.field("C"), refused.field("W"), sql) from None
        except (Broken, OSError) as error:
            self.close()
            raise SqlError("the connection broke", detail=f"{' '.join(str(error).split())}; {_short(sql)}") from None

    def leave(self, wire: Wire) -> None:
        """Cancel what was not read to its end, if anything."""
        if wire.at_rest or self.broken:
            return
        self.cancel()
        try:
            wire.drain()
            self._connection.pgconn.exec_(b"")
        except (Broken, OSError, psycopg.Error):
            self.close()

    def _copy_by_wire(self, wire: Wire, sql: str, rows: Rows) -> Generator[CopyBatch, None, None]:
        try:
            with self.wire_errors(sql):
                yield from wire.copy(sql, rows)
        finally:
            self.leave(wire)

    def _copy_by_libpq(self, pgconn: pq.abc.PGconn, sql: str, rows: Rows) -> Generator[CopyBatch, None, None]:
        if not self._roomy:
            # libpq's buffer grows to the largest row and stays so: from then on one system call brings a megabyte.
            self.execute(f"SELECT pg_catalog.repeat('x', {ROOM})")
            self._roomy = True
        begun = pgconn.exec_(sql.encode())
        if begun.status != pq.ExecStatus.COPY_OUT:
            raise self._failed(begun, sql)
        finished = False
        try:
            yield from by_libpq(pgconn, rows)
            finished = True
        except psycopg.Error as error:
            # A server process ended while its sending was held up has no way to say so: the connection just breaks.
            raise SqlError("the connection broke", detail=f"{' '.join(str(error).split())}; {_short(sql)}") from None
        except Broken as error:
            self.close()
            raise SqlError(str(error), detail=_short(sql)) from None
        finally:
            if not finished and not self.broken:
                self.cancel()
                self._drain(pgconn)
        self._finish(pgconn, sql)

    def _drain(self, pgconn: pq.abc.PGconn) -> None:
        """Read away what a cancelled COPY still sends, so that the connection can be used again."""
        try:
            while pgconn.get_copy_data(0)[0] > 0:
                pass
        except psycopg.Error:
            pass  # the cancellation itself
        while pgconn.get_result() is not None:
            pass

    def _finish(self, pgconn: pq.abc.PGconn, sql: str) -> None:
        failed: pq.abc.PGresult | None = None
        while (result := pgconn.get_result()) is not None:
            if result.status != pq.ExecStatus.COMMAND_OK and failed is None:
                failed = result
        if failed is not None:
            raise self._failed(failed, sql)

    def copy_in(self, sql: str) -> AbstractContextManager[CopyWriter]:
        """A running COPY … FROM STDIN: write bytes inside the `with`; leaving it finishes the statement.

        An exception inside aborts the COPY. Raises SqlError with the server's message and line.
        """
        return self._copy_in(sql)

    @contextmanager
    def _copy_in(self, sql: str) -> Iterator[CopyWriter]:
        pgconn = self._connection.pgconn
        begun = pgconn.exec_(sql.encode())
        if begun.status != pq.ExecStatus.COPY_IN:
            raise self._failed(begun, sql)
        with copy_writer(pgconn) as writer:
            try:
                yield writer
            except (Broken, psycopg.Error) as error:
                raise self._broke(pgconn, sql, error) from None
            except BaseException:
                if writer.whole:
                    self._abort_copy(pgconn)
                else:
                    self.close()  # the server waits for the rest of a message
                raise
        try:
            pgconn.put_copy_end()
        except psycopg.Error as error:
            raise SqlError(_short(sql), detail=str(error).strip()) from error
        self._finish(pgconn, sql)

    def _broke(self, pgconn: pq.abc.PGconn, sql: str, error: Exception) -> SqlError:
        """In the server's words, where it said something before it went: that lies with libpq."""
        try:
            pgconn.put_copy_end(_GIVEN_UP)
            while (result := pgconn.get_result()) is not None:
                if result.error_field(pq.DiagnosticField.SQLSTATE):
                    return self._failed(result, sql)
        except psycopg.Error:
            pass  # it is gone
        finally:
            self.close()
        return SqlError("the connection broke", detail=f"{' '.join(str(error).split())}; {_short(sql)}")

    def _abort_copy(self, pgconn: pq.abc.PGconn) -> None:
        try:
            pgconn.put_copy_end(_GIVEN_UP)
            while pgconn.get_result() is not None:
                pass
        except psycopg.Error:
            self.close()

    def _failed(self, result: pq.abc.PGresult, sql: str) -> SqlError:
        code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        primary = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
        context = (result.error_field(pq.DiagnosticField.CONTEXT) or b"").decode(errors="replace")
        return _server_error(primary or result.error_message.decode(errors="replace").strip(), code, context, sql)

    def cancel(self) -> None:
        """Ask the server to stop the running statement. Safe from another thread."""
        try:
            self._connection.cancel_safe(timeout=5)
        except psycopg.Error:
            self.close()

    def close(self) -> None:
        """Close; idempotent."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _translated(sql: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        diagnosis = error.diag
        context = _location(diagnosis.context or "")
        raise SqlError(
            (diagnosis.message_primary or str(error).strip() or type(error).__name__),
            detail="; ".join(part for part in (context, _short(sql)) if part),
            hint=_hint(error.sqlstate or ""),
            sqlstate=error.sqlstate or "",
        ) from None
    except UnicodeDecodeError:
        # A name that all databases share, kept in the encoding of the one it was made in: this one's server sends it
        # as it is. The error names no byte of it.
        raise SqlError(
            "the server sent text that is not UTF-8",
            detail=_short(sql),
            hint=_hint(NOT_IN_REPERTOIRE),
            sqlstate=NOT_IN_REPERTOIRE,
        ) from None


def _server_error(message: str, code: str, context: str, sql: str) -> SqlError:
    return SqlError(
        message or "the server gave no reason",
        detail="; ".join(part for part in (_location(context), _short(sql)) if part),
        hint=_hint(code),
        sqlstate=code,
    )


def _hint(code: str) -> str:
    return UNTRANSLATABLE_HINT if code in UNTRANSLATABLE else ""


_COPY_LINE = re.compile(r"COPY (.+), line (\d+)(?:, column ([^:]+))?")


def _location(context: str) -> str:
    """The place in a COPY, without the value: row values never enter an error."""
    found = _COPY_LINE.search(context)
    if found is None:
        return ""
    where = f"COPY {found[1]}, line {found[2]}"
    return where + (f", column {found[3]}" if found[3] else "")


def _short(sql: str) -> str:
    """The beginning of a statement, one line, without literals (they may be secrets)."""
    one_line = re.sub(r"'(?:[^']|'')*'", "'…'", " ".join(sql.split()))
    return one_line if len(one_line) <= 160 else one_line[:157] + "…"
