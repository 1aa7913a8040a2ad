"""`unwatch`: the end of a database's change log on purpose: slot and publications go, the log says so, and stays."""

from dataclasses import dataclass
from typing import Any

from pgkura.changes.chains import end_chain
from pgkura.core.errors import DatabaseError, SourceBusy
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress
from pgkura.operations.watch import remove_triggers
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.facts import read_system_identifier
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.slots import drop_slot, our_slots, read_slot
from pgkura.repository.changes import END, HEAD
from pgkura.repository.repository import Repository

_NO_RIGHT = "42501"
REASON = "it was ended by `pgkura unwatch`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwatched:
    """Chains that were ended, slots that are no longer there, and those that look like ours but stayed."""

    chains: tuple[str, ...]
    dropped: tuple[str, ...]
    stayed: tuple[str, ...]

    @property
    def result(self) -> Result:
        """Incomplete where something like ours is still on the server."""
        return Result.INCOMPLETE if self.stayed else Result.OK

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result.value,
            "chains": list(self.chains),
            "dropped": list(self.dropped),
            "stayed": list(self.stayed),
        }


def unwatch(source: Endpoint, repo: Repository, progress: Progress, *, force: bool, every: bool) -> Unwatched:
    """`force`: even while a watcher reads; `every`: slots too that this repository knows nothing of.

    Raises SourceBusy.
    """
    repo.need_host()
    with connect(source, application_name="pgkura unwatch") as session:
        session.execute("SET lock_timeout = '5s'")
        known = _unended(repo, session)
        found = our_slots(session)
        mine = {slot for _, slot in known}
        going = [slot for slot in found if every or slot in mine]
        for slot in going:
            state = read_slot(session, slot)
            if state is not None and state.reader and not force:
                raise SourceBusy(
                    f"a watcher reads slot {slot}",
                    detail=f"it is the server's process {state.reader}",
                    hint="stop the watcher first, or use --force",
                )
        ended = []
        for chain, slot in known:
            progress.note(f"ending chain {chain}")
            end_chain(repo, session, chain, slot, REASON, unseat=force)
            ended.append(chain)
        for slot in set(going) - mine:
            drop_slot(session, slot, unseat=force)
        made = Unwatched(
            chains=tuple(ended), dropped=tuple(going), stayed=tuple(slot for slot in found if slot not in going)
        )
    if made.chains or made.dropped:
        repo.append_journal("unwatch", {"chains": list(made.chains), "slots": list(made.dropped)})
    with connect(source, application_name="pgkura unwatch") as session:
        session.execute("SET lock_timeout = '5s'")
        try:
            remove_triggers(session)
        except SqlError as error:
            if error.sqlstate != _NO_RIGHT:  # a role that could not have made them either
                raise
    return made


def _unended(repo: Repository, session: Session) -> list[tuple[str, str]]:
    """(chain, slot) of this database, newest first."""
    system = read_system_identifier(session)
    if not system:
        raise DatabaseError(
            "the server does not say which one it is", hint="GRANT EXECUTE ON FUNCTION pg_control_system"
        )
    database = str(session.one("SELECT pg_catalog.current_database()::text")[0])
    chains = []
    for chain in reversed(repo.chain_ids()):
        head = repo.chain_record(chain, HEAD)
        if head is None or (head["system"], head["database"]) != (system, database):
            continue
        if repo.chain_record(chain, END) is None:
            chains.append((chain, str(head["slot"])))
    return chains
