"""`doctor`: what can be protected, what cannot and why, and what to change. Leaves nothing
behind but, where the store's credential may not delete, the files `probe/*` that it was tried on."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pgkura.core.errors import PgkuraError, RepositoryNotFound, RightsError, UsageError
from pgkura.operations.deleting import try_to_delete
from pgkura.operations.doctor_log import WHAT, examine_log
from pgkura.operations.listing import server_name
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.facts import read_facts
from pgkura.postgres.pinning import connect
from pgkura.postgres.relay import needs_tls
from pgkura.programs.pgtools import find_client
from pgkura.repository.repository import Repository
from pgkura.restore.target import inspect_target
from pgkura.snapshot.standby import on_standby, standby_note
from pgkura.snapshot.take import refuse_filtered
from pgkura.storage.base import Storage

# Encodings all of whose text PostgreSQL can write in UTF-8. Others have gaps or user-defined characters; SQL_ASCII has
# no rules at all.
WITHOUT_GAPS = frozenset(
    {"UTF8", "WIN866", "WIN1256", "KOI8R", "KOI8U", "ISO_8859_5"}
    | {f"LATIN{number}" for number in (1, 2, 4, 5, 6, 7, 8, 9, 10)}
)
State = Literal["ok", "note", "warn", "fail"]


class Composition(Protocol):
    """What doctor may open."""

    def source(self) -> Endpoint:
        """The database."""
        ...

    def storage(self) -> Storage:
        """The store."""
        ...

    def repository(self) -> Repository:
        """The repository."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line: what was looked at, what was found, what to change ('' = nothing)."""

    state: State
    what: str
    found: str
    change: str = ""


@dataclass(slots=True)
class Report:
    """All checks, in the order they were made."""

    checks: list[Check] = field(default_factory=list)

    def add(self, state: State, what: str, found: str, change: str = "") -> None:
        """One more."""
        self.checks.append(Check(state=state, what=what, found=found, change=change))

    @property
    def exit_code(self) -> int:
        """0 when a backup would be whole, 3 when it would be incomplete, 1 when it cannot be made."""
        states = {c.state for c in self.checks}
        return 1 if "fail" in states else 3 if "warn" in states else 0

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": {0: "ok", 1: "failed", 3: "incomplete"}[self.exit_code],
            "checks": [{"state": c.state, "what": c.what, "found": c.found, "change": c.change} for c in self.checks],
        }


def examine(composition: Composition) -> Report:
    """Each part that cannot be looked at becomes a failed check; the others are still made."""
    report = Report()
    for part in (_database, _change_log, _store):
        try:
            part(composition, report)
        except UsageError as error:
            report.add("fail", "settings", f"{error.msg}. {error.detail}".strip(), error.hint)
        except PgkuraError as error:
            report.add(
                "fail", part.__name__.strip("_").replace("_", " "), f"{error.msg}. {error.detail}".strip(), error.hint
            )
    return report


def _database(composition: Composition, report: Report) -> None:
    endpoint = composition.source()
    with connect(endpoint, application_name="pgkura doctor") as session:
        kind = "through a session pooler: fine for backups" if session.pooled else "direct"
        report.add("ok", "connection", f"{endpoint.display}, {kind}")
        version = session.server_version
        supported = 140000 <= version < 190000
        report.add(
            "ok" if supported else "fail",
            "server",
            f"PostgreSQL {server_name(version)}",
            "" if supported else "pgkura works with PostgreSQL 14 to 18",
        )
        if on_standby(session):
            danger = standby_note(session)
            report.add(
                "note",
                "standby",
                f"every backup of it reads everything. {danger}".strip(),
                "set hot_standby_feedback = on there" if danger else "",
            )
        _encoding(str(session.one("SHOW server_encoding")[0]), report)
        _tls(endpoint, report)
        tool = find_client("pg_dump", version // 10000)
        relay = ", through a TLS relay of ours" if not tool.has_tls and needs_tls(endpoint) else ""
        report.add("ok", "client program", f"{tool.title} at {tool.path}{relay}")
        target = inspect_target(endpoint, session)
        rights = "superuser" if target.may.superuser else "no superuser"
        if target.bypass_rls:
            rights += ", not subject to row level security"
        report.add("ok", "role", f"{target.role}, {rights}; {target.kind}")
        try:
            refuse_filtered(session)
        except RightsError as error:
            report.add("fail", "row level security", f"{error.msg}. {error.detail}".strip(), error.hint)
        session.begin()
        findings = read_facts(session, target.platform).denied
        session.rollback()
        for finding in findings[:30]:
            report.add("warn", finding.object, finding.reason, "grant the right, or waive it by name with --accept")
        if not findings:
            report.add("ok", "protection", "everything in this database can be backed up by this role")
        if target.platform.name == "supabase":
            report.add(
                "note",
                "beside the database",
                "storage file bytes, Edge Functions, auth settings and API keys are not in the database",
                "keep them elsewhere",
            )


def _change_log(composition: Composition, report: Report) -> None:
    """Apart from the rest: a database that cannot be backed up whole can still be watched."""
    if not any(c.what == "connection" for c in report.checks):
        return
    with connect(composition.source(), application_name="pgkura doctor") as session:
        if not on_standby(session):
            for line in examine_log(session):
                report.add(line.state, WHAT, line.found, line.change)


def _encoding(name: str, report: Report) -> None:
    if name in WITHOUT_GAPS:
        return
    report.add(
        "note",
        "encoding",
        f"{name} may hold values that cannot be written in UTF-8: a table with such a value is named, not backed up",
        'docs/known-faults.md, "Encodings", says how to find and mend them',
    )


def _tls(endpoint: Endpoint, report: Report) -> None:
    mode = endpoint.parameters.get("sslmode", "")
    if endpoint.local:
        report.add("ok", "TLS", "not needed on this machine")
    elif mode == "verify-full":
        report.add("ok", "TLS", "on, the server's certificate is verified")
    elif mode in ("require", "verify-ca"):
        report.add(
            "note",
            "TLS",
            f"on ({mode}), but the server's name is not verified",
            "add sslmode=verify-full&sslrootcert=/path/to/provider-ca.crt to the URL",
        )
    else:
        report.add("warn", "TLS", f"sslmode={mode}: waived", "use sslmode=require or verify-full")


def _store(composition: Composition, report: Report) -> None:
    try:
        storage = composition.storage()
    except UsageError as error:
        report.add("note", "repository", f"none chosen: {error.msg}", error.hint)
        return
    properties = storage.properties()
    if properties.conditional_create:
        report.add("ok", "store", f"{storage.url}; conditional writes work")
    else:
        report.add(
            "note",
            "store",
            f"{storage.url}; this store has no conditional writes",
            "let only one machine write to this repository",
        )
    deleting = try_to_delete(storage)
    report.add(deleting.state, "deleting", deleting.found, deleting.change)
    try:
        repo = composition.repository()
    except (RepositoryNotFound, UsageError) as error:
        report.add("note", "repository", error.msg, error.hint)
        return
    manifests = repo.manifest_ids()
    can = [word for word, yes in (("back up", repo.can_write), ("restore", repo.can_read_data)) if yes]
    last = f"the newest is {manifests[-1]}" if manifests else "none yet"
    report.add("ok", "repository", f"{len(manifests)} snapshots, {last}; the keys here can {' and '.join(can)}")
    if not repo.can_write:
        report.add(
            "warn",
            "host key",
            "only the identity is here: backups are impossible on this machine",
            "`pgkura init` makes a new host key from the identity (the root's), or set PGKURA_HOST_KEY",
        )
