"""A watcher in this process, whose manners a test can choose; and servers with limits of their own."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest
from tests.support import servers
from tests.support.cluster import start_cluster
from tests.support.servers import PASSWORD, SETTINGS, Server, binaries

from pgkura.changes.options import Options, Watched
from pgkura.changes.watching import follow
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.repository import Repository

WATCHER = "watcher of a test"


@dataclass(slots=True)
class Heard:
    """Progress that remembers its notes."""

    notes: list[str] = field(default_factory=list)

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        """Nothing."""

    def advance(self, amount: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Remember it."""
        self.notes.append(text)

    def began(self) -> bool:
        """Whether the log holds what is committed from now on: a chain is in the store before its slot is there."""
        return any(text.startswith("the change log begins at") for text in self.notes)


@contextmanager
def watching(url: str, repo: Repository, options: Options) -> Iterator[tuple[Heard, list[Watched]]]:
    """Follow in a thread; what it did is in the list once the block has ended. An error fails the test."""
    heard, done, errors, stop = Heard(), list[Watched](), list[BaseException](), Stop()

    def run() -> None:
        try:
            done.append(follow(Endpoint.parse(url), repo, options, heard, stop))
        except BaseException as error:  # noqa: BLE001 - raised where the test waits
            errors.append(error)

    thread = threading.Thread(target=run, name=WATCHER, daemon=True)
    thread.start()
    try:
        yield heard, done
    except BaseException as error:
        error.add_note(f"the watcher said {heard.notes}, and failed with {errors}")
        raise
    finally:
        stop.request()
        thread.join(60)
    assert not thread.is_alive(), heard.notes
    if errors:
        raise AssertionError(f"the watcher ended with {errors[0]!r}; notes: {heard.notes}") from errors[0]


def soon(what: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until it is so."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            pytest.fail("it did not become so")
        time.sleep(0.05)


@contextmanager
def limited(version: int, **settings: str) -> Iterator[Server]:
    """A server of its own with these settings."""
    home = binaries(version)
    servers.needs(f"PostgreSQL {version}", home is not None)
    assert home is not None
    cluster = start_cluster(home, superuser="postgres", password=PASSWORD, settings=SETTINGS | settings)
    try:
        yield Server(version=version, cluster=cluster, contrib=False)
    finally:
        cluster.stop()


def write_log(url: str, megabytes: int) -> None:
    """So much of the server's own log, of which nothing reaches ours."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(megabytes):
            connection.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
