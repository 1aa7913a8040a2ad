"""One table's rows as a unit of work: references and a description, never a credential. Runs in any process."""

from dataclasses import dataclass

from pgkura.core.access import Access
from pgkura.core.errors import Interrupted
from pgkura.core.outcome import Finding
from pgkura.postgres.session import Session
from pgkura.restore.load import load_table
from pgkura.restore.loads import Load
from pgkura.work.station import station_for


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadUnit:
    """What one worker loads in one transaction.

    path      a SET search_path to try once more with
    settings  of the worker's connection
    fence     number of an advisory lock that the restore holds while workers may write; 0 = they are our own
    """

    access: Access
    load: Load
    path: str
    settings: tuple[str, ...]
    fence: int = 0

    @property
    def title(self) -> str:
        """For people."""
        return f"rows of {self.load.target}"

    @property
    def application_name(self) -> str:
        """How the workers' connections are known on the server."""
        return application_name(self.access)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What became of a unit; fields as in Loaded."""

    rows: int
    finding: Finding | None
    by_path: bool


def application_name(access: Access) -> str:
    """Of the workers' connections in one restore."""
    return f"pgkura restore {access.run}".strip()


def repeatable(load: Load) -> bool:
    """Whether loading it again gives the same rows, so that a unit whose worker vanished may simply run again. Pure.

    Its own table is emptied in the same transaction; a platform's table, and a root that several leaves are loaded
    through, are emptied once for all. Mirrors load.load_table.
    """
    facts = load.facts
    own = facts is not None and facts.kind == "r" and not facts.load_root
    return not load.managed and (own or load.delete_where is not None)


def load_unit(unit: LoadUnit) -> LoadReport:
    """Load one table. Raises only what ends the whole run."""
    station = station_for(unit.access)
    shared = station.shared()
    with station.using(unit.application_name, unit.settings) as session:
        if unit.fence:
            _stay_inside(session, unit.fence)
        loaded = load_table(session, shared.repo, unit.load, shared.stop, unit.path)
    return LoadReport(rows=loaded.rows, finding=loaded.finding, by_path=loaded.by_path)


def _stay_inside(session: Session, fence: int) -> None:
    """A worker that was given up for lost must not write once the restore has gone on.

    The restore lets the fence go first and ends the workers' connections then: whoever comes later finds it open.
    """
    (free,) = session.one("SELECT pg_catalog.pg_try_advisory_xact_lock_shared(%s)", (fence,))
    if free:
        raise Interrupted("the restore went on without this worker", hint="nothing was written here")
