"""A prune in a process of its own that kills itself: `python -m tests.support.prune_child FOLDER STEP LAST AGE`.

SIGKILL comes before the STEPth write or delete (0 = never). Files that were there when it began count as AGE seconds
older. Prints the number of steps it took. The host key comes from PGKURA_HOST_KEY; with IDENTITY packs are packed
anew; FAN segments of a change log become a bundle.
"""

import os
import signal
import sys
from pathlib import Path

from tests.support.shelf import Aged

from pgkura.changes import spans
from pgkura.core.progress import Silent
from pgkura.operations.prune import execute_prune, plan_prune
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.local import LocalStorage


class Mortal(Aged):
    """Dies before its nth write or delete."""

    steps = 0
    last = 0

    def before(self, act: str, key: str) -> None:
        """Count, and die."""
        super().before(act, key)
        if act in ("put", "create", "delete"):
            self.steps += 1
            if self.steps == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Prune."""
    folder, step, last, age = sys.argv[1:5]
    store = Mortal(LocalStorage(Path(folder)), seconds=float(age))
    identity = os.environ.get("IDENTITY")
    repo = Repository.open(
        store,
        identity=Identity.parse(identity) if identity else None,
        host=HostKey.parse(os.environ["PGKURA_HOST_KEY"]),
    )
    store.last = int(step)
    if "FAN" in os.environ and spans.plan_bundles.__kwdefaults__ is not None:
        spans.plan_bundles.__kwdefaults__["fan"] = int(os.environ["FAN"])
    planned = plan_prune(
        repo,
        Rules(last=int(last)),
        grace=int(os.environ.get("GRACE", "0")),
        repack_below=0.8 if identity else None,
        repack_least=1,
        progress=Silent(),
    )
    execute_prune(planned, progress=Silent())
    print(store.steps, flush=True)


if __name__ == "__main__":
    main()
