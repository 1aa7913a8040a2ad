"""The change log by SQL functions: the same log as by replication, through poolers too, killed anywhere."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from tests.postgres.test_watch import archived, open_repository, the_log
from tests.support import ledger
from tests.support.cli import ROOT, Desk
from tests.support.pooler import Supavisor, pgbouncer
from tests.support.servers import PASSWORD, Server, newest, server, versions
from tests.support.watchers import soon

from pgkura.core.errors import DatabaseError
from pgkura.core.wal import parse_lsn
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.polling import Polling
from pgkura.postgres.replication import Alive, Frame, Replication
from pgkura.postgres.transports import LogReader, refusal
from pgkura.repository.keys import HostKey

READS = "SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgkura reads %' AND datname = current_database()"
PROJECT = "abcdefghijklmnopqrst"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[str]:
    """A watched database."""
    home = server(request.param)
    url = ledger.make(home, f"polled_{request.param}")
    yield url
    ledger.drop_slots(home, f"polled_{request.param}")


def read_all(reader: LogReader, slot: str, start: int, last: int) -> list[Frame]:
    """Every frame up to a position; each commit is confirmed as it comes."""
    reader.start(slot, ("p",), start)
    found: list[Frame] = []
    ended = start
    until = time.monotonic() + 60
    while ended < last:
        assert time.monotonic() < until, (ended, last, found[-1:])
        for message in reader.receive(0.1):
            if isinstance(message, Alive):
                continue
            found.append(message)
            if message.payload[:1] == b"C":
                ended = message.lsn
        reader.confirm(ended)
    reader.close()
    return found


@pytest.mark.parametrize("version", versions())
def test_both_read_the_same_frames_at_the_same_positions(version: int) -> None:
    """Two slots of the same position; one is looked at in small portions."""
    home = server(version)
    name = f"both_ways_{version}"
    url = ledger.make(home, name)
    try:
        with psycopg.connect(home.url(name), autocommit=True) as admin:
            admin.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
            admin.execute("CREATE TABLE typed (id int PRIMARY KEY, m mood)")
            admin.execute("CREATE PUBLICATION p FOR ALL TABLES")
            row = admin.execute(
                "SELECT lsn::text FROM pg_create_logical_replication_slot('one', 'pgoutput')"
            ).fetchone()
            assert row is not None
            admin.execute("SELECT pg_copy_logical_replication_slot('one', 'two')")
            with ledger.Load(url) as load:
                for n in range(12):
                    time.sleep(0.1)
                    admin.execute("SELECT pg_logical_emit_message(false, 'aside', 'x')")
                    admin.execute("SELECT pg_logical_emit_message(true, 'pgkura.mark', 'm')")
                    admin.execute("INSERT INTO typed VALUES (%s, 'ok')", (n,))
                    if n == 6:
                        admin.execute("ALTER TABLE typed ADD COLUMN more text DEFAULT 'y'")
            admin.execute("SELECT pg_replication_origin_create(%s)", (name,))
            admin.execute("SELECT pg_replication_origin_session_setup(%s)", (name,))
            admin.execute("INSERT INTO typed SELECT g FROM generate_series(100, 3100) g")
            admin.execute("SELECT pg_replication_origin_session_reset()")
            admin.execute("SELECT pg_replication_origin_drop(%s)", (name,))
            said = admin.execute("SELECT pg_logical_emit_message(true, 'end', '')::text").fetchone()
            assert said is not None
        endpoint = Endpoint.parse(url)
        start, last = parse_lsn(row[0]), parse_lsn(said[0])
        streamed = read_all(Replication.open(endpoint, application_name="test"), "one", start, last)
        session = connect(endpoint, application_name="test")
        polled = read_all(Polling(session, 0.05, most=40), "two", start, last)
    finally:
        ledger.drop_slots(home, name)
    assert len(load.committed) > 20
    assert up_to(last, without_repeated(streamed)) == up_to(last, polled)


def up_to(last: int, frames: list[Frame]) -> list[Frame]:
    """Without what comes after the commit of that position: housekeeping is an empty transaction in 14."""
    end = next(n for n, frame in enumerate(frames, 1) if frame.payload[:1] == b"C" and frame.lsn >= last)
    return frames[:end]


def without_repeated(frames: list[Frame]) -> list[Frame]:
    """A walsender describes a table again whenever it may have changed; twice the same says nothing."""
    told: dict[bytes, bytes] = {}
    kept = []
    for frame in frames:
        if frame.payload[:1] in b"RY":
            if told.get(frame.payload[:5]) == frame.payload:
                continue
            told[frame.payload[:5]] = frame.payload
        kept.append(frame)
    return kept


@pytest.mark.parametrize("source", versions(), indirect=True)
def test_everything_committed_is_archived_once(source: str, desk: Desk) -> None:
    """Catch-ups by one way and the other, in turn, under load; many small segments and few large ones."""
    env = {"DATABASE_URL": source}
    first = desk.run("watch", "--once", "--transport", "sql", "--json", env=env).expect().json
    assert first["segments"] >= 1 and first["transport"] == "sql"
    with ledger.Load(source) as load:
        time.sleep(0.7)
        desk.run("watch", "--once", "--transport", "sql", "--period", "0.2s", env=env).expect()
        streamed = desk.run("watch", "--once", "--json", "--period", "0.2s", env=env).expect().json
        assert streamed["transport"] == "stream"
    last = desk.run("watch", "--once", "--transport", "sql", "--json", "--segment-bytes", "8192", env=env).expect().json
    assert last["holes"] == 0
    assert sorted(archived(the_log(desk))) == sorted(load.committed)
    assert len(load.committed) > 20
    with psycopg.connect(source) as connection:
        (confirmed,) = connection.execute("SELECT confirmed_flush_lsn::text FROM pg_replication_slots").fetchall()[-1]
    assert confirmed == last["position"]


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_killed_between_storing_and_advancing(source: str, desk: Desk) -> None:
    """Each time something is stored that the server still has: it is not stored again, and nothing is passed over."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", "--transport", "sql", env=env).expect()
    argv = [sys.executable, "-m", "tests.support.mortal_watcher", str(desk.repository)]
    environment = desk.environment | env | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    with ledger.Load(source) as load:
        for _ in range(5):
            time.sleep(0.3)
            done = subprocess.run(argv, env=environment, cwd=ROOT, timeout=60, check=False, capture_output=True)
            assert done.returncode == -9, done.stderr.decode()
    last = desk.run("watch", "--once", "--transport", "sql", "--json", env=env).expect().json
    assert last["holes"] == 0
    log = the_log(desk)
    assert len(log.names) >= 6
    assert sorted(archived(log)) == sorted(load.committed)


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_a_segment_of_a_revoked_host_stands_for_nothing(source: str, desk: Desk, tmp_path: Path) -> None:
    """Stored after its revocation, under the very name that the next host's has: the server does not forget it."""
    other, thief = tmp_path / "other.key", tmp_path / "thief"
    desk.run("hosts", "add", "other", "--write", str(other)).expect()
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", "--transport", "sql", env=env).expect()
    shutil.copytree(desk.repository, thief)
    desk.run("hosts", "revoke", HostKey.parse(desk.host_key.read_text()).host_id).expect()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("INSERT INTO ledger (n, client) VALUES (1, 0)")
    argv = [sys.executable, "-m", "tests.support.mortal_watcher", str(thief)]
    environment = desk.environment | env | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(argv, env=environment, cwd=ROOT, timeout=60, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    theirs = (path.relative_to(thief) for path in (thief / "changes").rglob("segments/*"))
    (false,) = [path for path in theirs if not (desk.repository / path).exists()]
    shutil.copytree(thief / "changes", desk.repository / "changes", dirs_exist_ok=True)
    words = ("watch", "--transport", "sql", "--period", "0.2s", "--quiet", "--no-bundle")
    refused = desk.run(*words, env=env | {"PGKURA_HOST_KEY": str(other)}, timeout=60).expect(16)
    assert "was written by a revoked host" in refused.err
    (desk.repository / false).unlink()
    later = desk.run("watch", "--once", "--json", env=env | {"PGKURA_HOST_KEY": str(other)}).expect().json
    assert later["holes"] == 0
    desk.host_key.write_text(other.read_text())
    assert archived(the_log(desk)) == [1]


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_two_at_once_neither_lose_nor_double(source: str, desk: Desk) -> None:
    """Each notices that the slot has moved on, and goes on behind what is stored."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    children = [desk.start("watch", "--transport", "sql", "--period", "0.2s", "--quiet", env=env) for _ in range(2)]
    try:
        with ledger.Load(source) as load:
            time.sleep(6)
    finally:
        for child in children:
            child.terminate()
    assert [child.wait(30) for child in children] == [0, 0]
    last = desk.run("watch", "--once", "--json", env=env).expect().json
    assert last["holes"] == 0
    repo = open_repository(desk)
    assert len(repo.chain_ids()) == 1
    log = the_log(desk)
    found = numbers(log)
    assert sorted(found) == sorted(load.committed)


def numbers(log: object) -> list[int]:
    """Of the ledger, whatever segments overlap."""
    from pgkura.changes import pgoutput
    from pgkura.changes.log import Log

    assert isinstance(log, Log)
    found: list[int] = []
    names: dict[int, str] = {}
    for payload in log.messages(0, len(log.names) - 1):
        if payload[0] == pgoutput.RELATION:
            relation = pgoutput.relation(payload)
            names[relation.oid] = relation.qname.name
        elif payload[0] == pgoutput.INSERT and names[pgoutput.relation_of(payload)] == "ledger":
            change = pgoutput.change(payload)
            assert change.new is not None and isinstance(change.new[0], bytes)
            found.append(int(change.new[0]))
    return found


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_a_living_reader_is_seen_between_its_looks(source: str, desk: Desk) -> None:
    """The slot is free then: who reads it is told by a session's name."""
    env = {"DATABASE_URL": source}
    child = desk.start("watch", "--transport", "sql", "--period", "30s", "--quiet", env=env)
    try:
        with psycopg.connect(source, autocommit=True) as connection:
            soon(lambda: connection.execute(READS).fetchone() is not None)
        assert "is read by process" in " ".join(desk.run("doctor", env=env).out.split())
        refused = desk.run("unwatch", env=env)
        assert refused.code != 0 and "a watcher reads slot" in refused.err
    finally:
        child.terminate()
    assert child.wait(30) == 0
    assert "no watcher reads slot" in " ".join(desk.run("doctor", env=env).out.split())
    desk.run("unwatch", env=env).expect()


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_a_large_transaction_is_stored_in_parts(source: str, desk: Desk) -> None:
    """Many times what a look should hold, and what a segment should."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", "--transport", "sql", env=env).expect()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("INSERT INTO scratch (v) SELECT repeat(md5(g::text), 8) FROM generate_series(1, 150000) g")
    done = desk.run("watch", "--once", "--transport", "sql", "--json", env=env).expect().json
    assert done["holes"] == 0
    repo = open_repository(desk)
    (chain,) = repo.chain_ids()
    records = [repo.segment(chain, name)[0] for name in repo.segments(chain)]
    assert max(len(r["parts"]) for r in records) >= 2
    assert sum(r["changes"] for r in records) == 150000


def test_through_a_session_pooler(desk: Desk) -> None:
    """`auto` asks for replication, is refused, says so once, and stores the same; a restore knows no difference."""
    home = newest()
    name = "polled_pooled"
    ledger.make(home, name)
    try:
        with pgbouncer(home, mode="session") as port:
            through = {"DATABASE_URL": f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/{name}"}
            follow_and_restore(desk, home, name, through, "the pooler does not know replication connections")
    finally:
        ledger.drop_slots(home, name)


def test_through_supavisor(desk: Desk) -> None:
    """It makes ordinary connections of replication connections."""
    home = newest()
    name = "polled_supavisor"
    ledger.make(home, name)
    try:
        with Supavisor(home.cluster) as pooler:
            user = quote(f"postgres.{PROJECT}", safe="")
            through = {"DATABASE_URL": f"postgresql://{user}:{PASSWORD}@127.0.0.1:{pooler.port}/{name}"}
            follow_and_restore(desk, home, name, through, "the pooler made an ordinary connection of it")
    finally:
        ledger.drop_slots(home, name)


def follow_and_restore(desk: Desk, home: Server, name: str, through: dict[str, str], why: str) -> None:
    """Watch under load through a pooler, then bring back what an observer saw."""
    first = desk.run("watch", "--once", "--json", env=through).expect()
    assert first.json["transport"] == "sql"
    assert why in first.err
    doctor = desk.run("doctor", env=through).out
    assert "temporary files" in " ".join(doctor.split())
    refused = desk.run("watch", "--once", "--transport", "stream", env=through).expect(14)
    assert "--transport sql" in refused.err
    with ledger.Load(home.url(name), gentle=True) as load:
        desk.run("backup", env=through).expect()
        time.sleep(0.7)
        with psycopg.connect(home.url(name)) as observer:
            observer.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            seen = ledger.checksums(observer)
            (snapshot,) = observer.execute("SELECT pg_current_snapshot()::text").fetchall()[0]
        time.sleep(0.3)
    last = desk.run("watch", "--once", "--json", env=through).expect().json
    assert last["holes"] == 0
    assert sorted(archived(the_log(desk))) == sorted(load.committed)
    target = home.create_database(f"{name}_back")
    desk.run("restore", "--at", f"snapshot {snapshot}", "--to", target, "--yes").expect()
    with psycopg.connect(target) as back:
        assert ledger.checksums(back) == seen


def test_what_is_a_refusal_of_replication() -> None:
    """Rights are wanted by both ways; a server that is not there is not there for either."""

    def told(detail: str, *, pooled: bool = False) -> str:
        return refusal(DatabaseError("cannot connect", detail=detail), pooled=pooled)

    assert told("FATAL: unsupported startup parameter: replication")
    assert told('no pg_hba.conf entry for host "10.0.0.1"')
    assert told("number of requested standby connections exceeds max_wal_senders (currently 10)")
    assert told("server closed the connection unexpectedly", pooled=True)
    assert not told("server closed the connection unexpectedly")
    assert not told("must be superuser or replication role to start walsender", pooled=True)
    assert not told("Connection refused")
