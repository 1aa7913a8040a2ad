"""States beside definitions: sequences, roles, the database itself, large objects, secrets, jobs. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from pgkura.catalog.inventory import Versions
from pgkura.core.facts import LargeObjectFacts, MembershipFacts, RoleFacts, SourceFacts
from pgkura.core.names import quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.platform import Platform

_SINCE_GRANT_OPTIONS = 16
# Compared in ways of their own below.
_ROLE_SPECIALS = frozenset({"name", "managed", "password", "settings", "valid_until", "comment"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """A snapshot's facts and a database's.

    unreadable  titles of what the comparing role may not read on the target
    role        that role: on 16 and newer it becomes a member of every role it makes
    """

    facts: SourceFacts
    there: SourceFacts
    platform: Platform
    versions: Versions
    unreadable: frozenset[str] = frozenset()
    role: str = ""

    @property
    def plain(self) -> bool:
        """Whether the whole database is its user's."""
        return self.platform.name == "plain"

    def missing(self, name: str, title: str = "") -> Finding:
        """Not found on the target: lost, or only out of sight (`title`: its name among the unreadable)."""
        if (title or name) in self.unreadable:
            return Finding(cls=FindingClass.DENIED, object=name, reason="no right to read it")
        return _lost(name, "it is missing")


def _lost(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.LOST, object=name, reason=reason)


def compare_states(sides: Sides) -> list[Finding]:
    """Every state that is not as it was."""
    return [
        *_sequences(sides),
        *_roles(sides),
        *_memberships(sides),
        *_database(sides),
        *_large_objects(sides),
        *_secrets(sides),
        *_jobs(sides),
    ]


def _sequences(sides: Sides) -> Iterator[Finding]:
    have = {s.qname: s for s in sides.there.sequences}
    for want in sides.facts.sequences:
        found = have.get(want.qname)
        name = f"value of sequence {want.qname}"
        if found is None:
            yield sides.missing(name, f"sequence {want.qname}")
        elif (found.last_value, found.is_called) != (want.last_value, want.is_called):
            shown = [f"{s.last_value}{'' if s.is_called else ' (not used yet)'}" for s in (found, want)]
            reason = f"{shown[0]} instead of {shown[1]}"
            if found.managed:
                yield Finding(cls=FindingClass.DENIED, object=name, reason=f"{reason}; a sequence of the platform")
            else:
                yield _lost(name, reason)


def _roles(sides: Sides) -> Iterator[Finding]:
    have = {r.name: r for r in sides.there.roles}
    for want in sides.facts.roles:
        if want.managed or sides.platform.is_managed_role(want.name):
            continue
        found = have.get(want.name)
        if found is None:
            yield _lost(f"role {quote_ident(want.name)}", "it is missing")
        else:
            yield from _role(want, found)


def _role(want: RoleFacts, found: RoleFacts) -> Iterator[Finding]:
    name = f"role {quote_ident(want.name)}"
    changed = [
        f.name
        for f in fields(RoleFacts)
        if f.name not in _ROLE_SPECIALS and getattr(found, f.name) != getattr(want, f.name)
    ]
    if (found.valid_until or "infinity") != (want.valid_until or "infinity"):
        changed.append("valid_until")
    if changed:
        yield _lost(name, f"differs in {', '.join(changed)}")
    if found.comment != want.comment:
        yield _lost(f"comment on {name}", "it differs")
    if differing := sorted(_names(set(found.settings) ^ set(want.settings))):
        yield _lost(f"settings of {name}", f"these differ: {', '.join(differing)}")
    if want.password is None:
        return  # the backup could not read it, and says so itself
    if found.password is None:
        yield Finding(cls=FindingClass.DENIED, object=f"password of {name}", reason="no right to read its hash here")
    elif found.password != want.password:
        yield _lost(f"password of {name}", "another hash")


def _names(settings: Iterable[str]) -> set[str]:
    return {s.partition("=")[0] for s in settings}


def _memberships(sides: Sides) -> Iterator[Finding]:
    options = min(sides.versions.source, sides.versions.target) >= _SINCE_GRANT_OPTIONS

    def key(m: MembershipFacts) -> tuple[object, ...]:
        return (m.role, m.member, m.admin, m.inherit, m.set) if options else (m.role, m.member, m.admin)

    ours = {r.name for r in sides.facts.roles if not r.managed and not sides.platform.is_managed_role(r.name)}
    want = {key(m): m for m in sides.facts.memberships if m.member in ours}
    have = {key(m): m for m in sides.there.memberships}
    for missing in want.keys() - have.keys():
        yield _lost(_membership(want[missing]), "it is missing or has other options")
    for extra in have.keys() - want.keys():
        grant = have[extra]
        if grant.member in ours and grant.role in ours and grant.member != sides.role:
            yield _lost(_membership(grant), "it is not in the snapshot, or has other options")


def _membership(m: MembershipFacts) -> str:
    return f"membership of {quote_ident(m.member)} in {quote_ident(m.role)}"


def _database(sides: Sides) -> Iterator[Finding]:
    want, have = sides.facts.database, sides.there.database
    for what in ("encoding", "connection_limit", *(("owner", "comment") if sides.plain else ())):
        if getattr(want, what) != getattr(have, what):
            reason = "it differs" if what == "comment" else f"{getattr(have, what)} instead of {getattr(want, what)}"
            yield _lost(f"database {what.replace('_', ' ')}", reason)
    # A platform sets its own beside the user's.
    extra = set(have.settings) - set(want.settings) if sides.plain else set()
    for setting in sorted(_names((set(want.settings) - set(have.settings)) | extra)):
        yield _lost(f"database setting {setting}", "it is missing or differs")
    role_extra = set(have.role_settings) - set(want.role_settings) if sides.plain else set()
    for role, setting in sorted((set(want.role_settings) - set(have.role_settings)) | role_extra):
        name = f"setting {setting.partition('=')[0]} of role {quote_ident(role)} in the database"
        yield _lost(name, "it is missing or differs")
    if sides.plain and effective_acl(want.acl, want.owner) != effective_acl(have.acl, have.owner):
        yield _lost("database privileges", "they differ")


_SAFE = re.compile(r"[A-Za-z0-9_]+\Z")


def effective_acl(acl: tuple[str, ...] | None, owner: str) -> frozenset[str]:
    """A database's privileges; None stands for what PostgreSQL gives a new one (acldefault)."""
    if acl is not None:
        return frozenset(acl)
    doubled = owner.replace('"', '""')
    name = owner if _SAFE.match(owner) else f'"{doubled}"'
    return frozenset({f"=Tc/{name}", f"{name}=CTc/{name}"})


def _large_objects(sides: Sides) -> Iterator[Finding]:
    have = {o.oid: o for o in sides.there.large_objects}
    for want in sides.facts.large_objects:
        found = have.pop(want.oid, None)
        if found is None:
            yield sides.missing(f"large object {want.oid}")
        else:
            yield from _large_object(want, found)
    for oid in have:
        yield _lost(f"large object {oid}", "it is not in the snapshot")


def _large_object(want: LargeObjectFacts, found: LargeObjectFacts) -> Iterator[Finding]:
    name = f"large object {want.oid}"
    if found.size != want.size:
        yield _lost(name, f"{found.size:,} bytes instead of {want.size:,}")
    if found.owner != want.owner:
        yield _lost(f"owner of {name}", f"{found.owner} instead of {want.owner}")
    if set(found.acl) - {_own(found.owner)} != set(want.acl) - {_own(want.owner)}:
        yield _lost(f"privileges of {name}", "they differ")
    if found.comment != want.comment:
        yield _lost(f"comment on {name}", "it differs")


def _own(owner: str) -> str:
    doubled = owner.replace('"', '""')
    name = owner if _SAFE.match(owner) else f'"{doubled}"'
    return f"{name}=rw/{name}"


def _secrets(sides: Sides) -> Iterator[Finding]:
    """By name, description and clear text: ids are new by design."""
    have = list(sides.there.secrets)
    for secret in sides.facts.secrets:
        if secret in have:
            have.remove(secret)
        elif "vault secrets" in sides.unreadable:
            yield Finding(cls=FindingClass.DENIED, object="vault secrets", reason="no right to decrypt them here")
            return
        else:
            yield _lost(_secret(secret), "it is missing or differs")
    for secret in have:
        yield _lost(_secret(secret), "it is not in the snapshot, or differs")


def _secret(secret: tuple[str, str, str]) -> str:
    return f"vault secret {secret[0] or '(unnamed)'}"


def _jobs(sides: Sides) -> Iterator[Finding]:
    """By name, unnamed ones by what they run; a job that was on may be held off until `release`."""
    have = [_job(job, sides.there.database.name) for job in sides.there.cron_jobs]
    changed = []
    for want in (_job(job, sides.facts.database.name) for job in sides.facts.cron_jobs):
        found = next((job for job in have if job[:-1] == want[:-1]), None)
        if found is None:
            changed.append(want[0])
            continue
        have.remove(found)
        name = f"cron job {want[0]}"
        if found[-1] and not want[-1]:
            yield _lost(name, "it was off and is on")
        elif want[-1] and not found[-1]:
            yield Finding(cls=FindingClass.BY_DESIGN, object=name, reason="held back", rule="cron-held")
    left = [job[0] for job in have]
    for name in changed:
        if name in left:
            left.remove(name)
            yield _lost(f"cron job {name}", "its schedule, command, database or user differs")
        else:
            yield _lost(f"cron job {name}", "it is missing")
    for name in left:
        yield _lost(f"cron job {name}", "it is not in the snapshot")


def _job(job: tuple[str, str, str, str, str, bool], here: str) -> tuple[str, str, str, str, str, bool]:
    """Known by its name or, unnamed, by its command; "this database" is the same under another name."""
    name, schedule, command, database, user, active = job
    return (name or command, schedule, command, "" if database == here else database, user, active)
