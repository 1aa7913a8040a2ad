"""What every step of one restore shares, and how an archive's entry is executed."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from pgkura.catalog.render import ownership
from pgkura.catalog.toc import Entry
from pgkura.core.access import Access
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session, SqlError
from pgkura.repository.cuts import CutBook
from pgkura.repository.repository import Repository
from pgkura.repository.sums import Seen
from pgkura.restore.building import Building
from pgkura.restore.going_on import NOTHING, Kept
from pgkura.restore.guests import Guests
from pgkura.restore.paths import NAME_ERRORS, search_path, trusted_path, under_path
from pgkura.restore.planner import RestorePlan
from pgkura.work.pools import Crew

_DENIED = "42501"


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of one plan.

    failed  entries that could not be executed; there: those that a cut-short restore made already
    ledger  whether what is loaded is told in the target
    kept    what an earlier run has done
    building  what the building of indexes may use of the target
    analyzed  tables that have their statistics
    others  roles that the target's default privileges favour
    access  how workers open target and repository; crew: who they are
    between  what else comes after rows and keys, before whatever fires or refers: the replay of a change log
    epoch   of the snapshot; seen: what went by of the stored rows, for the proof
    """

    plan: RestorePlan
    endpoint: Endpoint
    repo: Repository
    progress: Progress
    stop: Stop
    access: Access
    crew: Crew = field(default_factory=Crew)
    findings: list[Finding] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    there: set[int] = field(default_factory=set)
    others: tuple[str, ...] = ()
    analyzed: set[QualifiedName] = field(default_factory=set)
    ledger: bool = False
    kept: Kept = NOTHING
    building: Building = field(default_factory=Building)
    between: "Callable[[Run, Session], None] | None" = None
    epoch: int = 0
    seen: Seen = field(default_factory=lambda: Seen(cuts=CutBook(), sums={}, draw=secrets.token_hex(16)))

    def __post_init__(self) -> None:
        self.kept = self.plan.kept

    @property
    def known(self) -> int:
        """How many findings the plan itself has."""
        return len(self.plan.findings)

    def open(self) -> Session:
        """A connection as every step wants it."""
        session = connect(self.endpoint, application_name="pgkura restore")
        for setting in self.settings:
            session.script(setting)
        return session

    @property
    def settings(self) -> tuple[str, ...]:
        """What is set on every connection, a worker's too."""
        return (*self.building.settings, "SET synchronous_commit = off", *self.plan.reading)

    def title(self, entry: Entry) -> str:
        """As the inventory names it."""
        return self.plan.titles.get(entry.dump_id, entry.title)

    def tell(self, cls: FindingClass, name: str, reason: str) -> None:
        """A finding."""
        self.findings.append(Finding(cls=cls, object=name, reason=reason))

    def refused(self, name: str, error: SqlError) -> None:
        """The server said no."""
        self.tell(FindingClass.DENIED if error.sqlstate == _DENIED else FindingClass.LOST, name, error.msg)

    def attempt(self, session: Session, name: str, sql: str) -> bool:
        """A refusal of the server's becomes a finding on `name`; a broken connection ends the run."""
        try:
            script(session, sql)
        except SqlError as error:
            if session.broken:
                raise
            self.refused(name, error)
            return False
        return True


def execute(run: Run, session: Session, entry: Entry, text: str) -> None:
    """Run an entry's text and give the object to its owner."""
    statement(run, session, entry, text)
    give(run, session, entry)


def statement(run: Run, session: Session, entry: Entry, text: str) -> None:
    """Run text that serves an entry; names that need the source's search_path get it, once and told."""
    if not text.strip():
        return
    try:
        script(session, text)
    except SqlError as error:
        if session.broken:
            raise
        curable = not session.in_transaction and error.sqlstate in NAME_ERRORS
        if curable and _again_with_path(run, session, entry, text):
            run.progress.note(f"{entry.title} needed the source's own search_path")
            return
        run.failed.add(entry.dump_id)
        run.refused(run.title(entry), error)


def give(run: Run, session: Session, entry: Entry) -> None:
    """ALTER … OWNER TO."""
    text = ownership(entry)
    if text and entry.dump_id not in run.failed:
        run.attempt(session, f"owner of {run.title(entry)}", text)


def script(session: Session, text: str) -> None:
    """Several statements, all or nothing, alone or as a part of the open transaction."""
    if not session.in_transaction:
        session.script(text)
        return
    with session.savepoint():
        session.script(text)


def _again_with_path(run: Run, session: Session, entry: Entry, text: str) -> bool:
    clause = search_path(run.plan.facts, entry.owner)
    if not trusted_path(session, clause) and not run.plan.options.trust_code:
        return False
    try:
        with under_path(session, clause):
            session.script(text)
    except SqlError:
        if session.broken:
            raise
        return False
    return True


def execute_as_owner(run: Run, session: Session, guests: Guests, entry: Entry, text: str) -> None:
    """Run an entry that evaluates other people's code, through a login that is nobody but its owner."""
    with guests.lock:
        reason = guests.why_not(entry.owner)
        if reason:
            run.failed.add(entry.dump_id)
            run.tell(FindingClass.LOST, run.title(entry), untrusted("creating it", reason))
            return
        guests.admit(entry.owner)
        with guests.lent(entry.owner, run.plan.lent.get(entry.dump_id, ())) as guest:
            statement(run, guest, entry, text)
        give(run, session, entry)


def untrusted(what: str, reason: str) -> str:
    """Why code was not run, and what to do."""
    return (
        f"{what} would run functions of other roles with your rights ({reason}); "
        "look at them, then restore with --trust-code"
    )
