"""Application sessions that one thread plays by turns: open transactions, savepoints, prepared transactions.

Nothing waits: rows are chosen with SKIP LOCKED, and a statement that must wait gives up and rolls back, which is one
more thing that happens to databases. So the same seed plays the same history.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]
_OPTIONS = "-c lock_timeout=60ms -c synchronous_commit=off -c timezone=UTC"


@dataclass(slots=True)
class Level:
    """What a transaction or savepoint level has written: itself, and below in released savepoints."""

    writes: int = 0
    sub_writes: int = 0


@dataclass(slots=True, kw_only=True)
class Work:
    """An open transaction. `over` is the snapshots taken while it had written something."""

    levels: list[Level] = field(default_factory=lambda: [Level()])
    over: set[int] = field(default_factory=set)
    sub_over: set[int] = field(default_factory=set)

    @property
    def wrote(self) -> bool:
        """At any level."""
        return any(level.writes or level.sub_writes for level in self.levels)

    @property
    def sub_wrote(self) -> bool:
        """In a savepoint that is open or was released."""
        return self.levels[0].sub_writes > 0 or any(level.writes or level.sub_writes for level in self.levels[1:])


@dataclass(slots=True)
class Tally:
    """What the snapshots of a history were taken across."""

    snapshots: int = 0
    errors: int = 0
    statements: int = 0
    later: set[int] = field(default_factory=set)
    sub_later: set[int] = field(default_factory=set)
    prepared_later: set[int] = field(default_factory=set)

    def committed(self, work: Work, *, prepared: bool = False) -> None:
        """A transaction that was open across snapshots has committed."""
        self.later |= work.over
        self.sub_later |= work.sub_over
        if prepared:
            self.prepared_later |= work.over


@dataclass(slots=True)
class Sessions:
    """All of them, by letter; the story; the tally."""

    url: str
    rng: random.Random
    story: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    connections: dict[str, Connection] = field(default_factory=dict)
    open: dict[str, Work] = field(default_factory=dict)
    prepared: dict[str, Work] = field(default_factory=dict)
    numbers: int = 0
    durable: bool = False  # the commits of DDL are on disk at once, and those before them

    def connect(self, names: str = "ABCD") -> None:
        """(Again) after the server started; what was open is lost, what was prepared is not."""
        self.close()
        for name in names:
            self.connections[name] = psycopg.connect(
                self.url, autocommit=True, options=_OPTIONS, application_name=f"application {name}"
            )

    def close(self) -> None:
        """Drop every connection."""
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()
        self.open.clear()

    # --- statements

    def run(self, name: str, text: str, *, writes: bool = True) -> bool:
        """One statement in a session's transaction, or alone; False if it failed and was rolled back."""
        work = self.open.get(name)
        if self._execute(name, text):
            if work is not None and writes:
                work.levels[-1].writes += 1
            return True
        if work is not None:
            self.rollback_to(name) if len(work.levels) > 1 else self.rollback(name)
        return False

    def _execute(self, name: str, text: str) -> bool:
        self.tally.statements += 1
        try:
            self.connections[name].execute(text.encode())
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                raise  # the server is gone
            return self._failed(name, text, error)
        except psycopg.Error as error:
            return self._failed(name, text, error)
        self.story.append(f"{name}: {text}")
        return True

    def _failed(self, name: str, text: str, error: psycopg.Error) -> bool:
        self.tally.errors += 1
        self.story.append(f"{name}: {text}   -- failed: {str(error).splitlines()[0]}")
        return False

    # --- transactions

    def begin(self, name: str) -> None:
        """A new transaction."""
        isolation = self.rng.choice(("READ COMMITTED",) * 4 + ("REPEATABLE READ",))
        if self._execute(name, f"BEGIN ISOLATION LEVEL {isolation}"):
            self.open[name] = Work()

    def savepoint(self, name: str) -> None:
        """One level deeper."""
        levels = self.open[name].levels
        if self._execute(name, f"SAVEPOINT s{len(levels)}"):
            levels.append(Level())

    def release(self, name: str) -> None:
        """One level up, keeping its work."""
        levels = self.open[name].levels
        if len(levels) > 1 and self._execute(name, f"RELEASE s{len(levels) - 1}"):
            done = levels.pop()
            levels[-1].sub_writes += done.writes + done.sub_writes

    def rollback_to(self, name: str) -> None:
        """Undo the deepest savepoint; it stays open, as in SQL."""
        levels = self.open[name].levels
        if len(levels) > 1 and self._execute(name, f"ROLLBACK TO s{len(levels) - 1}"):
            levels[-1] = Level()

    def commit(self, name: str) -> None:
        """Commit, open savepoints and all."""
        work = self.open.pop(name)
        if self._execute(name, "COMMIT"):
            self.tally.committed(work)
        else:
            self._execute(name, "ROLLBACK")

    def rollback(self, name: str) -> None:
        """Undo it all."""
        self.open.pop(name)
        self._execute(name, "ROLLBACK")

    def prepare(self, name: str) -> None:
        """PREPARE TRANSACTION."""
        self.numbers += 1
        gid, work = f"g{self.numbers}", self.open.pop(name)
        if self._execute(name, f"PREPARE TRANSACTION '{gid}'"):
            self.prepared[gid] = work
        else:
            self._execute(name, "ROLLBACK")

    def finish_prepared(self, gid: str, *, commit: bool = True) -> None:
        """COMMIT or ROLLBACK PREPARED by a session that has nothing open, or a new one."""
        name = next((n for n in self.connections if n not in self.open), "")
        if not name:
            name = self.rng.choice(sorted(self.open))
            self.commit(name)
        if self._execute(name, f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{gid}'"):
            work = self.prepared.pop(gid)
            if commit:
                self.tally.committed(work, prepared=True)

    def end_one(self) -> bool:
        """End something that is open, mostly by COMMIT; False if nothing is."""
        commit = self.rng.random() < 0.8
        if self.open and (not self.prepared or self.rng.random() < 0.7):
            name = self.rng.choice(sorted(self.open))
            self.commit(name) if commit else self.rollback(name)
        elif self.prepared:
            self.finish_prepared(self.rng.choice(sorted(self.prepared)), commit=commit)
        else:
            return False
        return True

    def end_all(self) -> None:
        """Nothing stays open."""
        while self.end_one():
            pass

    def alone(self, *statements: str) -> bool:
        """DDL in a transaction of its own: whoever holds a lock in its way is ended first."""
        text = "; ".join(statements)
        options = _OPTIONS + " -c synchronous_commit=on" * self.durable
        with psycopg.connect(self.url, autocommit=True, options=options, application_name="application ddl") as ddl:
            while True:
                try:
                    if len(statements) == 1:
                        ddl.execute(text.encode())
                    else:
                        ddl.execute(f"BEGIN; {text}; COMMIT".encode())
                except psycopg.errors.LockNotAvailable:
                    if len(statements) > 1:
                        ddl.execute("ROLLBACK")
                    if not self.end_one():
                        raise
                except psycopg.Error as error:
                    if len(statements) > 1:
                        ddl.execute("ROLLBACK")
                    return self._failed("ddl", text, error)
                else:
                    self.story.append(f"ddl: {text}")
                    return True

    def mark_snapshot(self) -> None:
        """A snapshot is about to be taken across whatever is open now."""
        number = self.tally.snapshots
        self.tally.snapshots += 1
        for work in (*self.open.values(), *self.prepared.values()):
            if work.wrote:
                work.over.add(number)
            if work.sub_wrote:
                work.sub_over.add(number)
