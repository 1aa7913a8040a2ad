"""The line between watcher and server: cut in the middle of messages, or dead without a word."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_watch import archived, open_repository, the_log
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions
from tests.support.wire import Wire, random_cut

from pgkura.changes.options import Options, Watched
from pgkura.changes.watching import follow
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.postgres import replication
from pgkura.postgres.endpoint import Endpoint


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A watched database, and the port of its server."""
    home = server(request.param)
    name = f"wired_{request.param}"
    url = ledger.make(home, name)
    yield home.cluster.port, url
    ledger.drop_slots(home, name)


def through(wire: Wire, port: int, url: str) -> str:
    """The same database by another way."""
    return url.replace(f":{port}/", f":{wire.port}/")


@pytest.mark.parametrize(
    ("source", "transport"),
    [(v, "stream") for v in sorted({versions()[0], versions()[-1]})] + [(versions()[-1], "sql")],
    indirect=["source"],
)
def test_cut_in_mid_message(source: tuple[int, str], transport: str, desk: Desk) -> None:
    """One watcher lives through all of it: every transaction is there, each once, and there is no hole."""
    port, url = source
    env = {"DATABASE_URL": url}
    desk.run("watch", "--once", env=env).expect()
    with Wire(port) as wire, ledger.Load(url, seed=port) as load:
        argv = ("watch", "--transport", transport, "--period", "0.2s", "--quiet")
        child = desk.start(*argv, env={"DATABASE_URL": through(wire, port, url)})
        log = the_log(desk)
        while len(log.names) == len(the_log(desk).names):  # a watcher that never got through may say so and end
            time.sleep(0.1)
        # Most are cut while they receive; some already while they say hello.
        wire.cut = random_cut(port, 2_000, 120_000)
        wire.hang_up()
        until = time.monotonic() + 20
        while wire.cuts < 6 and time.monotonic() < until and child.poll() is None:
            time.sleep(0.1)
        wire.cut = None
        wire.hang_up()
        load.stop()
        time.sleep(1)
        assert child.poll() is None, f"it ended with {child.returncode} after {wire.cuts} cuts"
        child.terminate()
        assert child.wait(60) == 0
        assert wire.cuts >= 2
    last = desk.run("watch", "--once", "--json", env=env).expect().json
    assert last["holes"] == 0
    assert sorted(archived(the_log(desk))) == sorted(load.committed)


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_a_large_transaction_cut_in_the_middle(source: tuple[int, str], desk: Desk) -> None:
    """Its parts that were stored already count for nothing; what comes again is whole."""
    port, url = source
    env = {"DATABASE_URL": url}
    desk.run("watch", "--once", env=env).expect()
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO ledger (n, client) VALUES (1, 0)")
        connection.execute("INSERT INTO scratch (v) SELECT repeat(md5(g::text), 8) FROM generate_series(1, 60000) g")
    with Wire(port) as wire:
        # Only the stream itself is so large; each time it gets further.
        wire.cut = lambda: 3_000_000 * (1 + 2 * wire.cuts)
        told = desk.run("watch", "--once", "--json", env={"DATABASE_URL": through(wire, port, url)}).expect().json
        assert wire.cuts >= 2 and told["holes"] == 0
    log = the_log(desk)
    assert archived(log) == [1]
    assert sum(i for place in range(len(log.names)) for _, n, i, *_ in log.at(place).tables if n == "scratch") == 60000


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_a_line_that_is_dead_without_a_word(
    source: tuple[int, str], desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody in between goes on taking what we send and passes nothing on: the watcher notices by itself."""
    port, url = source
    monkeypatch.setattr(replication, "ASK_SECONDS", 0.5)
    monkeypatch.setattr(replication, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(replication, "_STATUS_SECONDS", 0.2)
    repo, stop, done = open_repository(desk), Stop(), list[Watched]()
    with Wire(port) as wire:
        options = Options(period=600.0, beat=600.0)  # only the replication itself speaks
        where = Endpoint.parse(through(wire, port, url))
        thread = threading.Thread(target=lambda: done.append(follow(where, repo, options, Silent(), stop)), daemon=True)
        thread.start()
        with psycopg.connect(url, autocommit=True) as connection:
            # While it is being made, the slot belongs to another of our connections.
            active = (
                "SELECT s.active_pid FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid "
                "WHERE s.database = current_database() AND a.backend_type = 'walsender'"
            )

            def reader(other: object) -> object:
                until = time.monotonic() + 60
                while time.monotonic() < until:
                    row = connection.execute(active).fetchone()
                    if row is not None and row[0] is not None and row[0] != other:
                        return row[0]
                    time.sleep(0.1)
                raise AssertionError("nobody reads the slot")

            first = reader(None)
            time.sleep(5)
            assert reader(None) == first  # quiet is not dead: the server answers when it is asked
            wire.stalled = True
            time.sleep(5)
            wire.hang_up()  # for the server's side
            wire.stalled = False
            connection.execute("INSERT INTO ledger (n, client) VALUES (1, 0)")
            reader(first)
            stop.request()
            thread.join(60)
            assert not thread.is_alive() and done[0].holes == 0
    desk.run("watch", "--once", env={"DATABASE_URL": url}).expect()
    assert archived(the_log(desk)) == [1]
