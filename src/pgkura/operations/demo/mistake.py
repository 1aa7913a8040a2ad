"""The demo's second accident: an UPDATE without WHERE, found in the change log, and the database of just before it."""

import time
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from pgkura.changes.options import Options
from pgkura.core.errors import DatabaseError
from pgkura.core.outcome import FindingClass, Result
from pgkura.core.progress import Progress, Silent
from pgkura.core.stop import Stop
from pgkura.operations.find import find, question_of
from pgkura.operations.restore import RestoreResult, execute_restore, plan_restore
from pgkura.operations.watch import watch
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.replay.moments import parse_moment
from pgkura.repository.repository import Repository

TABLE = "public.reservations"
BEFORE = "learning_before"
# Since the backup: each a transaction of its own.
_WORK = (
    "INSERT INTO reservations (slot_id, student_id, note) "
    "SELECT slot_id, student_id, 'booked today' FROM reservations ORDER BY id LIMIT 40",
    "UPDATE reservations SET status = 'confirmed' WHERE note = 'booked today' AND id % 2 = 0",
    "DELETE FROM reservations WHERE note = 'booked today' AND id % 7 = 0",
)
_MISTAKE = "UPDATE reservations SET status = 'cancelled'"
_LATER = "UPDATE reservations SET note = 'why was this cancelled?' WHERE note = 'booked today'"
_SEEN = (
    "SELECT count(*), count(*) FILTER (WHERE status = 'cancelled'), "
    "md5(string_agg(r::text, E'\\n' ORDER BY id)) FROM public.reservations r"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What happened. `same`: whether the table is, row by row, what a query saw just before the mistake."""

    at: str
    rows: int
    xid: int
    found_seconds: float
    back: RestoreResult
    back_seconds: float
    cancelled: int
    same: bool

    def story(self) -> list[str]:
        """Lines for a person."""
        seen = "the table a query saw just before" if self.same else "NOT the table of just before"
        left = ", ".join(f.object.removeprefix("rows of ").replace('"', "") for f in self.back.skipped)
        return [
            f"  mistake  {self.at} UTC, {_MISTAKE};  (no WHERE)",
            f"  found    transaction {self.xid}, {self.rows:,} reservations, found in {self.found_seconds:.1f} s:",
            f"           pgkura find --table {TABLE} --kind update",
            f"  back     a database of the moment before it in {self.back_seconds:.1f} s, beside the damaged one:",
            f"           pgkura restore --at 'before xid {self.xid}'",
            f"           {seen} ({self.cancelled:,} are cancelled)",
            *(f"           {line}" for line in (wrap(f"as of the backup, and named so: {left}", 66) if left else ())),
        ]

    def as_json(self) -> dict[str, Any]:
        """In the `--json` object."""
        return {
            "at": self.at,
            "rows": self.rows,
            "xid": self.xid,
            "found_seconds": round(self.found_seconds, 3),
            "restore": self.back.as_json(),
            "same": self.same,
        }

    @property
    def result(self) -> Result:
        """Whether the table came back; what no change log carries is told, and no failure of the demo."""
        told = {f.cls.value for f in self.back.skipped} | {d["class"] for d in self.back.proof["differences"]}
        return Result.OK if self.same and told <= {FindingClass.DENIED.value} else Result.INCOMPLETE


def begin(source: Endpoint, repo: Repository) -> None:
    """A change log, before the backup that will be its base. `pgkura watch` would go on beside the application."""
    watch(source, repo, Options(once=True), Silent(), Stop())


def happen(source: Endpoint, target: Endpoint, host: Repository, person: Repository, progress: Progress) -> Mistake:
    """A morning's work, the mistake, work after it; then the way back. `target` is made, beside `source`."""
    progress.stage("everyday work, and a mistake in it")
    with connect(source, application_name="pgkura demo") as session:
        session.execute("SET search_path = public")
        for statement in _WORK:
            session.execute(statement)
        before = session.one(_SEEN)
        at = str(session.one("SELECT pg_catalog.to_char(now() AT TIME ZONE 'UTC', 'HH24:MI:SS')")[0])
        session.execute(_MISTAKE)
        session.execute(_LATER)
        watch(source, host, Options(once=True), Silent(), Stop())
        progress.stage("looking for it in the change log")
        started = time.monotonic()
        question = question_of(table=TABLE, kinds=("update",), where=(), since="", until="")
        found = next(iter(find(person, question, limit=1).found), None)
        if found is None:
            raise DatabaseError("the change log does not hold the demo's mistake")
        looked = time.monotonic()
        session.execute(f"CREATE DATABASE {BEFORE}")
    moment = parse_moment(f"before xid {found[1].xid}")
    planned = plan_restore(person, "latest", target, at=moment, progress=progress)
    back = execute_restore(planned, progress=progress)
    ended = time.monotonic()
    with connect(target, application_name="pgkura demo") as session:
        after = session.one(_SEEN)
    return Mistake(
        at=at,
        rows=found[1].changes,
        xid=found[1].xid,
        found_seconds=looked - started,
        back=back,
        back_seconds=ended - looked,
        cancelled=int(after[1]),
        same=tuple(before) == tuple(after),
    )
