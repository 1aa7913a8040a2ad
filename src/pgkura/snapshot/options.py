"""The budgets of a snapshot: what it may cost the database it is taken from."""

from dataclasses import dataclass
from typing import Literal

from pgkura.core.errors import UsageError
from pgkura.snapshot.detector import DEFAULT_POLICY, Policy

MIB = 1024 * 1024
DEFAULT_SNAPSHOT_AGE = 6 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All have defaults that are safe for a small hosted database.

    workers                   connections that move rows at once; the plan may use fewer, never more
    chunk_bytes               plain bytes of COPY text per chunk; memory grows with it
    range_pages               heap pages that are followed, read and given up together
    full                      read everything, whatever is known of the last run
    doubt_stored              look whether what would be built upon still lies in the store; else read it again
    follow                    how long what is known of a range is built upon
    small_bytes               tables up to this size are read whole when they changed
    checkpoint_seconds        how much reading a run that is cut short may lose
    max_blocking_seconds      how long a statement of the application may wait on us before we give way
    max_snapshot_age_seconds  how long the snapshot may hold back VACUUM: at half of it a note gives the numbers
    end_at_snapshot_age       the backup ends with SourceBusy at that age; otherwise only another note
    connection_share          of the free connections of server, database and role, at most
    lock_share                of max_locks_per_transaction × (max_connections + max_prepared_transactions), at most
    attempts                  whole attempts (locks, snapshot, pg_dump) before SourceBusy
    late_lock_seconds         how long, in short waits, a table that could not be locked is asked for again
    bytes_per_second          of rows and lists of places from the server, all workers together; 0 = as fast as it goes
    cpu_share                 of its time in which a statement of a worker runs; the rest of the time it pauses
    statement_timeout_seconds of statements that read rows; 0 = none
    lock_timeout_seconds      how long a LOCK of ours waits; 0 = from max_blocking_seconds
    gentle                    tables whole and one stream each: never page ranges, which bypass the server's ring buffer
    storage_class             for row data, where the store has classes
    lock_days                 for how long the store shall keep what the snapshot needs; 0 = no lock
    accepted                  names of `denied` objects that the operator waived
    executor                  "auto": threads for small databases and few workers, else processes (work/pools.py)
    """

    workers: int = 2
    chunk_bytes: int = 8 * MIB
    range_pages: int = 512
    full: bool = False
    doubt_stored: bool = False
    follow: Policy = DEFAULT_POLICY
    small_bytes: int = 64 * 1024
    checkpoint_seconds: float = 30.0
    max_blocking_seconds: float = 2.0
    max_snapshot_age_seconds: float = DEFAULT_SNAPSHOT_AGE
    end_at_snapshot_age: bool = False
    connection_share: float = 0.25
    lock_share: float = 0.25
    attempts: int = 3
    late_lock_seconds: float = 60.0
    bytes_per_second: int = 0
    cpu_share: float = 1.0
    statement_timeout_seconds: float = 0.0
    lock_timeout_seconds: float = 0.0
    gentle: bool = False
    storage_class: str = ""
    lock_days: int = 0
    accepted: tuple[str, ...] = ()
    executor: Literal["auto", "threads", "processes"] = "auto"

    def __post_init__(self) -> None:
        wrong = [
            name
            for name, ok in (
                ("workers", 1 <= self.workers <= 64),
                ("chunk_bytes", 64 * 1024 <= self.chunk_bytes <= 256 * MIB),
                ("range_pages", 1 <= self.range_pages <= 131072),
                ("max_blocking_seconds", self.max_blocking_seconds >= 0.1),
                ("connection_share", 0 < self.connection_share <= 1),
                ("lock_share", 0 < self.lock_share <= 1),
                ("attempts", 1 <= self.attempts <= 20),
                ("bytes_per_second", self.bytes_per_second >= 0),
                ("cpu_share", 0.05 <= self.cpu_share <= 1),
                ("max_snapshot_age_seconds", self.max_snapshot_age_seconds > 0),
                ("follow.share", self.follow.share >= 0),
                ("follow.days", self.follow.days >= 1),
                ("statement_timeout_seconds", _none_or_at_least(self.statement_timeout_seconds, 0.01)),
                ("lock_timeout_seconds", _none_or_at_least(self.lock_timeout_seconds, 0.01)),
            )
            if not ok
        ]
        if wrong:
            raise UsageError(f"out of range: {', '.join(wrong)}")

    @property
    def lock_wait_ms(self) -> int:
        """How long one LOCK of ours may wait: well inside the bound, so that we never queue long before others."""
        if self.lock_timeout_seconds:
            return round(self.lock_timeout_seconds * 1000)
        return max(50, min(500, int(self.max_blocking_seconds * 250)))

    @property
    def queue_wait_ms(self) -> int:
        """How long the catalog reader and pg_dump may queue behind a waiting statement of the application: until
        the holder in its way has been released and the statement has run."""
        return int(max(self.max_blocking_seconds, self.lock_timeout_seconds) * 1000)

    @property
    def give_way_seconds(self) -> float:
        """When to act on a waiter: early enough that cancelling still ends within the bound."""
        return self.max_blocking_seconds * 0.4

    @property
    def poll_seconds(self) -> float:
        """How often the watcher looks."""
        return min(0.5, self.max_blocking_seconds / 8)


def _none_or_at_least(seconds: float, least: float) -> bool:
    return seconds == 0 or seconds >= least
