"""What a worker keeps between units: its connections (one set per thread) and its repository (one per process).

Built from the unit's references on first use; `seed` hands the main process's own repository to worker threads.
Everything is kept by Access, which names its run: nothing that one run saw is believed by the next.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, Thread, local
from typing import Any, Protocol

from pgkura import __version__
from pgkura.core.access import HOST_KEY_MARK, IDENTITY_MARK, Access, hold, resolve, resolve_key
from pgkura.core.errors import Interrupted, PgkuraError
from pgkura.core.memory import rarely_collect, use_again
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.storage.opening import open_storage

# Repositories that a worker of many runs keeps open: each holds an index in memory.
_KEPT_REPOSITORIES = 4
# Runs that such a worker remembers to be over.
_KEPT_LEFT = 1000


class Unit(Protocol):
    """What every unit of work has."""

    @property
    def access(self) -> Access:
        """References to what it works on."""
        ...

    @property
    def title(self) -> str:
        """What it is, for people."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the threads of a process share in one run. `moved` counts bytes for people, where they are near."""

    repo: Repository
    stop: Stop = field(default_factory=Stop)
    moved: Callable[[int], None] | None = None


class Station:
    """One worker thread's desk."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sessions: dict[str, Session] = {}

    def session(self, application_name: str, settings: Sequence[str] = ()) -> Session:
        """The connection of this name, opened when there is none that works; `settings` are run once on it."""
        session = self._sessions.get(application_name)
        if session is not None and session.broken:
            self.discard(application_name)
            session = None
        if session is None:
            session = self._open(application_name, settings)
            self._sessions[application_name] = session
        return session

    def discard(self, application_name: str) -> None:
        """Close a connection that failed."""
        session = self._sessions.pop(application_name, None)
        if session is not None:
            session.close()

    @contextmanager
    def using(self, application_name: str, settings: Sequence[str] = ()) -> Iterator[Session]:
        """The same; an error closes the connection, whatever state it was left in."""
        if leaving(self._access):
            raise Interrupted("the run is over")
        session = self.session(application_name, settings)
        try:
            yield session
        except BaseException:
            self.discard(application_name)
            raise

    def repository(self) -> Repository:
        """The process's repository."""
        return self.shared().repo

    def shared(self) -> Shared:
        """What all threads of this process share."""
        return _shared_by(self._access)

    def cancel(self) -> int:
        """Cancel what runs on the connections, from another thread; returns how many there were."""
        sessions = tuple(self._sessions.values())
        for session in sessions:
            session.cancel()
        return len(sessions)

    def close(self) -> None:
        """Close all connections."""
        for name in tuple(self._sessions):
            self.discard(name)

    def _open(self, application_name: str, settings: Sequence[str]) -> Session:
        endpoint = Endpoint.parse(resolve(self._access.database), insecure=self._access.insecure_database)
        session = connect(endpoint, application_name=application_name)
        try:
            # Whoever ended the run did not see a connection that was only being made.
            if leaving(self._access):
                raise Interrupted("the run is over")
            if settings:
                session.script("; ".join(settings))
        except BaseException:
            session.close()
            raise
        return session


_shared: dict[Access, Shared] = {}
_seeded: set[Access] = set()
_stations: dict[Access, list[Station]] = {}
_leaving: dict[Access, None] = {}
_mine = local()
_lock = Lock()


def station_for(access: Access) -> Station:
    """This thread's station."""
    desks: dict[Access, Station] = _mine.__dict__.setdefault("desks", {})
    if access not in desks:
        desks[access] = Station(access)
        with _lock:
            _stations.setdefault(access, []).append(desks[access])
    return desks[access]


def visit(function: Callable[[Any], Any], unit: Unit) -> Any:
    """Run a unit on a worker that serves many runs: its connections end with the unit.

    The next unit may go anywhere; connections left behind would add up beyond what the server was asked for.
    """
    try:
        return function(unit)
    finally:
        station = _mine.__dict__.get("desks", {}).pop(unit.access, None)
        if station is not None:
            station.close()
            with _lock:
                left = [s for s in _stations.pop(unit.access, []) if s is not station]
                if left:
                    _stations[unit.access] = left


def seed(
    access: Access, repo: Repository, *, stop: Stop | None = None, moved: Callable[[int], None] | None = None
) -> None:
    """Let this process's worker threads use `repo` as it is, see the run's `stop`, and tell what went by."""
    with _lock:
        _shared[access] = Shared(repo=repo, stop=stop or Stop(), moved=moved)
        _seeded.add(access)


def leave(access: Access) -> None:
    """Tell this process's worker threads to wait for nothing and open nothing any more: the run is over."""
    with _lock:
        _leaving[access] = None
        while len(_leaving) > _KEPT_LEFT:
            del _leaving[next(iter(_leaving))]


def leaving(access: Access) -> bool:
    """Whether the run is over."""
    return access in _leaving


def cancel_stations(access: Access) -> int:
    """Cancel what this process's worker threads have running on the server; returns how many connections there were."""
    with _lock:
        stations = list(_stations.get(access, ()))
    return sum(station.cancel() for station in stations)


def close_stations(access: Access) -> None:
    """Close what this process's worker threads opened; they must have ended."""
    with _lock:
        stations = _stations.pop(access, [])
        _shared.pop(access, None)
        _seeded.discard(access)
        _leaving.pop(access, None)
    for station in stations:
        station.close()


def _shared_by(access: Access) -> Shared:
    with _lock:
        if access not in _shared:
            others = [a for a in _shared if a not in _seeded]
            for old in others[: max(0, len(others) + 1 - _KEPT_REPOSITORIES)]:
                del _shared[old]
            _shared[access] = Shared(repo=_open_repository(access))
        return _shared[access]


def _open_repository(access: Access) -> Repository:
    return Repository.open(
        open_storage(access.repository, insecure=access.insecure_store),
        identity=Identity.parse(resolve_key(access.identity, IDENTITY_MARK)) if access.identity else None,
        host=HostKey.parse(resolve_key(access.host_key, HOST_KEY_MARK)) if access.host_key else None,
    )


def examine(access: Access | None) -> object:
    """Asked of a worker elsewhere before work begins: our version, or the error that its first unit would meet."""
    try:
        if access is not None:
            Endpoint.parse(resolve(access.database), insecure=access.insecure_database)
            _open_repository(access)
    except PgkuraError as error:
        return error
    return __version__


def start_worker_process(secrets: dict[str, str]) -> None:
    """Runs first in a spawned worker: take over secrets, leave Ctrl-C to the parent, die with the parent."""
    for name, secret in secrets.items():
        hold(name, secret)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rarely_collect()
    use_again()
    Thread(target=_die_with_parent, name="pgkura-parent-watch", daemon=True).start()


def _die_with_parent() -> None:
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    # A killed parent leaves its workers waiting for ever, with a connection and a snapshot each.
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
