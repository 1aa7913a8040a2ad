"""Looks several times a second whether anybody waits on us, and gives way before the bound is reached."""

import time
from collections.abc import Callable, Iterable
from threading import Event, Lock, Thread

from pgkura.core.errors import DatabaseError, PgkuraError, SourceBusy
from pgkura.core.stop import Stop
from pgkura.postgres.session import Session
from pgkura.snapshot.manners import Age, Held, age_of, age_told, spoken
from pgkura.snapshot.options import Options
from pgkura.snapshot.queries import query
from pgkura.snapshot.yielding import Concessions, Part, Wait, decide_concessions

Release = Callable[[int, float], bool]


class Watcher:
    """A thread with a connection of its own. Its first failure stops the run: without it the bound is not kept."""

    def __init__(self, session: Session, options: Options, run: str, release: Release, stop: Stop) -> None:
        self._session = session
        self._options = options
        self._prefix = f"pgkura {run} "
        self._release = release
        self._stop = stop
        self._ended = Event()
        self._lock = Lock()
        self._notes: list[str] = []
        self._ended_parts: set[Part] = set()
        self._patient: set[int] = set()
        self._cancelled: frozenset[int] = frozenset()
        self._snapshot = (0, 0.0)
        self._told = Age.YOUNG
        self._thread = Thread(target=self._run, name="pgkura-watcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking and close the connection."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._session.close()

    def watch_age(self, pid: int, since: float) -> None:
        """This server process holds the run's snapshot since then (monotonic clock); 0 = none does."""
        with self._lock:
            self._snapshot, self._told = (pid, since), Age.YOUNG

    def notes(self) -> list[str]:
        """Sentences since the last call, for the one thread that may speak to people."""
        with self._lock:
            notes, self._notes = self._notes, []
        return notes

    def take_ended(self) -> frozenset[Part]:
        """Which of pg_dump and the reader were ended since the last call: their attempt must be repeated."""
        with self._lock:
            ended, self._ended_parts = frozenset(self._ended_parts), set()
        return ended

    def end_all(self, parts: Iterable[Part]) -> None:
        """End our connections of these kinds on the server. Only after `close`d looking or from a failing run."""
        wanted = frozenset(parts)
        for pid, part in self._ours():
            if part in wanted:
                self._session.rows("SELECT pg_catalog.pg_terminate_backend(%s)", (pid,))

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._options.poll_seconds):
                self._look()
                self._look_at_age()
        except PgkuraError as error:
            if not self._ended.is_set():
                self._stop.request(
                    DatabaseError(
                        "the connection that watches for waiting statements failed",
                        detail=str(error),
                        hint="without it the backup could block the application; run it again",
                    )
                )

    def _look(self) -> None:
        waits: list[Wait] = []
        owner: dict[int, Part] = {}
        for pid, name, waiter, kind, relation, seconds, stuck in self._session.rows(query("waits"), (self._prefix,)):
            part = _part(name)
            if part is None:
                continue
            owner[pid] = part
            if waiter is not None:
                waits.append(
                    Wait(
                        waiter=waiter,
                        kind=kind,
                        relation=relation,
                        seconds=seconds,
                        blocker=pid,
                        part=part,
                        stuck=stuck,
                    )
                )
        given = decide_concessions(waits, bound=self._options.give_way_seconds, cancelled=self._cancelled)
        self._cancelled = (self._cancelled | given.cancel) & frozenset(w.blocker for w in waits)
        self._act(given, owner)

    def _look_at_age(self) -> None:
        """Say what the snapshot costs before it hurts; end the run when that was asked for."""
        with self._lock:
            (pid, since), told = self._snapshot, self._told
        limit, ends = self._options.max_snapshot_age_seconds, self._options.end_at_snapshot_age
        seconds = time.monotonic() - since
        age = age_of(seconds, limit)
        if not pid or age in (Age.YOUNG, told):
            return
        found = self._session.rows(query("horizon"), (pid,))
        held = Held(transactions=found[0][0], dead=found[0][1]) if found else None
        text = age_told(seconds, limit, held, ends=ends)
        with self._lock:
            if self._snapshot != (pid, since):
                return  # it was given up meanwhile
            self._told = age
            self._notes.append(text)
        if ends and age is Age.OVER:
            self._stop.request(
                SourceBusy(
                    f"the snapshot reached the age of {spoken(limit)}, at which the backup had to end",
                    detail=text,
                    hint="nothing became a snapshot; allow more (--max-snapshot-age), more workers, or a faster rate",
                )
            )

    def _act(self, given: Concessions, owner: dict[int, Part]) -> None:
        if given.release:
            ((at,),) = self._session.rows("SELECT extract(epoch from pg_catalog.clock_timestamp())::float8")
            for pid in given.release:
                if not self._release(pid, at):
                    self._session.rows("SELECT pg_catalog.pg_cancel_backend(%s)", (pid,))
        for pid in given.cancel:
            self._session.rows("SELECT pg_catalog.pg_cancel_backend(%s)", (pid,))
        for pid in given.terminate:
            with self._lock:
                self._ended_parts.add(owner[pid])
            self._session.rows("SELECT pg_catalog.pg_terminate_backend(%s)", (pid,))
        self._tell(given)

    def _tell(self, given: Concessions) -> None:
        with self._lock:
            if given.any:
                self._notes.append("gave way to a statement of the application")
            for waiter in given.patient - self._patient:
                self._notes.append(
                    f"server process {waiter} waits for the snapshot to end (CREATE INDEX CONCURRENTLY and its "
                    "kind do); it holds up nobody else"
                )
            self._patient |= given.patient

    def _ours(self) -> list[tuple[int, Part]]:
        rows = self._session.rows(query("waits"), (self._prefix,))
        return [(pid, part) for pid, name, waiter, *_ in rows if waiter is None and (part := _part(name)) is not None]


def _part(application_name: str) -> Part | None:
    word = application_name.rsplit(" ", 1)[-1]
    return Part(word) if word in set(Part) else None


def busy_again(attempts: int, reason: str) -> SourceBusy:
    """When every attempt had to be repeated."""
    return SourceBusy(
        f"no quiet moment in {attempts} attempts: {reason}",
        detail="the application was waiting on the reading of definitions, or changed them meanwhile, every time",
        hint="run it at a quieter time, or allow a longer wait (--max-blocking)",
    )
