"""Over which kind of connection a change log is read: replication where it can be had, else SQL functions."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

from pgkura.core.errors import DatabaseError
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.polling import Polling
from pgkura.postgres.replication import Alive, Begun, Frame, Identity, Replication, nothing
from pgkura.postgres.session import Session

Wanted = Literal["auto", "stream", "sql"]
_SYNTAX_ERROR = "42601"
# What servers and poolers say to a replication connection that they would take as an ordinary one.
_REFUSALS = (
    ("startup parameter", "the pooler does not know replication connections"),
    ("pg_hba.conf", "the server's rules allow no replication connection from here"),
    ("max_wal_senders", "all places for replication connections (max_wal_senders) are in use"),
    ("reserved for roles with", "all places for connections of roles like this are in use"),
)
# Reading by SQL needs the same right.
_NO_RIGHT = ("replication role", "start wal sender", "replication attribute")


class LogReader(Protocol):
    """What a watcher reads a slot with."""

    @property
    def kind(self) -> str:
        """`stream` or `sql`."""
        ...

    @property
    def rested(self) -> bool:
        """Whether nothing more comes before what came is stored: to wait for more would be in vain."""
        ...

    def identify(self) -> Identity:
        """Which server answers here."""
        ...

    def history(self, timeline: int) -> tuple[tuple[int, int], ...]:
        """(timeline, where it was left) of all that came before this one, as far as it is told."""
        ...

    def start(self, slot: str, publications: Sequence[str], position: int, begun: Begun = nothing) -> None:
        """Begin to receive. `begun` is called whenever a slot was taken that others could have moved before."""
        ...

    def receive(self, seconds: float) -> Iterator[Frame | Alive]:
        """What is there, or comes within `seconds`."""
        ...

    def confirm(self, lsn: int) -> None:
        """Everything up to here is stored for good."""
        ...

    def keep_alive(self) -> None:
        """Say that we live, if it is time."""
        ...

    def close(self) -> None:
        """Close; idempotent."""
        ...


class Transports:
    """Opens readers; says once which one it fell back to, and why."""

    def __init__(self, wanted: Wanted, period: float, note: Callable[[str], None]) -> None:
        self._wanted, self._period, self._note = wanted, period, note
        self._said = ""

    def open(self, session: Session, endpoint: Endpoint, *, application_name: str) -> LogReader:
        """`session`: an ordinary connection to the same place, which works. Raises DatabaseError."""
        if self._wanted != "sql":
            try:
                return streaming(endpoint, application_name=application_name)
            except DatabaseError as error:
                why = refusal(error, pooled=session.pooled)
                if not why:
                    raise
                if self._wanted == "stream":
                    raise DatabaseError(
                        error.msg, detail=why, hint="use the direct host, or --transport sql"
                    ) from error
            if why != self._said:
                self._said = why
                self._note(f"{why}: the log is read by SQL functions, which costs the server more")
        return Polling.open(endpoint, application_name=application_name, period=self._period)


def streaming(endpoint: Endpoint, *, application_name: str) -> Replication:
    """A replication connection that is one, whatever a pooler made of it. Raises DatabaseError."""
    replication = Replication.open(endpoint, application_name=application_name)
    try:
        replication.identify()
    except BaseException:
        replication.close()
        raise
    return replication


def refusal(error: DatabaseError, *, pooled: bool) -> str:
    """Why there is no replication connection where an ordinary one works; '' if that is not the reason. Pure."""
    said = f"{error.msg} {error.detail}".lower()
    if any(words in said for words in _NO_RIGHT):
        return ""
    if getattr(error, "sqlstate", "") == _SYNTAX_ERROR:
        return "the pooler made an ordinary connection of it"
    for words, why in _REFUSALS:
        if words in said:
            return why
    return "the pooler gives no replication connection" if pooled else ""
