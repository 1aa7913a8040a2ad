"""Opening connections: several at once, and what is pinned on each of them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.support.servers import PASSWORD, newest, server, versions
from tests.support.watchers import soon

from pgkura.core.errors import DatabaseError, Interrupted
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.snapshot.opening import Opening
from pgkura.snapshot.yielding import Part

PARTS = (Part.WATCHER, Part.HOLDER, Part.READER)


@pytest.fixture
def url() -> Iterator[str]:
    """A database."""
    name = f"opening_{uuid4().hex[:8]}"
    yield newest().create_database(name)
    newest().drop_database(name)


def connections(url: str) -> int:
    """How many there are beside the one that asks."""
    with psycopg.connect(url) as connection:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return int(connection.execute(asked).fetchall()[0][0])


def test_they_are_opened_together_and_each_is_given_once(url: str) -> None:
    together = threading.Barrier(len(PARTS), timeout=30)
    made: list[Part] = []

    def open_one(part: Part) -> Session:
        made.append(part)
        if len(made) <= len(PARTS):
            together.wait()  # one after the other they would wait for ever
        return connect(Endpoint.parse(url), application_name=f"pgkura test {part}")

    opening = Opening(open_one, PARTS)
    with closing(opening), closing(opening(Part.READER)) as first, closing(opening(Part.READER)) as second:
        assert first.pid != second.pid
        assert [s.one("SELECT current_setting('application_name')")[0] for s in (first, second)] == [
            "pgkura test reader"
        ] * 2
    assert sorted(made) == sorted((*PARTS, Part.READER))


def test_what_nobody_asked_for_is_closed(url: str) -> None:
    may_go_on = threading.Event()

    def open_one(part: Part) -> Session:
        session = connect(Endpoint.parse(url), application_name="pgkura test")
        if part is Part.HOLDER:
            may_go_on.wait(30)
        return session

    opening = Opening(open_one, PARTS)
    opening(Part.WATCHER).close()
    soon(lambda: connections(url) == 2)
    opening.close()
    soon(lambda: connections(url) == 1)  # this one is being opened yet
    may_go_on.set()
    soon(lambda: connections(url) == 0)


def test_an_error_is_raised_to_whoever_asks(url: str) -> None:
    def open_one(part: Part) -> Session:
        if part is Part.WATCHER:
            raise DatabaseError("too many connections")
        return connect(Endpoint.parse(url), application_name="pgkura test")

    opening = Opening(open_one, PARTS)
    opening(Part.HOLDER).close()
    with closing(opening), pytest.raises(DatabaseError, match="too many"):
        opening(Part.WATCHER)
    soon(lambda: connections(url) == 0)


def test_what_was_waited_for_when_the_run_was_stopped_is_closed(url: str) -> None:
    may_go_on = threading.Event()

    def open_one(part: Part) -> Session:
        session = connect(Endpoint.parse(url), application_name="pgkura test")
        may_go_on.wait(30)
        return session

    def stop(_number: int, _frame: object) -> None:
        raise Interrupted("stopped")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with closing(Opening(open_one, [Part.READER])) as opening, pytest.raises(Interrupted):
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            opening(Part.READER)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    may_go_on.set()
    soon(lambda: connections(url) == 0)


@pytest.mark.parametrize("version", versions())
def test_triggers_fire_as_usual_whatever_the_database_sets(version: int) -> None:
    """Put back where the role may; who may not is no reason to fail, and keeps what was set for all."""
    name, plain = f"pinned_{uuid4().hex[:8]}", f"plain_{uuid4().hex[:8]}"
    url = server(version).create_database(name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SQL("ALTER DATABASE {} SET session_replication_role = replica").format(Identifier(name)))
        connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(plain), PASSWORD))
    try:
        for user, expected in (("postgres", "origin"), (plain, "replica")):
            endpoint = Endpoint.parse(url.replace("//postgres:", f"//{user}:"))
            with closing(connect(endpoint, application_name="pgkura test")) as session:
                assert session.one("SELECT current_user::text, current_setting('session_replication_role')") == (
                    user,
                    expected,
                )
    finally:
        server(version).drop_database(name)
        with psycopg.connect(server(version).url(), autocommit=True) as connection:
            connection.execute(SQL("DROP ROLE {}").format(Identifier(plain)))
