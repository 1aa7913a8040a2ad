"""Rows from the server by all receive paths: as another reader gets them; errors, ends and early leaving."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from tests.support.cli import ROOT
from tests.support.servers import newest, server, versions

from pgkura.postgres import libpq
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session, SqlError

MIB = 1024 * 1024
TABLES = {
    "small": "SELECT i, 'd'::char AS d, NULL::int AS n FROM generate_series(1, 70000) i",
    "lures": "SELECT 25600 AS a, decode('6400000064000000640000', 'hex') AS b, i FROM generate_series(1, 40000) i",
    "large": "SELECT i, repeat(md5(i::text), 3000) AS t FROM generate_series(1, 60) i",
    "mixed": "SELECT i, repeat('x', (i * 7919) % 90000) AS t FROM generate_series(1, 800) i",
    "huge": "SELECT repeat('Wörter und\\', 2000000) AS t FROM generate_series(1, 2)",
    "none": "SELECT 1 AS a WHERE false",
    "bare": "SELECT FROM generate_series(1, 5)",
}


@pytest.fixture(params=["socket", "libpq", "driver"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """On a plain connection, or the way an encrypted one goes: by the compiled part, or row by row without it."""
    if request.param != "socket":
        monkeypatch.setattr("pgkura.postgres.session.plain", lambda pgconn: False)
        monkeypatch.setattr("pgkura.postgres.sending.plain", lambda pgconn: False)
    if request.param == "driver":
        monkeypatch.setattr("pgkura.postgres.libpq.compiled", None)
    return str(request.param)


@pytest.fixture
def session(path: str) -> Iterator[Session]:
    """To a database of its own."""
    url = newest().create_database(f"copy_out_{path}")
    with connect(Endpoint.parse(url), application_name="copy out") as made:
        yield made


@pytest.mark.parametrize("version", versions())
def test_the_same_bytes_as_another_reader_gets(version: int, path: str) -> None:
    """Text and binary, one table after the other on one connection."""
    url = server(version).create_database(f"copy_bytes_{path}_{version}")
    with connect(Endpoint.parse(url), application_name="copy out") as session:
        for name, query in TABLES.items():
            session.execute(f"CREATE TABLE public.{name} AS {query}")
            for binary in (False, True):
                statement = f"COPY public.{name} TO STDOUT" + (" (FORMAT binary)" if binary else "")
                batches = list(session.copy_out(statement, binary=binary))
                data = b"".join(b.data for b in batches)
                assert sum(b.rows for b in batches) == session.one(f"SELECT count(*) FROM public.{name}")[0]
                expected = _by_the_driver(url, statement)
                if binary:
                    expected = expected.removeprefix(b"PGCOPY\n\xff\r\n\0" + bytes(8)).removesuffix(b"\xff\xff")
                    sizes = [size for b in batches for size in b.sizes.tolist()]
                    assert sum(sizes) == len(data) and len(sizes) == sum(b.rows for b in batches)
                assert data == expected, (name, binary)


def test_the_compiled_part_speaks_to_the_drivers_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a way around it that nobody would notice: rows come and go by it."""
    calls: list[int] = []
    real = libpq.compiled

    def receive(*given: int) -> Any:
        calls.append(given[-1])
        return real.receive(*given)

    def send(*given: Any) -> Any:
        calls.append(-1)
        return real.send(*given)

    monkeypatch.setattr("pgkura.postgres.libpq.compiled", SimpleNamespace(receive=receive, send=send))
    monkeypatch.setattr("pgkura.postgres.session.plain", lambda pgconn: False)
    monkeypatch.setattr("pgkura.postgres.sending.plain", lambda pgconn: False)
    with connect(Endpoint.parse(newest().create_database("copy_out_compiled")), application_name="copy out") as session:
        batches = list(session.copy_out("COPY (SELECT generate_series(1, 300000)) TO STDOUT"))
        assert sum(b.rows for b in batches) == 300_000 and 3 < len(calls) < 3_000
        session.execute("CREATE TABLE public.back (i int)")
        with session.copy_in("COPY public.back FROM STDIN") as copy:
            copy.write(b"".join(b.data for b in batches))
        assert session.one("SELECT count(*), sum(i) FROM public.back") == (300_000, 45_000_150_000)
    assert -1 in calls


def _by_the_driver(url: str, statement: str) -> bytes:
    with psycopg.connect(url) as connection, connection.cursor().copy(statement.encode()) as copy:
        return b"".join(bytes(piece) for piece in copy)


def test_an_error_after_many_rows(session: Session) -> None:
    """It is told with its code; a transaction has failed, and the driver knows; the connection is good."""
    failing = "COPY (SELECT 1 / (i - 200000), repeat('x', 50) FROM generate_series(1, 300000) i) TO STDOUT"
    session.begin()
    with pytest.raises(SqlError, match="division by zero") as caught:
        list(session.copy_out(failing))
    assert caught.value.sqlstate == "22012" and not session.broken
    with pytest.raises(SqlError, match="aborted"):
        session.one("SELECT 1")
    with pytest.raises(SqlError, match="rolled back"):
        session.commit()
    with pytest.raises(SqlError) as caught:
        list(session.copy_out("COPY public.nothing TO STDOUT"))
    assert caught.value.sqlstate == "42P01"
    assert session.one("SELECT 1") == (1,)


def test_left_early(session: Session) -> None:
    """The statement is cancelled; what it still sent is not taken for another's answer."""
    session.begin()
    session.execute("SAVEPOINT before")
    with closing(session.copy_out("COPY (SELECT repeat('x', 100) FROM generate_series(1, 9000000)) TO STDOUT")) as rows:
        next(rows)
    assert not session.broken
    session.execute("ROLLBACK TO SAVEPOINT before")
    assert b"".join(b.data for b in session.copy_out("COPY (VALUES (1), (2)) TO STDOUT")) == b"1\n2\n"
    session.commit()


def test_left_when_all_had_come(session: Session) -> None:
    """A cancellation that comes too late does no harm."""
    for _ in range(20):
        with closing(session.copy_out("COPY (SELECT 1 FROM generate_series(1, 3)) TO STDOUT")) as rows:
            next(rows)
        assert session.one("SELECT 2") == (2,)


def test_the_server_process_ends(session: Session) -> None:
    """In the middle of the rows: an error, and the connection is known to be broken."""
    rows = session.copy_out("COPY (SELECT repeat('x', 100) FROM generate_series(1, 9000000)) TO STDOUT")
    next(rows)
    with psycopg.connect(session.endpoint.conninfo(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (session.pid,))
    with pytest.raises(SqlError) as caught:
        list(rows)
    assert caught.value.sqlstate in ("57P01", "") and session.broken


def test_another_thread_ends_it_meanwhile(path: str) -> None:
    """At any moment, as when a run is stopped and cancelling fails: an error, and not a process that has crashed."""
    url = newest().create_database(f"copy_out_closed_{path}")
    ended = 0
    for n in range(60):
        session = connect(Endpoint.parse(url), application_name="closed")
        session.execute("CREATE TEMPORARY TABLE back (a text)")
        closer = threading.Timer(0.0005 * n, session.hang_up)
        try:
            with pytest.raises((SqlError, psycopg.Error)):
                closer.start()
                while True:
                    rows = session.copy_out("COPY (SELECT repeat('x', 100) FROM generate_series(1, 30000)) TO STDOUT")
                    with session.copy_in("COPY back FROM STDIN") if n % 2 else nullcontext() as copy:
                        for batch in rows if copy is None else ():
                            ended += batch.rows
                        if copy is not None:
                            copy.write(b"x" * 99 * 30_000)
        finally:
            closer.join()
        session.close()
        assert session.broken
    assert ended


def test_notices_among_the_rows_and_much_waiting(session: Session) -> None:
    """Other messages come between rows; rows come slowly, and a setting is told anew."""
    session.script(
        "CREATE FUNCTION public.slow(i int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE WARNING 'row %', i; PERFORM pg_catalog.pg_sleep(0.02), "
        "pg_catalog.set_config('application_name', 'at ' || i, false); RETURN i; END $$"
    )
    rows = list(session.copy_out("COPY (SELECT public.slow(i) FROM generate_series(1, 30) i) TO STDOUT"))
    assert b"".join(b.data for b in rows).split() == [b"%d" % i for i in range(1, 31)]
    session.execute("SET client_min_messages = error")
    assert session.one("SELECT current_setting('application_name')") == ("at 30",)


@pytest.mark.parametrize("way", ["plain", "as if encrypted"])
def test_memory_is_given_back_after_a_large_row(way: str) -> None:
    """A row of 40 MB, then small ones. libpq keeps its buffer, which has grown to twice the row, until the end."""
    url = newest().create_database(f"copy_out_large_row_{way[:2]}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.wide AS SELECT repeat('x', 40000000) AS t")
    child = subprocess.run(
        [sys.executable, "-m", "tests.support.large_row_child", way],
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    kept = 32 * MIB if way == "plain" else 100 * MIB
    assert int(child.stdout) < kept, "the row is not kept"
