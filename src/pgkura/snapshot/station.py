"""What a worker keeps between units: its connections (one set per thread) and its repository (one per process).

Built from the unit's references on first use; `seed` hands the main process's own repository to worker threads.
"""

import os
import signal
from multiprocessing import parent_process
from multiprocessing.connection import wait
from threading import Lock, Thread, local

from pgkura.core.access import Access, hold, resolve
from pgkura.core.memory import rarely_collect
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.repository.keys import HostKey
from pgkura.repository.repository import Repository
from pgkura.storage.opening import open_storage

_PHYSICAL = (
    "max_parallel_workers_per_gather = 0",
    "enable_seqscan = on",
    "enable_tidscan = on",
    "enable_indexscan = off",
    "enable_indexonlyscan = off",
    "enable_bitmapscan = off",
)


class Station:
    """One worker thread's desk."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sessions: dict[str, Session] = {}

    def session(self, application_name: str) -> Session:
        """The connection of this name, opened when there is none that works."""
        session = self._sessions.get(application_name)
        if session is not None and session.broken:
            self.discard(application_name)
            session = None
        if session is None:
            session = self._open(application_name)
            self._sessions[application_name] = session
        return session

    def discard(self, application_name: str) -> None:
        """Close a connection that failed."""
        session = self._sessions.pop(application_name, None)
        if session is not None:
            session.close()

    def repository(self) -> Repository:
        """The process's repository."""
        return _repository(self._access)

    def close(self) -> None:
        """Close all connections."""
        for name in tuple(self._sessions):
            self.discard(name)

    def _open(self, application_name: str) -> Session:
        endpoint = Endpoint.parse(resolve(self._access.database), insecure=self._access.insecure_database)
        session = connect(endpoint, application_name=application_name)
        # Rows must come in physical order, from one scan: a chunk's bytes then repeat while its pages do not change,
        # and their places can be asked for by another query.
        session.script("; ".join(f"SET {setting}" for setting in _PHYSICAL))
        return session


_repositories: dict[Access, Repository] = {}
_stations: dict[Access, list[Station]] = {}
_leaving: set[Access] = set()
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


def seed(access: Access, repo: Repository) -> None:
    """Let this process's worker threads use `repo` as it is."""
    with _lock:
        _repositories[access] = repo


def leave(access: Access) -> None:
    """Tell this process's worker threads to wait for nothing any more: the run is over."""
    with _lock:
        _leaving.add(access)


def leaving(access: Access) -> bool:
    """Whether the run is over."""
    return access in _leaving


def close_stations(access: Access) -> None:
    """Close what this process's worker threads opened; they must have ended."""
    with _lock:
        stations = _stations.pop(access, [])
        _repositories.pop(access, None)
        _leaving.discard(access)
    for station in stations:
        station.close()


def _repository(access: Access) -> Repository:
    with _lock:
        if access not in _repositories:
            storage = open_storage(access.repository, insecure=access.insecure_store)
            _repositories[access] = Repository.open(storage, host=HostKey.parse(resolve(access.host_key)))
        return _repositories[access]


def start_worker_process(secrets: dict[str, str]) -> None:
    """Runs first in a spawned worker: take over secrets, leave Ctrl-C to the parent, die with the parent."""
    for name, secret in secrets.items():
        hold(name, secret)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rarely_collect()
    Thread(target=_die_with_parent, name="pgkura-parent-watch", daemon=True).start()


def _die_with_parent() -> None:
    # A killed parent leaves its workers waiting for ever, with a connection and a snapshot each.
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
