"""Memory of a process that received a large row, then small ones: `python -m tests.support.large_row_child [WAY]`.

A process of its own with the allocator set as the product sets it: what else a test process did is not measured.
WAY "as if encrypted": as from an encrypted connection. The database comes from DATABASE_URL. Prints how many bytes more
it holds than before.
"""

import os
import sys

from pgkura.core.memory import sample, use_again
from pgkura.postgres import session as sessions
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect


def main() -> None:
    """Receive and measure."""
    use_again()
    if sys.argv[1:] == ["as if encrypted"]:
        vars(sessions)["plain"] = lambda pgconn: False
    with connect(Endpoint.parse(os.environ["DATABASE_URL"]), application_name="large row") as session:
        small = "COPY (SELECT repeat('x', 100) FROM generate_series(1, 100000)) TO STDOUT"
        received = sum(len(b.data) for b in session.copy_out(small))
        before = sample()
        assert sum(len(b.data) for b in session.copy_out("COPY public.wide TO STDOUT")) == 40_000_001
        assert sum(len(b.data) for b in session.copy_out(small)) == received
        print(sample() - before)


if __name__ == "__main__":
    main()
