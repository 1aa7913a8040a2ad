"""Who waits on us, and what we give up for them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

# Well before a server's usual deadlock_timeout of a second, whatever bound was given.
STUCK_SECONDS = 0.3


class Part(StrEnum):
    """What a connection of ours is for; the last word of its application_name."""

    EXPORTER = "exporter"
    READER = "reader"
    HOLDER = "holder"
    WORKER = "worker"
    CLERK = "clerk"
    DUMP = "dump"
    WATCHER = "watcher"


def application_name(run: str, part: Part) -> str:
    """How our connections are known in pg_stat_activity; short enough for its 63 bytes."""
    return f"pgkura {run} {part.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Somebody else waits `seconds` for a lock, and a connection of ours is among those in the way.

    stuck  it waits for a lock itself: this may be a deadlock, whose victim the server would choose
    """

    waiter: int
    kind: str
    relation: int
    seconds: float
    blocker: int
    part: Part
    stuck: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Concessions:
    """What to give up now, as process ids on the server.

    release    holders to roll back
    cancel     statements of workers to cancel
    terminate  connections to end: cancelled before in vain, or pg_dump and the reader, whose attempt is repeated
    patient    waiters on our snapshot itself (CREATE INDEX CONCURRENTLY): nothing but ending the backup helps
               them, they hold up nobody else, and they are only named
    """

    release: frozenset[int] = frozenset()
    cancel: frozenset[int] = frozenset()
    terminate: frozenset[int] = frozenset()
    patient: frozenset[int] = frozenset()

    @property
    def any(self) -> bool:
        """Whether something is given up."""
        return bool(self.release or self.cancel or self.terminate)


def decide_concessions(waits: Iterable[Wait], *, bound: float, cancelled: frozenset[int]) -> Concessions:
    """Give up whatever stands in the way of a waiter older than `bound` seconds."""
    release, cancel, terminate, patient = set(), set(), set(), set()
    for wait in waits:
        hopeless = wait.stuck and wait.part in (Part.DUMP, Part.READER)
        if wait.seconds < (min(bound, STUCK_SECONDS) if hopeless else bound):
            continue
        if wait.part is Part.HOLDER:
            release.add(wait.blocker)
        elif wait.kind == "virtualxid" or wait.part is Part.EXPORTER:
            patient.add(wait.waiter)
        elif wait.part in (Part.WORKER, Part.CLERK) and wait.blocker not in cancelled:
            cancel.add(wait.blocker)
        else:
            terminate.add(wait.blocker)
    return Concessions(
        release=frozenset(release),
        cancel=frozenset(cancel),
        terminate=frozenset(terminate),
        patient=frozenset(patient),
    )
