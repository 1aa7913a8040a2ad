"""What a run that is cut short leaves: from time to time, an index of what is stored, and a state of what was read.

The next run finds chunks that are stored already, and goes on from the state of the ranges that were read, at their own
snapshot's xmin. A state that is complete is newer than all of these, so nothing has to be removed.
"""

import time
from collections.abc import Callable, Iterator

from pgkura.repository.repository import Repository
from pgkura.snapshot.attempt import Seen
from pgkura.snapshot.booked import Booked
from pgkura.snapshot.components import store_parts
from pgkura.snapshot.detector import Point
from pgkura.snapshot.ledger import Ledger
from pgkura.snapshot.state import FollowedRange, TableKey, write_state

# So much work may be lost, in seconds: more where writing takes longer than a second, so that it stays a small share.
EVERY = 30.0


def partial_name(repo: Repository, point: Point) -> str:
    """Whose it is: a database on a server, in an epoch. Says nothing of it in clear."""
    return f"partial-{repo.mac(f'{point.system} {point.database} {repo.epoch}'.encode())[:16]}"


class Checkpoint:
    """Call it often, from the thread that feeds the ledger: it acts when it is time.

    `flushed`: whether the server's log is on its disk up to the snapshot; what a crash may take back is no state.
    """

    def __init__(
        self,
        repo: Repository,
        seen: Seen,
        ledger: Ledger,
        booked: Booked,
        *,
        flushed: Callable[[], bool],
        pages: int,
        today: str,
        every: float = EVERY,
    ) -> None:
        self._repo = repo
        self._seen = seen
        self._ledger = ledger
        self._booked = booked
        self._flushed = flushed
        self._pages = pages
        self._today = today
        self._every = every
        self._last = time.monotonic()
        self._wait = every

    def __call__(self) -> None:
        """Write what there is, if the last time is long ago."""
        begun = time.monotonic()
        if begun - self._last < self._wait:
            return
        self._repo.store_index(self._booked.untold())
        self._booked.told()
        point = self._seen.point
        if point is not None and self._flushed():
            parts = store_parts(self._repo, write_state(point, self._pages, self._tables()))
            self._repo.store_index(parts.new)
            self._repo.put_state(partial_name(self._repo, point), parts.refs)
        self._last = time.monotonic()
        self._wait = self._every * max(1.0, self._last - begun)

    def _tables(self) -> Iterator[tuple[int, TableKey, Iterator[FollowedRange]]]:
        for number, ranges in self._ledger.followed(self._today):
            oid = self._seen.facts.tables[number].oid
            if oid in self._seen.keys:
                yield oid, self._seen.keys[oid], ranges
