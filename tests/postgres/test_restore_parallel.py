"""Jobs on connections of a real server."""

import os
import threading

import psycopg
from tests.support.psql import with_user
from tests.support.servers import newest

from pgkura.core.processors import processors_of
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.restore.building import build_helpers, building
from pgkura.restore.parallel import Job, run_jobs


def test_a_server_without_more_connections_is_made_do_with() -> None:
    home = newest()
    with psycopg.connect(home.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS narrow")
        connection.execute("CREATE ROLE narrow LOGIN PASSWORD 'narrow' CONNECTION LIMIT 2")
    endpoint = Endpoint.parse(with_user(home.url(), "narrow", "narrow"))
    seen: set[int] = set()
    lock = threading.Lock()

    def work(session: Session) -> None:
        session.execute("SELECT pg_catalog.pg_sleep(0.05)")
        with lock:
            seen.add(session.pid)

    jobs = [Job(gives=frozenset({n}), light=True, size=1, work=work) for n in range(12)]
    done = run_jobs(jobs, None, lambda: connect(endpoint, application_name="test"), parallel=4, stop=Stop())
    assert sum(job.size for job, _ in done) == 12
    assert len(seen) == 2
    with psycopg.connect(home.url(), autocommit=True) as connection:
        connection.execute("DROP ROLE narrow")


def test_builders_of_indexes_share_the_processors_of_a_server_that_is_here() -> None:
    """Never more than the target has itself; nothing is set where the server's processors are not known."""
    processors = len(os.sched_getaffinity(0))
    with connect(Endpoint.parse(newest().url()), application_name="test") as session:
        assert processors_of(session.pid) == processors
        session.execute("SET max_parallel_maintenance_workers = 1")
        for parallel in (1, 2, processors, 1000):
            made = building(session, parallel, ())
            assert made.helpers == min(1, max(0, processors // parallel - 1))
            for statement in made.settings:
                session.execute(statement)
            assert session.one("SELECT current_setting('max_parallel_maintenance_workers')::int") == (made.helpers,)
            session.execute("SET max_parallel_maintenance_workers = 1")
        session.execute("SET max_parallel_maintenance_workers = 0")
        assert building(session, 1, ()).helpers == 0
        # What a session has by itself is never taken from it.
        session.execute("SET maintenance_work_mem = '3GB'")
        assert building(session, 1, ()).memory == 3 << 30
        session.execute("RESET maintenance_work_mem")
        (own,) = session.one("SELECT pg_size_bytes(current_setting('maintenance_work_mem'))")
        assert building(session, 1000, ()).memory == own
    assert build_helpers(None, 1, 2) is None
    assert processors_of(os.getpid()) is None, "no server"
    assert processors_of(2**22 + 1) is None, "no process"
