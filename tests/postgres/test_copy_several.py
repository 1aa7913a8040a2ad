"""Several COPYs as one query: each table's rows apart, by all receive paths; errors, and leaving early."""

from collections.abc import Iterator

import psycopg
import pytest
from tests.support.servers import newest

from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.several import Several

ROWS = (3, 0, 1, 200_000, 0, 0, 40, 1)
NAMES = [f"public.t{n}" for n in range(len(ROWS))]
STATEMENTS = [f"COPY {name} TO STDOUT" for name in NAMES]


@pytest.fixture(params=["socket", "libpq", "driver"])
def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """On a plain connection, or the way an encrypted one goes, compiled or not; to a database of its own."""
    if request.param != "socket":
        monkeypatch.setattr("pgkura.postgres.session.plain", lambda pgconn: False)
    if request.param == "driver":
        monkeypatch.setattr("pgkura.postgres.libpq.compiled", None)
    url = newest().create_database(f"copy_several_{request.param}")
    with connect(Endpoint.parse(url), application_name="copy several") as made:
        for name, count in zip(NAMES, ROWS, strict=True):
            made.execute(f"CREATE TABLE {name} AS SELECT i, '{name}' AS t FROM generate_series(1, {count}) i")
        yield made


def _read(session: Session, statements: list[str]) -> list[bytes]:
    with Several(session, statements) as several:
        return [b"".join(bytes(b.data) for b in several.copy_out(sql)) for sql in statements]


def test_each_table_has_its_own_rows(session: Session) -> None:
    session.begin()
    for _ in range(3):
        assert _read(session, STATEMENTS) == [
            b"".join(b"%d\t%s\n" % (i, name.encode()) for i in range(1, count + 1))
            for name, count in zip(NAMES, ROWS, strict=True)
        ]
        assert session.one("SELECT 1") == (1,)
    session.commit()
    assert _read(session, STATEMENTS[:1]) == _read(session, STATEMENTS)[:1]
    with Several(session, []):
        pass
    assert session.one("SELECT 2") == (2,)


@pytest.mark.parametrize("place", [0, 3, 5, 8])
def test_an_error_in_one_of_them_is_that_ones(session: Session, place: int) -> None:
    statements = [*STATEMENTS[:place], "COPY public.missing TO STDOUT", *STATEMENTS[place:]]
    session.begin()
    seen: list[str] = []
    with pytest.raises(SqlError) as caught, Several(session, statements) as several:
        for sql in statements:
            seen.append(sql)
            list(several.copy_out(sql))
    assert caught.value.sqlstate == "42P01" and "public.missing" in caught.value.detail
    assert seen[-1] == "COPY public.missing TO STDOUT" and len(seen) == place + 1
    assert not session.broken
    session.rollback()
    assert _read(session, STATEMENTS[:3])[2] == b"1\tpublic.t2\n"


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_left_early(session: Session, after: int) -> None:
    """Between two of them, or among the rows of one: what was still to come is nobody else's answer."""
    session.begin()
    session.execute("SAVEPOINT before")
    with Several(session, STATEMENTS) as several:
        for sql in STATEMENTS[:after]:
            list(several.copy_out(sql))
        if after == 3:
            next(several.copy_out(STATEMENTS[3]))
    assert not session.broken
    session.execute("ROLLBACK TO SAVEPOINT before")
    assert _read(session, STATEMENTS[:1]) == [b"1\tpublic.t0\n2\tpublic.t0\n3\tpublic.t0\n"]
    session.commit()


def test_the_server_process_ends(session: Session) -> None:
    with Several(session, STATEMENTS) as several:
        list(several.copy_out(STATEMENTS[0]))
        with psycopg.connect(session.endpoint.conninfo(), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (session.pid,))
        with pytest.raises(SqlError):
            for sql in STATEMENTS[1:] + STATEMENTS * 50:
                list(several.copy_out(sql))
    assert session.broken


def test_they_come_in_their_order_alone(session: Session) -> None:
    with Several(session, STATEMENTS) as several, pytest.raises(ValueError, match="not the next"):
        list(several.copy_out(STATEMENTS[1]))
