"""How often a stream is read: a breath between two reads where commits are many and small, none where much waits."""

import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from tests.support import ledger
from tests.support.servers import newest

from pgkura.postgres import replication
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.replication import Frame, Replication

_BREATH = 0.5


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database with a publication and the slot "read"."""
    monkeypatch.setattr(replication, "BREATH_SECONDS", _BREATH)
    home, name = newest(), f"stream_reads_{uuid4().hex[:8]}"
    url = home.create_database(name)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE TABLE t (id bigserial PRIMARY KEY, v text)")
        admin.execute("CREATE PUBLICATION p FOR ALL TABLES")
        admin.execute("SELECT pg_create_logical_replication_slot('read_' || current_database(), 'pgoutput')")
    yield url
    ledger.drop_slots(home, name)


def _started(url: str) -> Replication:
    stream = Replication.open(Endpoint.parse(url), application_name="test")
    stream.start("read_" + url.rsplit("/", 1)[1], ("p",), 0)
    return stream


def _read(stream: Replication) -> list[Frame]:
    return [message for message in stream.receive(0.1) if isinstance(message, Frame)]


def _commits(frames: list[Frame]) -> int:
    return sum(frame.payload[:1] == b"C" for frame in frames)


def test_many_small_commits_come_in_few_reads(source: str) -> None:
    ended = threading.Event()

    def write() -> None:
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            while not ended.is_set():
                connection.execute("INSERT INTO t (v) VALUES ('x')")

    writer = threading.Thread(target=write)
    writer.start()
    stream = _started(source)
    try:
        sizes: list[int] = []
        while len(sizes) < 8:
            if commits := _commits(_read(stream)):
                sizes.append(commits)
    finally:
        ended.set()
        writer.join()
        stream.close()
    # The first read finds what is there; those after it have had time for many. Woken by each it would be one or two.
    assert sum(sizes[1:]) >= 20 * len(sizes[1:]), sizes


class _Clock:
    """The module's clock, counting what it sleeps."""

    def __init__(self) -> None:
        self.slept = 0.0
        self.monotonic, self.time_ns = time.monotonic, time.time_ns

    def sleep(self, seconds: float) -> None:
        """Really."""
        self.slept += seconds
        time.sleep(seconds)


def test_a_large_transaction_is_read_with_few_pauses(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("INSERT INTO t (v) SELECT repeat('x', 1000) FROM generate_series(1, 30000)")
    clock = _Clock()
    monkeypatch.setattr(replication, "time", clock)
    stream = _started(source)
    frames: list[Frame] = []
    while not _commits(frames):
        frames += _read(stream)
    stream.close()
    assert sum(len(frame.payload) for frame in frames) > 30_000_000
    # With a breath before each 64 KiB this would be 230 seconds.
    assert clock.slept < 20 * _BREATH
