"""Opening a connection on which every value prints the same way, whatever the role, the database or a pooler set."""

import psycopg

from pgkura.core.errors import DatabaseError
from pgkura.core.names import quote_literal
from pgkura.postgres.endpoint import Endpoint, refuse_transaction_pooler, transaction_pooler
from pgkura.postgres.failures import connection_failure
from pgkura.postgres.session import Session, SqlError

CONNECT_TIMEOUT_SECONDS = 15
_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
}

# row_security first: without it a role that is subject to policies would silently read a part of the rows.
# search_path empties the way for tenants' functions and operators; the rest pins how values print.
PINNED: tuple[tuple[str, str], ...] = (
    ("row_security", "off"),
    ("search_path", ""),
    ("client_encoding", "UTF8"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("xmloption", "content"),
    ("lc_monetary", "C"),
    ("standard_conforming_strings", "on"),
    ("escape_string_warning", "off"),
    ("check_function_bodies", "off"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("synchronize_seqscans", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("client_min_messages", "warning"),
    ("quote_all_identifiers", "off"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    ("jit", "off"),
)
_SINCE = {"idle_session_timeout": 140000, "transaction_timeout": 170000}
# Of two that wait for each other the server ends who looks first: that shall be us, where the role may say so.
EARLY_MS = 1
# Only superusers (or holders of SET on the parameter) may set it; its default is what is wanted anyway.
_MAY_BE_REFUSED = "SET session_replication_role = origin"
_ROUNDS = 3
_KEEP_A_SESSION: set[str] = set()


def connect(endpoint: Endpoint, *, application_name: str, statement_timeout: int = 0) -> Session:
    """A pinned session. `statement_timeout` in milliseconds, 0 = none.

    Raises DatabaseError with a plain reason, UsageError for a transaction-mode pooler.
    """
    refuse_transaction_pooler(endpoint)
    connection = _open(endpoint, application_name)
    try:
        session = Session(connection, endpoint)
        # Settings made through a pooler that shares its server connections would reach the application.
        if session.pooled:
            _require_own_server_process(session)
        _pin(session, application_name, statement_timeout)
    except BaseException:
        connection.close()
        raise
    return session


def _open(endpoint: Endpoint, application_name: str) -> psycopg.Connection[tuple[object, ...]]:
    try:
        connection = psycopg.connect(
            endpoint.conninfo(application_name=application_name, **_KEEPALIVES), autocommit=True
        )
    except psycopg.Error as error:
        raise connection_failure(endpoint, error) from None
    # Without this the driver prepares what is run often, which poolers may not carry over.
    connection.prepare_threshold = None
    return connection


def _require_own_server_process(session: Session) -> None:
    """Raises UsageError if the pooler hands this client's server process to another client between statements.

    A second client opens a transaction while the first is idle: a pooler in transaction mode gives it the process
    that the first has just used, or gives the first another one afterwards. Done before anything is set.
    """
    if session.endpoint.display in _KEEP_A_SESSION:
        return
    other = _open(session.endpoint, "pgkura pooler check")
    try:
        second = Session(other, session.endpoint)
        for _ in range(_ROUNDS):
            if _shared(session, second):
                raise transaction_pooler(session.endpoint)
    except SqlError as error:
        raise DatabaseError(
            f"the pooler at {session.endpoint.display} refuses transactions",
            detail=str(error),
            hint="use the session pooler or the direct host",
        ) from None
    finally:
        other.close()
    _KEEP_A_SESSION.add(session.endpoint.display)


def _shared(first: Session, second: Session) -> bool:
    ask = "SELECT pg_catalog.pg_backend_pid()"
    second.begin()
    try:
        seconds, firsts = second.one(ask)[0], first.one(ask)[0]
        return bool(seconds == first.pid or firsts != first.pid)
    finally:
        second.rollback()


def rename(session: Session, application_name: str) -> None:
    """What the connection is for from now on."""
    session.execute(f"SET application_name = {quote_literal(application_name)}")


def _pin(session: Session, application_name: str, statement_timeout: int) -> None:
    settings = dict(PINNED) | {"statement_timeout": str(statement_timeout)}
    # Poolers put their own name in place of the one given at the start.
    settings["application_name"] = application_name
    settings |= {name: "0" for name, since in _SINCE.items() if session.server_version >= since}
    session.script("; ".join(f"SET {name} = {quote_literal(value)}" for name, value in settings.items()))
    may = "pg_catalog.current_setting('is_superuser') = 'on'"
    if session.server_version >= 150000:
        may = f"({may} OR pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET'))"
    # One question: a server may be far away, and a run opens several connections one after the other.
    pid, path, role, early = session.one(
        "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('search_path'), "
        "pg_catalog.current_setting('session_replication_role'), "
        f"CASE WHEN {may} THEN pg_catalog.set_config('deadlock_timeout', '{EARLY_MS}ms', false) END"
    )
    session.early = early is not None
    if pid != session.pid or path not in ("", '""'):
        raise transaction_pooler(session.endpoint)
    if role != "origin":
        _reset_replication_role(session)


def _reset_replication_role(session: Session) -> None:
    """Somebody set it for this role or database. By SET: hosted platforms let that pass, and `set_config` not."""
    try:
        session.execute(_MAY_BE_REFUSED)
    except SqlError as error:
        if error.sqlstate != "42501":
            raise
