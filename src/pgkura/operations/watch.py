"""`watch` and `mark`: follow a database's change log; name a moment in it."""

from dataclasses import dataclass
from typing import Any

from pgkura.changes.options import Options, Watched
from pgkura.changes.rebasing import BaseTaker
from pgkura.changes.segment import MARK
from pgkura.changes.watching import follow
from pgkura.core.errors import UsageError
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.postgres import ddl_messages, letting_go
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.repository.repository import Repository

_LONGEST_NAME = 200
_WATCHED = (
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name ~ '^pgkura_[0-9a-f]{8}$' "
    "AND plugin = 'pgoutput' AND database = pg_catalog.current_database())"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResult:
    """What `watch` prints when it ends; as_json is the documented object."""

    told: Watched

    @property
    def result(self) -> Result:
        """Incomplete where what was committed in a hole can never be restored by moment."""
        return Result.INCOMPLETE if self.told.holes else Result.OK

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        told = self.told
        return {
            "result": self.result.value,
            "chain": told.chain,
            "position": told.position,
            "segments": told.segments,
            "transactions": told.transactions,
            "bytes_stored": told.bytes,
            "holes": told.holes,
            "bases": told.bases,
            "transport": told.transport,
        }


def watch(
    source: Endpoint, repo: Repository, options: Options, progress: Progress, stop: Stop, taker: BaseTaker | None = None
) -> WatchResult:
    """Until stopped. Holes are journaled by their chain's end record, bases that `taker` makes by `base` records."""
    return WatchResult(told=follow(source, repo, options, progress, stop, taker))


def event_triggers(source: Endpoint, *, wanted: bool) -> None:
    """Make them, or take them away. Raises RightsError where this role may not."""
    with connect(source, application_name="pgkura watch") as session:
        if wanted:
            ddl_messages.install(session)
            letting_go.install(session)
        else:
            remove_triggers(session)


def remove_triggers(session: Session) -> None:
    """Whatever is left of them. Raises SqlError."""
    letting_go.remove(session)
    ddl_messages.remove(session)


def mark(source: Endpoint, name: str) -> str:
    """Name the moment: a transaction of its own in the log. Returns its position."""
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise UsageError("a mark needs a printable name", detail=f"of 1 to {_LONGEST_NAME} characters")
    with connect(source, application_name="pgkura mark") as session:
        if not session.one(_WATCHED)[0]:
            raise UsageError(
                "this database has no change log: nobody would keep the mark",
                hint="`pgkura watch` begins one, `pgkura backup` makes its first base",
            )
        session.execute("SET synchronous_commit = on")
        return str(session.one("SELECT pg_catalog.pg_logical_emit_message(true, %s, %s)::text", (MARK, name))[0])
