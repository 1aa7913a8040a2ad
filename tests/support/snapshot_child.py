"""A backup in a process of its own, to be killed: `python -m tests.support.snapshot_child REPOSITORY EXECUTOR RATE`.

The source's URL comes from DATABASE_URL, the host key from PGKURA_HOST_KEY.
"""

import os
import signal
import sys

from pgkura.core.access import Access
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.keys import HostKey
from pgkura.repository.repository import Repository
from pgkura.snapshot.options import Options
from pgkura.snapshot.take import take
from pgkura.storage.opening import open_storage


class _Told:
    """Each stage as a line on stdout, so that the parent knows when it begins."""

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        """Say it."""
        print(name, flush=True)

    def advance(self, amount: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def main() -> None:
    """Take one snapshot."""
    # A background job of a shell starts with SIGINT ignored, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, executor, rate = sys.argv[1:4]
    repo = Repository.open(open_storage(folder), host=HostKey.parse(os.environ["PGKURA_HOST_KEY"]))
    access = Access(database="env:DATABASE_URL", repository=folder, host_key="env:PGKURA_HOST_KEY")
    options = Options(
        executor="processes" if executor == "processes" else "threads",
        chunk_bytes=1024 * 1024,
        bytes_per_second=int(rate),
        full=True,  # to be killed while it reads
    )
    taken = take(Endpoint.parse(os.environ["DATABASE_URL"]), repo, options, _Told(), access=access, stop=Stop())
    print(taken.manifest.id, flush=True)


if __name__ == "__main__":
    main()
