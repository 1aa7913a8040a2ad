"""A database to back up, a repository in a folder, and steps that run at exact moments of the backup."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from pgkura.core.access import Access, hold
from pgkura.core.facts import SourceFacts
from pgkura.postgres.binary_text import copy_text
from pgkura.postgres.endpoint import Endpoint
from pgkura.repository.creating import create
from pgkura.repository.keys import new_keys
from pgkura.repository.lists import TableData
from pgkura.repository.repository import Repository
from pgkura.snapshot.options import Options
from pgkura.snapshot.take import take
from pgkura.snapshot.taken import Taken
from pgkura.storage.local import LocalStorage

# A share of so few connections that definitions are read before rows: pg_dump does not meet what a step at "reading
# rows" does.
FEW_CONNECTIONS = 0.08


@dataclass(slots=True)
class Script:
    """A Progress that runs a step when a stage begins: the main thread of the backup waits for it."""

    steps: dict[str, Callable[[], None]] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        """Note it, and run its step."""
        self.stages.append(name)
        for beginning, step in self.steps.items():
            if name.startswith(beginning):
                step()

    def advance(self, amount: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One database and one repository."""

    url: str
    repo: Repository
    access: Access
    identity: str = ""  # a reference, for whoever reads

    def sql(self, *statements: str) -> None:
        """Run statements, each in its own transaction, as the superuser."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.connect() as connection:
            return connection.execute(statement.encode()).fetchall()

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the application."""
        return psycopg.connect(self.url, autocommit=True, application_name="application")

    def take(
        self, script: Script | None = None, *, url: str = "", pool: Executor | None = None, **options: Any
    ) -> Taken:
        """Back it up, in threads unless told otherwise."""
        chosen = Options(**{"executor": "threads", **options})
        source = Endpoint.parse(url or self.url)
        return take(source, self.repo, chosen, script or Script(), access=self.access, executor=pool)

    def stored(self, taken: Taken) -> dict[str, list[bytes]]:
        """Lines of COPY text per table, decrypted."""
        facts = SourceFacts.from_json(json.loads(self.repo.component(taken.manifest, "facts")))
        return {t.name: self._lines(t, facts) for t in self.repo.chunk_list(taken.manifest)}

    def _lines(self, table: TableData, facts: SourceFacts) -> list[bytes]:
        if not table.binary:
            return b"".join(piece for x in table.layers for piece in self.repo.read_rows(x)).split(b"\n")[:-1]
        types = [c.type for c in facts.tables[table.number].data_columns]
        return [
            line[:-1]
            for layer in table.layers
            for line in copy_text(b"".join(self.repo.read_rows(layer)), self.repo.read_sizes(layer).tolist(), types)
        ]

    def leftovers(self) -> list[str]:
        """Connections of ours that are still open; waits a moment for the server to notice that they ended."""
        for _ in range(50):
            left = self.rows("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'pgkura%'")
            if not left:
                return []
            time.sleep(0.1)
        return [name for (name,) in left]


def make_scene(url: str, folder: Path) -> Scene:
    """A new repository for this database."""
    storage = LocalStorage(folder)
    keys = new_keys(now=datetime.now(UTC))
    create(storage, keys)
    access = Access(
        database=hold(f"test-{keys.repository_id}", url),
        repository=str(folder),
        host_key=hold(f"key-{keys.repository_id}", keys.host_key_text),
    )
    return Scene(
        url=url,
        repo=Repository.open(storage, identity=keys.identity, host=keys.host),
        access=access,
        identity=hold(f"identity-{keys.repository_id}", keys.identity_text),
    )


class Statement(threading.Thread):
    """A statement of the application in a thread of its own; `seconds` is how long it waited and ran."""

    def __init__(self, scene: Scene, text: str) -> None:
        super().__init__(daemon=True)
        self._scene = scene
        self._text = text
        self.seconds = 0.0
        self.error: psycopg.Error | None = None
        self.start()

    def run(self) -> None:
        """Run it."""
        began = time.monotonic()
        try:
            self._scene.sql(self._text)
        except psycopg.Error as error:
            self.error = error
        self.seconds = time.monotonic() - began

    def done(self) -> float:
        """Wait for it; its time. Raises its error."""
        self.join(timeout=60)
        if self.error is not None:
            raise self.error
        return self.seconds


@contextmanager
def held_transaction(scene: Scene, statement: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A transaction of the application that has run `statement` and stays open."""
    with psycopg.connect(scene.url) as connection:
        connection.execute(statement.encode())
        yield connection
        connection.rollback()
