"""Lanes of a replay: work goes on beside the caller, a table keeps its order, what fails undoes all that is open."""

import threading
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from tests.support.servers import newest

from pgkura.core.errors import DatabaseError
from pgkura.core.names import QualifiedName
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session, SqlError
from pgkura.replay.lanes import Lanes
from pgkura.restore.parallel import Work

ONE, OTHER = QualifiedName("public", "one"), QualifiedName("public", "other")


@pytest.fixture
def url() -> Iterator[str]:
    """Two tables."""
    home, name = newest(), f"lanes_{uuid4().hex[:8]}"
    made = home.create_database(name)
    with psycopg.connect(made, autocommit=True) as connection:
        connection.execute("CREATE TABLE one (n int); CREATE TABLE other (n int)")
    yield made
    home.drop_database(name)


def _open(url: str) -> Session:
    return connect(Endpoint.parse(url), application_name="lanes")


def _rows(url: str) -> tuple[list[int], list[int]]:
    with psycopg.connect(url) as connection:
        one, other = (
            [n for (n,) in connection.execute(f"SELECT n FROM {name} ORDER BY n").fetchall()] for name in (ONE, OTHER)
        )
        return one, other


def _insert(table: QualifiedName, number: int) -> tuple[QualifiedName, Work]:
    return table, lambda session: session.script(f"INSERT INTO {table} VALUES ({number})")


def test_tables_are_applied_at_once_and_beside_the_caller(url: str) -> None:
    both = threading.Barrier(3, timeout=60)

    def meet(_: Session) -> None:
        both.wait()

    with _open(url) as own, Lanes(own, lambda: _open(url), 2) as lanes:
        lanes.give([_insert(ONE, 1), (ONE, meet), (OTHER, meet), _insert(OTHER, 2), _insert(ONE, 3)], commit=True)
        both.wait()  # both lanes and we ourselves are here at the same time
        lanes.give([_insert(ONE, 4)], commit=False)
        lanes.wait()
        assert _rows(url) == ([1, 3], [2])
        lanes.commit()
    assert _rows(url) == ([1, 3, 4], [2])


def test_what_fails_is_raised_and_everything_open_is_undone(url: str) -> None:
    with _open(url) as own:
        with pytest.raises(SqlError, match="division by zero"), Lanes(own, lambda: _open(url), 2) as lanes:
            lanes.give([_insert(ONE, 1), _insert(OTHER, 1)], commit=True)
            lanes.give([_insert(ONE, 2), (OTHER, lambda session: session.script("SELECT 1 / 0"))], commit=False)
            lanes.give([_insert(ONE, 3)], commit=True)
        assert not own.in_transaction and own.one("SELECT 1") == (1,)
    assert _rows(url) == ([1], [1])


def test_an_error_of_the_caller_ends_what_the_lanes_do(url: str) -> None:
    with _open(url) as own:
        with pytest.raises(KeyError), Lanes(own, lambda: _open(url), 2) as lanes:
            lanes.give([(ONE, lambda s: s.script("SELECT pg_sleep(600)")), _insert(OTHER, 1)], commit=True)
            raise KeyError
        assert own.one("SELECT 1") == (1,)


def test_one_connection_is_enough(url: str) -> None:
    def none_left() -> Session:
        raise DatabaseError("too many connections")

    with _open(url) as own, Lanes(own, none_left, 2) as lanes:
        lanes.give([_insert(ONE, 1), _insert(OTHER, 2)], commit=True)
        assert lanes.session(OTHER) is own
        lanes.commit()
    assert _rows(url) == ([1], [2])
