"""What the watcher asks, four times a second, must not cost the source much however many locks there are."""

import psycopg
from tests.support.servers import newest

from pgkura.snapshot.queries import query


def test_the_lock_table_is_not_joined_with_itself_where_nothing_is_replayed() -> None:
    """10,000 tables are some 40,000 locks: sorting them took seconds, in which nobody saw who waits."""
    with psycopg.connect(newest().url(), autocommit=True) as connection:
        plan = connection.execute(b"EXPLAIN (ANALYZE, TIMING off) " + query("waits").encode(), ("pgkura x ",))
        lines = [line for (line,) in plan.fetchall()]
    scans = [line for line in lines if "Function Scan on pg_lock_status" in line]
    assert len(scans) == 3
    assert sum("never executed" in line for line in scans) == 2
