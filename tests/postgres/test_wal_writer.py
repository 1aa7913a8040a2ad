"""The target's WAL writer is kept awake during a restore, by a connection that nobody misses when it is gone."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support.cluster import start_cluster
from tests.support.psql import with_user
from tests.support.restored_layers import Back, restored_layers
from tests.support.servers import PASSWORD, binaries, newest, server, versions
from tests.support.snapshot_scene import Script

from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.restore import wal_writer
from pgkura.restore.run import Run
from pgkura.restore.wal_writer import EVERY_SECONDS, THREAD, WAKE, kept_awake, spare_connection

PATIENCE_SECONDS = 30


@pytest.fixture(params=versions())
def back(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Back]:
    """Where every restore is large enough."""
    monkeypatch.setattr(wal_writer, "LEAST_BYTES", 1)
    with restored_layers(server(request.param), tmp_path / "repository") as made:
        yield made


def _wakers(back: Back) -> list[int]:
    sql = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = '{WAKE}'"
    return [pid for (pid,) in back.target.rows(sql)]


def _until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def _next_number(back: Back) -> int:
    return int(back.target.rows("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")[0][0])


def _run(back: Back) -> Run:
    p = back.planned
    return Run(
        plan=p.plan, endpoint=p.endpoint, repo=p.repo, progress=Silent(), stop=Stop(), access=back.target.access,
    )  # fmt: skip


def test_it_is_woken_while_rows_come_and_no_longer(back: Back) -> None:
    numbers: list[int] = []

    def look() -> None:
        _until(lambda: len(_wakers(back)) == 1)
        numbers.append(_next_number(back))
        _until(lambda: _next_number(back) > numbers[0] + 3)

    restored = back.restore(progress=Script(steps={"rows": look}))
    assert numbers and not restored.findings
    assert not back.target.leftovers()
    assert back.prove(restored).equal


def test_a_restore_goes_on_without_it(back: Back) -> None:
    ended: list[int] = []

    def end() -> None:
        _until(lambda: _wakers(back))
        ended.extend(_wakers(back))
        back.target.rows(f"SELECT pg_terminate_backend({ended[0]})")
        _until(lambda: not _wakers(back))

    restored = back.restore(progress=Script(steps={"rows": end}))
    assert len(ended) == 1 and not restored.findings
    assert back.prove(restored).equal


def test_no_connection_is_taken_where_few_are_left(back: Back) -> None:
    """Room for what the restore itself may want, twice over, or none."""
    seen: list[list[int]] = []

    def look() -> None:
        time.sleep(0.2)
        seen.append(_wakers(back))

    name = Endpoint.parse(back.target.url).database
    wanted = 2 * 3 * back.planned.plan.options.parallel
    back.target.sql(f"ALTER DATABASE {name} CONNECTION LIMIT {wanted + 1}")  # one is the restore's own
    back = back.planned_again()
    assert back.prove(back.restore(progress=Script(steps={"rows": look}))).equal
    assert seen == [[]]


def test_a_refused_connection_is_no_finding(back: Back) -> None:
    """As when somebody else takes the last one between the question and the call."""
    run, name = _run(back), Endpoint.parse(back.target.url).database
    with run.open() as session, psycopg.connect(back.target.url, dbname="postgres", autocommit=True) as outside:
        own = spare_connection(run, session)
        assert own is not None
        own.close()
        outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        assert spare_connection(run, session) is None
        outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


def test_who_may_not_ask_for_room_takes_none(back: Back) -> None:
    """Where the view of sessions was closed to everybody."""
    run = _run(back)
    role = f"plain_{uuid4().hex[:8]}"
    back.target.sql(f"CREATE ROLE {role}", "REVOKE ALL ON pg_catalog.pg_stat_activity FROM PUBLIC")
    with run.open() as session:
        session.execute(f"SET ROLE {role}")
        assert spare_connection(run, session) is None
        session.execute("RESET ROLE")
        own = spare_connection(run, session)
        assert own is not None
        own.close()
    back.target.sql(f"DROP ROLE {role}")


def test_a_role_that_may_nothing_else_wakes_it_too(back: Back) -> None:
    role = f"plain_{uuid4().hex[:8]}"
    back.target.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    run = replace(_run(back), endpoint=Endpoint.parse(with_user(back.target.url, role, "plain")))
    with run.open() as session:
        own = spare_connection(run, session)
        assert own is not None and own.one("SELECT current_user") == (role,)
        begun = _next_number(back)
        with kept_awake(own):
            _until(lambda: _next_number(back) > begun + 3)
    back.target.sql(f"DROP ROLE {role}")


def test_none_is_opened_where_little_is_restored(back: Back, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many bytes as there are is enough, one more is not there."""
    size = sum(load.data.bytes for load in back.planned.plan.loads)
    run = _run(back)
    with run.open() as session:
        monkeypatch.setattr(wal_writer, "LEAST_BYTES", size)
        own = spare_connection(run, session)
        assert own is not None
        own.close()
        monkeypatch.setattr(wal_writer, "LEAST_BYTES", size + 1)
        assert spare_connection(run, session) is None


def test_a_poolers_connections_are_left_alone(back: Back) -> None:
    run = _run(back)
    with run.open() as session:
        session.pooled = True
        assert spare_connection(run, session) is None


def test_one_that_hangs_holds_nobody_up() -> None:
    """Its server process stands still, as one that a network has lost."""
    own = connect(Endpoint.parse(newest().url()), application_name="test")
    pid = own.pid
    with kept_awake(own):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(10 * EVERY_SECONDS)
    try:
        assert own.broken
        assert not [t for t in threading.enumerate() if t.name == THREAD]
    finally:
        os.kill(pid, signal.SIGCONT)


def _flushed(session: Session, lsn: str) -> bool:
    """But for a megabyte (`wal_writer_flush_after`): with less it is let sleep."""
    return bool(session.one("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn - 1048576", (lsn,))[0])


def test_the_log_is_on_disk_long_before_the_writer_comes_of_itself(filled: tuple[Session, Session]) -> None:
    """It comes every ten seconds here, and all that is written fits into the buffers; eight rounds take no 40."""
    own, other = filled
    other.begin("read committed", read_only=False)  # its own commits would wake it
    begun = time.monotonic()
    with kept_awake(own):
        for _ in range(8):
            other.execute("INSERT INTO public.filled SELECT repeat(md5(g::text), 20) FROM generate_series(1, 5000) g")
            _until(partial(_flushed, other, str(other.one("SELECT pg_current_wal_insert_lsn()::text")[0])))
    assert time.monotonic() - begun < 40


@pytest.fixture(params=versions())
def filled(request: pytest.FixtureRequest) -> Iterator[tuple[Session, Session]]:
    """Two sessions of a server whose WAL writer sleeps long."""
    programs = binaries(request.param)
    assert programs is not None
    settings = {"wal_writer_delay": "10s", "wal_buffers": "16MB", "fsync": "on"}
    cluster = start_cluster(programs, superuser="postgres", password=PASSWORD, settings=settings)
    endpoint = Endpoint.parse(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{cluster.port}/postgres")
    try:
        with connect(endpoint, application_name="test") as own, connect(endpoint, application_name="test") as other:
            for session in (own, other):
                session.execute("SET synchronous_commit = off")
            other.execute("CREATE TABLE public.filled (body text)")
            yield own, other
    finally:
        cluster.stop()
