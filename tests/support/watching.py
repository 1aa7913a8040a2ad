"""A stranger at the data API of a stand-in: looks, as anon and without a pause, at what it must not see."""

import threading
from types import TracebackType
from typing import Self

import psycopg
from psycopg import errors
from tests.support.supabase import Standin

#: The only answers that mean "saw no row": not there yet, not allowed, not filled, or busy being made.
_NOTHING = (
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    errors.UndefinedFunction,
    errors.InsufficientPrivilege,
    errors.ObjectNotInPrerequisiteState,
    errors.QueryCanceled,
    errors.LockNotAvailable,
    errors.DeadlockDetected,
)


class AnonWatcher(threading.Thread):
    """Looks at everything anon sees nothing of in the source, until the `with` block ends and once more.

    Any other error than a refusal (a connection that died, say) fails the test: a blind watcher sees nothing too.
    """

    def __init__(self, full: Standin, fresh: Standin) -> None:
        super().__init__(daemon=True)
        self.relations = [r for r in relations(full) if not rows_for_anon(full, r)]
        assert len(self.relations) > 10
        self._fresh = fresh
        self._end = threading.Event()
        self._error: BaseException | None = None
        self.seen: list[str] = []
        self.looks = 0

    def run(self) -> None:
        """Until told to finish, and once more after."""
        try:
            with psycopg.connect(self._fresh.api_url("anon"), autocommit=True) as connection:
                while True:
                    last = self._end.is_set()
                    for name in self.relations:
                        if look(connection, name):
                            self.seen.append(name)
                        self.looks += 1
                    if last:
                        return
        except BaseException as error:  # noqa: BLE001  it is raised where the test waits
            self._error = error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self.join(60)
        if kind is not None:
            return
        assert not self.is_alive(), "the watcher hangs"
        if self._error is not None:
            raise AssertionError(f"the watcher went blind: {self._error!r}") from self._error
        assert self.looks >= 2 * len(self.relations), "the watcher did not look"


def relations(project: Standin) -> list[str]:
    """Tables and views of the customer and of auth and storage."""
    with psycopg.connect(project.admin_url) as connection:
        return [
            str(r[0])
            for r in connection.execute(
                "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.relkind IN ('r', 'v', 'm', 'p') AND n.nspname IN ('public', 'private', 'auth', 'storage')"
            )
        ]


def rows_for_anon(project: Standin, name: str) -> bool:
    """Whether anon sees a row."""
    with psycopg.connect(project.api_url("anon"), autocommit=True) as connection:
        return look(connection, name)


def look(connection: "psycopg.Connection[tuple[object, ...]]", name: str) -> bool:
    """One look; a refusal or a missing relation is no row."""
    try:
        return connection.execute(f"SELECT 1 FROM {name} LIMIT 1".encode()).fetchone() is not None
    except _NOTHING:
        return False
