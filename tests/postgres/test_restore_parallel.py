"""Jobs on connections of a real server."""

import threading

import psycopg
from tests.support.psql import with_user
from tests.support.servers import newest

from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
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
