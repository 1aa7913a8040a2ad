"""A watcher by SQL that kills itself between storing and advancing: `python -m tests.support.mortal_watcher FOLDER`.

The database comes from DATABASE_URL, the host key from PGKURA_HOST_KEY.
"""

import os
import signal
import sys
from pathlib import Path

from pgkura.changes.options import Options
from pgkura.changes.watching import follow
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.polling import Polling
from pgkura.repository.keys import HostKey
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage


def main() -> None:
    """Follow until something is stored that the server does not know of."""
    host = HostKey.parse(Path(os.environ["PGKURA_HOST_KEY"]).read_text())
    repo = Repository.open(LocalStorage(Path(sys.argv[1])), host=host)
    confirm = Polling.confirm

    def mortal(self: Polling, lsn: int) -> None:
        confirm(self, lsn)
        os.kill(os.getpid(), signal.SIGKILL)

    Polling.confirm = mortal  # type: ignore[method-assign]
    follow(Endpoint.parse(os.environ["DATABASE_URL"]), repo, Options(period=0.2, transport="sql"), Silent(), Stop())


if __name__ == "__main__":
    main()
