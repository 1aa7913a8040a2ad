"""Rows into a server: past the driver on a plain connection, by the driver else; what goes wrong meanwhile is told."""

import errno
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.servers import server, versions

from pgkura.core.memory import sample
from pgkura.postgres import sending
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session, SqlError

MIB = 1024 * 1024
LINE = b"x" * 999 + b"\n"


@pytest.fixture(params=[versions()[0], versions()[-1]])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database."""
    home = server(request.param)
    yield home.create_database("sending")
    home.drop_database("sending")


@pytest.fixture(params=["direct", "libpq", "driver"])
def session(request: pytest.FixtureRequest, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A connection with a table to fill."""
    if request.param != "direct":
        monkeypatch.setattr(sending, "plain", lambda pgconn: False)
    if request.param == "driver":
        monkeypatch.setattr("pgkura.postgres.libpq.compiled", None)
    with connect(Endpoint.parse(url), application_name="test") as opened:
        opened.script("CREATE TABLE public.t (a text)")
        yield opened


def test_every_cut_arrives(session: Session) -> None:
    """Nothing at all, single bytes, and writes of several messages, through a socket that takes little at a time."""
    with socket.socket(fileno=socket.dup(session._connection.fileno())) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    chance = random.Random(5)
    data = b"".join(b"%d-%s\n" % (n, b"y" * chance.choice((0, 7, 3000))) for n in range(2000))
    at = 0
    with session.copy_in("COPY public.t FROM STDIN") as copy:
        while at < len(data):
            size = chance.choice((0, 1, 2, 5000, 70_000, 1_000_000))
            copy.write(data[at : at + size])
            at += size
    assert session.rows("SELECT a FROM public.t ORDER BY split_part(a, '-', 1)::int") == [
        (line,) for line in data.decode().splitlines()
    ]


def test_what_the_server_refuses_is_told_and_the_connection_goes_on(session: Session) -> None:
    """In the middle of much more: it reads the rest away."""
    with (
        pytest.raises(SqlError, match=r"missing data|extra data") as caught,
        session.copy_in("COPY public.t FROM STDIN") as copy,
    ):
        for n in range(2000):
            copy.write(LINE if n != 700 else b"a\tb\n")
    assert caught.value.sqlstate == "22P04" and not session.broken
    assert session.one("SELECT count(*) FROM public.t") == (0,)


def test_warnings_in_their_thousands_do_not_hold_it_up(session: Session) -> None:
    """The server waits until somebody takes what it says."""
    session.script(
        "CREATE FUNCTION public.say() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE WARNING '%', repeat('n', 4000); RETURN NEW; END$$; "
        "CREATE TRIGGER say BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.say()"
    )
    before = peak = sample()
    with session.copy_in("COPY public.t FROM STDIN") as copy:
        for n in range(20000):
            copy.write(LINE)
            if n % 1000 == 999:
                peak = max(peak, sample())
    assert session.one("SELECT count(*) FROM public.t") == (20000,)
    assert peak - before < 50 * MIB, "80 MB were said, and kept"


def test_a_server_process_that_is_ended_says_so(session: Session, url: str) -> None:
    """At once, not when everything was sent."""
    with connect(Endpoint.parse(url), application_name="test") as other:
        sent = 0
        with pytest.raises(SqlError) as caught, session.copy_in("COPY public.t FROM STDIN") as copy:
            while sent < 5000:
                copy.write(LINE * 300)
                if sent == 30:
                    other.one("SELECT pg_terminate_backend(%s)", (session.pid,))
                sent += 1
        assert caught.value.sqlstate == "57P01" or "the connection broke" in str(caught.value)
        assert session.broken and sent < 5000
        assert other.one("SELECT count(*) FROM public.t") == (0,)


def test_a_send_that_fails_ends_the_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason: half a message is out, and the server is alive and waits; no row of it may stay."""

    class Failing(socket.socket):
        def sendmsg(self, parts: Any, *_: Any) -> int:
            self.send(parts[0])
            raise OSError(errno.ENOBUFS, "no buffer space")

    with connect(Endpoint.parse(url), application_name="test") as session:
        session.script("CREATE TABLE public.t (a text)")
        with (
            Failing(fileno=os.dup(session._connection.fileno())) as failing,
            pytest.raises(SqlError, match="connection"),
            session.copy_in("COPY public.t FROM STDIN") as copy,
        ):
            copy.write(LINE * 10)
            monkeypatch.setattr(copy, "_connection", failing)
            copy.write(LINE * 10)
        assert session.broken
    with connect(Endpoint.parse(url), application_name="test") as session:
        assert session.one("SELECT count(*) FROM public.t") == (0,)


def test_given_up_between_writes_nothing_is_there(session: Session) -> None:
    with pytest.raises(KeyboardInterrupt), session.copy_in("COPY public.t FROM STDIN") as copy:
        copy.write(LINE * 10)
        raise KeyboardInterrupt
    assert not session.broken
    assert session.one("SELECT count(*) FROM public.t") == (0,)


def test_given_up_within_a_message_the_connection_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would take what follows for the rest of it, and wait for ever."""

    def interrupted(writer: object) -> None:
        raise KeyboardInterrupt

    with connect(Endpoint.parse(url), application_name="test") as session:
        session.script("CREATE TABLE public.t (a text)")
        monkeypatch.setattr(sending.CopyWriter, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt), session.copy_in("COPY public.t FROM STDIN") as copy:
            while True:
                copy.write(LINE * 3000)
        assert session.broken
    with connect(Endpoint.parse(url), application_name="test") as session:
        assert session.one("SELECT count(*) FROM public.t") == (0,)
