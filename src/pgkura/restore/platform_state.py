"""Vault secrets and cron jobs: they come back through the platform's own functions only."""

from collections.abc import Sequence

from pgkura.core.facts import SourceFacts
from pgkura.core.outcome import Finding, FindingClass
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError

_NO_SUCH = ("42883", "3F000", "42P01")
_UNTRUSTED = "the functions that make it are not a superuser's: they would run with your rights"


def _is_superusers(session: Session, schema: str) -> bool:
    """Whether all functions and relations of the platform's schema are a superuser's, or there are none."""
    return bool(session.one(query("target", "superusers_schema"), (schema, schema))[0])


def _finding(cls: FindingClass, name: str, reason: str, rule: str = "") -> Finding:
    return Finding(cls=cls, object=name, reason=reason, rule=rule)


def restore_secrets(session: Session, facts: SourceFacts) -> list[Finding]:
    """Each secret through vault.create_secret, under a new id; one that is there already is left alone."""
    findings = []
    trusted = _is_superusers(session, "vault")
    for name, description, secret in facts.secrets:
        title = f"vault secret {name or '(unnamed)'}"
        if not trusted:
            findings.append(_finding(FindingClass.LOST, title, _UNTRUSTED))
            continue
        try:
            if name and session.rows("SELECT FROM vault.secrets WHERE name = %s", (name,)):
                continue
            session.rows(
                "SELECT vault.create_secret(%s::text, %s::text, %s::text)", (secret, name or None, description)
            )
        except SqlError as error:
            if session.broken:
                raise
            cls = FindingClass.DENIED if error.sqlstate == "42501" else FindingClass.LOST
            findings.append(_finding(cls, title, error.msg))
        else:
            findings.append(_finding(FindingClass.BY_DESIGN, title, "made again under a new id", "vault-new-id"))
    return findings


def restore_jobs(session: Session, facts: SourceFacts) -> list[Finding]:
    """Each job through cron.schedule, switched off in the same transaction."""
    findings = []
    trusted = _is_superusers(session, "cron")
    for name, schedule, command, _, user, active in facts.cron_jobs:
        title = f"cron job {name or command}"
        if not trusted:
            findings.append(_finding(FindingClass.LOST, title, _UNTRUSTED))
            continue
        session.begin(isolation="read committed", read_only=False)
        try:
            words = (name, schedule, command) if name else (schedule, command)
            (job,) = session.one(f"SELECT cron.schedule({', '.join(['%s::text'] * len(words))})", words)
            session.rows("SELECT cron.alter_job(job_id := %s::bigint, active := false)", (job,))
            session.commit()
        except SqlError as error:
            if session.broken:
                raise
            session.rollback()
            cls = FindingClass.LOST if error.sqlstate in _NO_SUCH else FindingClass.DENIED
            findings.append(_finding(cls, title, error.msg))
        else:
            state = "switched off until `pgkura release`" if active else "it was off before too"
            findings.append(_finding(FindingClass.BY_DESIGN, title, f"user {user}: {state}", "cron-held"))
    return findings


def release_jobs(session: Session, facts: SourceFacts, *, dry_run: bool = False) -> tuple[list[str], list[Finding]]:
    """Switch held jobs to their stored state; returns the names that were (with `dry_run`: would be) switched."""
    released: list[str] = []
    findings: list[Finding] = []
    if not _is_superusers(session, "cron"):
        return [], [
            _finding(FindingClass.LOST, f"cron job {name or sql}", _UNTRUSTED) for name, _, sql, *_ in facts.cron_jobs
        ]
    for name, schedule, command, _, _, active in facts.cron_jobs:
        title = f"cron job {name or command}"
        try:
            ids: Sequence[tuple[int]] = session.rows(
                "SELECT jobid FROM cron.job WHERE COALESCE(jobname, '') = %s AND schedule = %s AND command = %s",
                (name, schedule, command),
            )
            if not ids:
                findings.append(_finding(FindingClass.LOST, title, "it is not on the target"))
            for (job,) in ids:
                if not dry_run:
                    session.rows("SELECT cron.alter_job(job_id := %s::bigint, active := %s)", (job, active))
                released.append(name or command)
        except SqlError as error:
            if session.broken:
                raise
            findings.append(_finding(FindingClass.DENIED, title, error.msg))
    return released, findings
