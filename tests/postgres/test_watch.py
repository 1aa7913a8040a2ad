"""The watcher on real servers, as a role that is no superuser."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions
from tests.support.watchers import WATCHER, soon, watching

from pgkura.changes import pgoutput
from pgkura.changes.log import Log, read_chain
from pgkura.changes.options import Options
from pgkura.core.errors import WrongKey
from pgkura.replay.moments import parse_moment
from pgkura.replay.resolving import resolve
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.repository.seal import unseal_object
from pgkura.storage.local import LocalStorage

# Keys are looked at every second instead of every minute.
QUICK = Options(period=0.3, bundle=False, beat=300.0, keys_every=1.0)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


def open_repository(desk: Desk) -> Repository:
    """With all keys."""
    identity, host = Identity.parse(desk.identity.read_text()), HostKey.parse(desk.host_key.read_text())
    return Repository.open(LocalStorage(desk.repository), identity=identity, host=host)


def the_log(desk: Desk) -> Log:
    """Of the only chain."""
    repo = open_repository(desk)
    (chain,) = repo.chain_ids()
    facts = read_chain(repo, chain)
    assert facts is not None
    return Log(repo, facts)


def archived(log: Log) -> list[int]:
    """Ledger numbers in commit order, each commit once; the chain has no gap."""
    found: list[int] = []
    relations: dict[int, pgoutput.Relation] = {}
    ends: list[int] = []
    for payload in log.messages(0, len(log.names) - 1):
        if payload[0] == pgoutput.RELATION:
            relation = pgoutput.relation(payload)
            relations[relation.oid] = relation
        elif payload[0] == pgoutput.INSERT:
            change = pgoutput.change(payload)
            if relations[change.relation].qname.name == "ledger":
                assert change.new is not None and isinstance(change.new[0], bytes)
                found.append(int(change.new[0]))
        elif payload[0] == pgoutput.COMMIT:
            ends.append(pgoutput.commit(payload).end)
    assert ends == sorted(set(ends))
    assert log.names[0].start == log.facts.start
    assert all(a.end == b.start for a, b in zip(log.names, log.names[1:], strict=False))
    return found


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[str]:
    """A watched database."""
    home = server(request.param)
    url = ledger.make(home, f"watched_{request.param}")
    yield url
    ledger.drop_slots(home, f"watched_{request.param}")


@pytest.mark.parametrize("source", versions(), indirect=True)
def test_everything_committed_is_archived_once(source: str, desk: Desk) -> None:
    """Two catch-ups with a load before, between and during."""
    env = {"DATABASE_URL": source}
    first = desk.run("watch", "--once", "--json", env=env).expect().json
    assert first["segments"] >= 1
    with ledger.Load(source) as load:
        time.sleep(0.7)
        desk.run("watch", "--once", "--json", "--period", "0.2s", env=env).expect()
    desk.run("watch", "--once", "--json", "--segment-bytes", "8192", env=env).expect()
    log = the_log(desk)
    assert sorted(archived(log)) == sorted(load.committed)
    assert len(load.committed) > 20
    with psycopg.connect(source) as connection:
        rows = connection.execute("SELECT n FROM ledger").fetchall()
    assert sorted(n for (n,) in rows) == sorted(load.committed)


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_once_makes_what_was_before_it_reachable(source: str, desk: Desk) -> None:
    """However much the source goes on: a snapshot that was taken before the run is known to be held after it."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    with ledger.Load(source, clients=2), psycopg.connect(source, autocommit=True) as connection:
        for _ in range(4):
            (visible,) = connection.execute("SELECT pg_current_snapshot()::text").fetchone() or ("",)
            desk.run("watch", "--once", "--period", "5s", env=env).expect()
            moment = parse_moment(f"snapshot {visible}")
            assert resolve(open_repository(desk), the_log(desk), moment).visible == moment.visible


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_killed_watchers_lose_and_double_nothing(source: str, desk: Desk) -> None:
    """SIGKILL at random moments, again and again, under load."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    chance = random.Random(7)
    with ledger.Load(source) as load:
        for _ in range(8):
            child = desk.start("watch", "--period", "0.2s", "--quiet", env=env)
            time.sleep(chance.uniform(0.6, 1.8))
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    last = desk.run("watch", "--once", "--json", env=env).expect().json
    assert last["holes"] == 0
    assert sorted(archived(the_log(desk))) == sorted(load.committed)


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_sigterm_stores_what_is_whole(source: str, desk: Desk) -> None:
    """A long period, an early end: nothing is left to the next one."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    child = desk.start("watch", "--period", "60s", "--quiet", env=env)
    with ledger.Load(source) as load:
        time.sleep(2.5)
    time.sleep(0.7)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    assert sorted(archived(the_log(desk))) == sorted(load.committed)


def commit(url: str, n: int) -> None:
    """One more row of the ledger."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO ledger (n, client) VALUES (%s, 0)", (n,))


def opens(desk: Desk, epoch: int) -> list[bool]:
    """Of each segment with messages, in order, whether the key of an epoch opens them."""
    repo = open_repository(desk)
    secrets = [e.secret for e in repo._keys.epochs if e.number == epoch]
    (chain,) = repo.chain_ids()
    found = []
    for name in repo.segments(chain):
        sealed = repo.segment(chain, name)[1]
        if sealed:
            with suppress(WrongKey):
                unseal_object(sealed, secrets, "a segment")
                found.append(True)
                continue
            found.append(False)
    return found


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_a_running_watcher_goes_on_in_a_new_epoch(source: str, desk: Desk) -> None:
    """By itself, in the middle of its chain; what it stored before and after is read as one log."""
    numbers = iter(range(2, 1_000))

    def again() -> bool:
        commit(source, next(numbers))
        time.sleep(1)
        return opens(desk, 2)[-1]

    with watching(source, open_repository(desk), QUICK) as (heard, _):
        soon(heard.began)
        commit(source, 1)
        soon(lambda: opens(desk, 1)[-1:] == [True])
        desk.run("epoch", "new").expect()
        soon(again)
    assert True in opens(desk, 1) and opens(desk, 1)[-1] is False
    assert archived(the_log(desk)) == list(range(1, next(numbers)))


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_the_watcher_of_a_revoked_host_ends(source: str, desk: Desk, tmp_path: Path) -> None:
    """By itself, with the words of a restart, and the server keeps what no other host has stored."""
    other = tmp_path / "other.key"
    desk.run("hosts", "add", "other", "--write", str(other)).expect()
    with (
        pytest.raises(AssertionError, match="WrongKey"),
        watching(source, open_repository(desk), QUICK) as (heard, done),
    ):
        soon(heard.began)
        commit(source, 1)
        soon(lambda: opens(desk, 1)[-1:] == [True])
        desk.run("hosts", "revoke", HostKey.parse(desk.host_key.read_text()).host_id).expect()
        soon(lambda: not any(thread.name == WATCHER for thread in threading.enumerate()))
    assert not done
    env = {"DATABASE_URL": source}
    commit(source, 2)
    later = desk.run("watch", "--once", "--json", env=env | {"PGKURA_HOST_KEY": str(other)})
    assert later.expect().json["holes"] == 0
    desk.host_key.write_text(other.read_text())
    assert archived(the_log(desk)) == [1, 2]
