"""One connection. All SQL of the product passes through here; driver errors leave as SqlError with their SQLSTATE."""

import os
import re
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from threading import Lock
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import pq

from pgkura.core.errors import UNTRANSLATABLE_HINT, DatabaseError
from pgkura.postgres.answers import Broken, Refused, Rows, plain
from pgkura.postgres.encrypted import Encrypted
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.messages import CopyBatch
from pgkura.postgres.receiving import Wire
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
        self._answered: Wire | Encrypted | None = None
        self._closing = Lock()
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
            raise _refusal(Refused.by_libpq(result), text)

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
        with closing(self.copy_several([sql], binary=binary)) as answers:
            for batch in answers:
                if batch is not None:
                    yield batch

    def copy_several(
        self, statements: Sequence[str], *, binary: bool = False
    ) -> Generator[CopyBatch | None, None, None]:
        """The same of several COPYs sent as one query: None after the rows of each."""
        reader = self._reader()
        ended = 0
        try:
            with closing(reader.copy("; ".join(statements), Rows(binary=binary))) as answers:
                for batch in answers:
                    ended += batch is None
                    yield batch
        except Refused as refused:
            reader.tell()
            raise _refusal(refused, statements[min(ended, len(statements) - 1)]) from None
        except (Broken, OSError, psycopg.Error) as error:
            # A server process ended while its sending was held up has no way to say so: the connection just breaks.
            self.close()
            raise _break(error, statements[min(ended, len(statements) - 1)]) from None
        finally:
            self._leave(reader)

    def _reader(self) -> Wire | Encrypted:
        if self._answered is None:
            pgconn = self._connection.pgconn
            self._answered = Wire(pgconn) if plain(pgconn) else Encrypted(pgconn)
        return self._answered

    def _leave(self, reader: Wire | Encrypted) -> None:
        """Cancel what was not read to its end, if anything."""
        if reader.at_rest or self.broken:
            return
        self.cancel()
        try:
            reader.drain()
        except (Broken, OSError, psycopg.Error):
            self.close()

    def _finish(self, pgconn: pq.abc.PGconn, sql: str) -> None:
        failed: pq.abc.PGresult | None = None
        while (result := pgconn.get_result()) is not None:
            if result.status != pq.ExecStatus.COMMAND_OK and failed is None:
                failed = result
        if failed is not None:
            raise _refusal(Refused.by_libpq(failed), sql)

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
            raise _refusal(Refused.by_libpq(begun), sql)
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
                    return _refusal(Refused.by_libpq(result), sql)
        except psycopg.Error:
            pass  # it is gone
        finally:
            self.close()
        return _break(error, sql)

    def _abort_copy(self, pgconn: pq.abc.PGconn) -> None:
        try:
            pgconn.put_copy_end(_GIVEN_UP)
            while pgconn.get_result() is not None:
                pass
        except psycopg.Error:
            self.close()

    def cancel(self) -> None:
        """Ask the server to stop the running statement. Safe from another thread."""
        try:
            self._connection.cancel_safe(timeout=5)
        except psycopg.Error:
            self.hang_up()

    def hang_up(self) -> None:
        """End the connection under its thread, which finds it broken. Safe from another thread, unlike `close`: that
        frees what a running call of the driver uses."""
        with (
            self._closing,
            suppress(psycopg.Error, OSError),
            socket.socket(fileno=os.dup(self._connection.pgconn.socket)) as connection,
        ):
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close; idempotent. By its own thread, or when that has ended."""
        with self._closing:
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


def _refusal(refused: Refused, sql: str) -> SqlError:
    return SqlError(
        refused.message or "the server gave no reason",
        detail="; ".join(part for part in (_location(refused.context), _short(sql)) if part),
        hint=_hint(refused.sqlstate),
        sqlstate=refused.sqlstate,
    )


def _break(error: Exception, sql: str) -> SqlError:
    return SqlError("the connection broke", detail=f"{' '.join(str(error).split())}; {_short(sql)}")


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
