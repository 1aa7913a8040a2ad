"""The watcher of the hosted tests: it sees what is there to be seen, and says when it cannot look any more."""

from collections.abc import Iterator

import psycopg
import pytest
from tests.support.servers import binaries, versions
from tests.support.supabase import Standin
from tests.support.watching import AnonWatcher

VERSION = next((v for v in versions() if v == 15), versions()[-1])


@pytest.fixture(scope="module")
def project() -> Iterator[Standin]:
    """A full project; it plays both parts, so that every watched relation is there."""
    assert binaries(VERSION) is not None
    with Standin.start(VERSION) as full:
        full.fill_customer()
        yield full


def test_the_watcher_sees_rows_that_are_open_for_a_moment(project: Standin) -> None:
    """A privilege given and taken again while it looks; nothing else is seen."""
    with AnonWatcher(project, project) as watcher, psycopg.connect(project.url(), autocommit=True) as connection:
        assert "payments" in watcher.relations
        connection.execute("ALTER TABLE public.payments DISABLE ROW LEVEL SECURITY")
        connection.execute("GRANT SELECT ON public.payments TO anon")
        known = watcher.looks
        while watcher.looks < known + 2 * len(watcher.relations) and watcher.is_alive():
            pass
        connection.execute("REVOKE SELECT ON public.payments FROM anon")
        connection.execute("ALTER TABLE public.payments ENABLE ROW LEVEL SECURITY")
    assert set(watcher.seen) == {"payments"}


def test_a_connection_that_died_is_not_taken_for_seeing_nothing(project: Standin) -> None:
    """Ended by the server in the middle of its looks."""
    with (
        pytest.raises(AssertionError, match="went blind"),
        AnonWatcher(project, project) as watcher,
        psycopg.connect(project.admin_url, autocommit=True) as connection,
    ):
        while watcher.looks < len(watcher.relations):
            pass
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'authenticator'")
        watcher.join(30)
