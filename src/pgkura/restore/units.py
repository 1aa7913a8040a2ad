"""Rows of tables as a unit of work: references and a description, never a credential. Runs in any process."""

from collections.abc import Callable
from dataclasses import dataclass

from pgkura.core.access import Access
from pgkura.core.errors import Interrupted
from pgkura.core.stop import Stop
from pgkura.postgres.session import Session
from pgkura.repository.repository import Repository
from pgkura.restore.load import Item, Loaded, Loader
from pgkura.work.station import station_for


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadUnit:
    """What one worker loads: one table, small ones in one transaction, or parts of a large one in one each.

    settings  of the worker's connection
    fence     number of an advisory lock that the restore holds while workers may write; 0 = they are our own
    ledger    whether what is loaded is told in the target (ledger.py)
    epoch     that of the snapshot, for the cuts and sums that the proof goes by; 0 = none are wanted
    draw      of this restore: what the key of the sums is made from
    """

    access: Access
    items: tuple[Item, ...]
    settings: tuple[str, ...]
    fence: int = 0
    ledger: bool = False
    epoch: int = 0
    draw: str = ""

    @property
    def title(self) -> str:
        """For people."""
        more = f" and {len(self.items) - 1} more tables" if len({item.load.target for item in self.items}) > 1 else ""
        return f"rows of {self.items[0].load.target}{more}"

    @property
    def bytes(self) -> int:
        """Plain bytes."""
        return sum(item.load.data.bytes for item in self.items)

    @property
    def application_name(self) -> str:
        """How the workers' connections are known on the server."""
        return application_name(self.access)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What became of a unit's items. `untold`: bytes of it that nobody was told of while they went."""

    loaded: tuple[Loaded, ...]
    untold: int


def application_name(access: Access) -> str:
    """Of the workers' connections in one restore."""
    return f"pgkura restore {access.run}".strip()


def repeatable(unit: LoadUnit) -> bool:
    """Whether loading it again gives the same rows, so that a unit whose worker vanished may simply run again. Pure.

    With a ledger everything is. Else: a plain table is emptied in the same transaction; a platform's table, and a root
    that several leaves are loaded through, are emptied once for all. Mirrors load.Loader.
    """
    return unit.ledger or all(
        (item.alone and item.truncate) or (item.load.delete_where is not None and not item.load.managed)
        for item in unit.items
    )


def load_unit(unit: LoadUnit) -> LoadReport:
    """Load. Raises only what ends the whole run."""
    station = station_for(unit.access)
    shared = station.shared()
    with station.using(unit.application_name, unit.settings) as session:
        if unit.fence:
            _stay_inside(session, unit.fence)
        return load_here(unit, session, shared.repo, shared.stop, shared.moved)


def load_here(
    unit: LoadUnit, session: Session, repo: Repository, stop: Stop, tell: Callable[[int], None] | None = None
) -> LoadReport:
    """Load on this connection; `tell` of bytes as they go."""
    left = unit.bytes

    def sent(count: int) -> None:
        nonlocal left
        count = min(count, left)  # what is tried twice counts once
        left -= count
        if tell is not None:
            tell(count)

    loader = Loader(
        session=session, repo=repo, stop=stop, ledger=unit.ledger, epoch=unit.epoch, draw=unit.draw, sent=sent
    )
    loaded = tuple(loader.together(unit.items))
    return LoadReport(loaded=loaded, untold=unit.bytes if tell is None else left)


def _stay_inside(session: Session, fence: int) -> None:
    """A worker that was given up for lost must not write once the restore has gone on.

    The restore lets the fence go first and ends the workers' connections then: whoever comes later finds it open.
    """
    (free,) = session.one("SELECT pg_catalog.pg_try_advisory_xact_lock_shared(%s)", (fence,))
    if free:
        raise Interrupted("the restore went on without this worker", hint="nothing was written here")
