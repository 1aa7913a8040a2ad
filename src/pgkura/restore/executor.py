"""Executes a restore plan and nothing else. The server's refusals become findings; errors of ours end the run."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pgkura.catalog.kinds import Stage
from pgkura.catalog.render import definition
from pgkura.catalog.roles import Statement
from pgkura.catalog.toc import Toc
from pgkura.core.access import Access, own_access
from pgkura.core.errors import PlanOutdated
from pgkura.core.outcome import Finding
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session
from pgkura.repository.repository import Repository
from pgkura.repository.sums import Seen
from pgkura.restore import ledger
from pgkura.restore.building import building
from pgkura.restore.definitions import analyze, before_rows, cleared, refresh_views, sequence_values
from pgkura.restore.going_on import NOTHING, go_on
from pgkura.restore.guests import Guests
from pgkura.restore.marker import drop_mark, is_marker, put_mark, start_over
from pgkura.restore.permissions import open_again
from pgkura.restore.planner import RestorePlan, fingerprint
from pgkura.restore.platform_state import restore_jobs, restore_secrets
from pgkura.restore.rows import Rows, restore_large_objects
from pgkura.restore.run import Run, execute
from pgkura.restore.target import dump_definitions
from pgkura.restore.wal_writer import kept_awake, spare_connection
from pgkura.work.pools import Crew


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What came of it. `seen`: of the stored rows, for the proof that follows."""

    findings: tuple[Finding, ...]
    rows: int
    rows_kept: int
    bytes_kept: int
    seconds: float
    seen: Seen


class Executor:
    """One run of one plan."""

    def __init__(
        self,
        plan: RestorePlan,
        endpoint: Endpoint,
        repo: Repository,
        progress: Progress,
        stop: Stop,
        *,
        access: Access | None = None,
        crew: Crew | None = None,
        between: Callable[[Run, Session], None] | None = None,
        epoch: int = 0,
    ) -> None:
        """Without `access` nothing but threads of this process can do the work. `epoch` of the snapshot: what its
        proof can go by is noted."""
        self._plan = plan
        name = secrets.token_hex(6)
        has_access = access is not None
        access = access or own_access(f"restore-{name}", endpoint.url(), repo.url)
        self._run = Run(
            plan=plan,
            endpoint=endpoint,
            repo=repo,
            progress=progress,
            stop=stop,
            access=replace(access, host_key="", run=name),
            crew=crew if crew is not None and has_access else Crew(kind="threads"),
            findings=list(plan.findings),
            between=between,
            epoch=epoch,
        )

    def run(self) -> Restored:
        """Raises PlanOutdated, DatabaseError, Tampered; whatever was done until then is cleared by the next run."""
        begun = time.monotonic()
        run, plan = self._run, self._plan
        with run.open() as session:
            present = self._same_as_planned(session)
            with Guests(session, run.endpoint) as guests:
                marked = self._begin(session, cut_short=present)
                self._statements(session, Stage.ROLES.value, plan.roles)
                if not run.kept.layers:
                    before_rows(run, session, guests)
                restore_large_objects(run, session)
                rows = Rows(run, session, guests)
                with kept_awake(spare_connection(run, session)):
                    rows.restore()
            if marked:
                ledger.note(session, ledger.OPENING)
            sequence_values(run, session)
            open_again(run, session)
            refresh_views(run, session)
            self._statements(session, "database settings", plan.database)
            run.findings.extend(restore_secrets(session, plan.facts))
            run.findings.extend(restore_jobs(session, plan.facts))
            if not plan.hosted:  # making them again has used up numbers
                sequence_values(run, session, schemas=("vault", "cron"))
            analyze(run, session)
            self._end(session, marked)
        return Restored(
            findings=tuple(run.findings),
            rows=rows.rows,
            rows_kept=run.kept.rows(plan.loads),
            bytes_kept=run.kept.bytes(plan.loads),
            seconds=time.monotonic() - begun,
            seen=run.seen,
        )

    def _same_as_planned(self, session: Session) -> Toc:
        present = dump_definitions(self._run.endpoint, session.server_version)
        if fingerprint(present) != self._plan.fingerprint:
            raise PlanOutdated(
                f"{self._plan.target} changed since the plan was made",
                hint="nothing was touched; run it again to get a new plan",
            )
        return present

    def _begin(self, session: Session, *, cut_short: Toc) -> bool:
        run, mark = self._run, self._plan.cut_short
        run.building = building(session, self._plan.options.parallel, self._plan.loads)
        run.others = tuple(r for (r,) in session.rows(query("target", "default_grantees")) if r)
        if self._plan.goes_on and go_on(session, self._plan.kept):
            run.there.update(self._plan.kept.there)
            run.ledger = True
            return True
        if mark is not None:
            start_over(session, mark, cut_short, self._run.progress)
            left = dump_definitions(self._run.endpoint, session.server_version)
            cleared(self._run, tuple(e for e in left.entries if mark.made(e) and not is_marker(e)))
        run.kept = NOTHING
        run.ledger = put_mark(session, self._plan.mark)
        return run.ledger

    def _statements(self, session: Session, stage: str, statements: Sequence[Statement]) -> None:
        if not statements:
            return
        self._run.progress.stage(stage, total=len(statements), unit="statements")
        for one in statements:
            self._run.attempt(session, one.object, one.sql)
            self._run.progress.advance(1)

    def _end(self, session: Session, marked: bool) -> None:
        """The mark goes and event triggers come in one transaction: they must not fire for our own work.

        It is the one commit that waits for the disk; all before it are on disk with it.
        """
        session.execute("SET synchronous_commit = on")
        session.begin(isolation="read committed", read_only=False)
        if marked:
            drop_mark(session)
        if self._plan.last:
            self._run.progress.stage("event triggers", total=len(self._plan.last), unit="objects")
        for entry in self._plan.last:
            execute(self._run, session, entry, definition(entry))
            self._run.progress.advance(1)
        session.commit()
