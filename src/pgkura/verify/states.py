"""States beside definitions: sequences, roles, the database itself, large objects, secrets, jobs. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from pgkura.catalog.grants import parse_acl
from pgkura.catalog.inventory import Versions
from pgkura.catalog.roles import acl_name, effective_acl, owner_neutral
from pgkura.core.facts import LargeObjectFacts, MembershipFacts, RoleFacts, SourceFacts
from pgkura.core.names import quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.platform import GrantKind, Platform

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


def _managed(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.MANAGED, object=name, reason=reason, rule="platform-object")


def _roles(sides: Sides) -> Iterator[Finding]:
    have = {r.name: r for r in sides.there.roles}
    for want in sides.facts.roles:
        found = have.get(want.name)
        name = f"role {quote_ident(want.name)}"
        if sides.platform.is_managed_role(want.name):
            if found is not None:
                yield from _platform_role(want, found, sides.platform)
        elif want.managed and not sides.plain:
            yield _managed(name, "the target's platform has no such role")
        elif found is None:
            yield _lost(name, "it is missing")
        elif want.managed:
            yield from _without_platform(want, found)
        else:
            yield from _role(want, found)


def _platform_role(want: RoleFacts, found: RoleFacts, platform: Platform) -> Iterator[Finding]:
    """A role of the target's platform: its attributes are the platform's, its settings may be the user's."""
    name = f"role {quote_ident(want.name)}"
    if changed := _attributes(want, found):
        yield _managed(name, f"the platform's own differs in {', '.join(changed)}")
    differing = _names(set(found.settings) ^ set(want.settings))
    theirs = {s for s in differing if platform.is_platform_setting(s) or not platform.settings_are_users(want.name)}
    if ours := sorted(differing - theirs):
        yield _lost(f"settings of {name}", f"these differ: {', '.join(ours)}")
    elif theirs:
        yield _managed(f"settings of {name}", f"the platform's own differ: {', '.join(sorted(theirs))}")
    if found.comment != want.comment:
        mine = platform.settings_are_users(want.name)
        yield (_lost if mine else _managed)(f"comment on {name}", "it differs")


def _without_platform(want: RoleFacts, found: RoleFacts) -> Iterator[Finding]:
    """What was a platform's role, or a first superuser, on a plain server: which may be other databases' role too."""
    name = f"role {quote_ident(want.name)}"
    if not found.managed:
        changed = [a for a in _attributes(want, found) if a not in ("login", "valid_until")]
        if changed:
            yield _lost(name, f"differs in {', '.join(changed)}")
        elif want.login and not found.login:
            reason = "nobody logs in as it here: no LOGIN, no password"
            yield Finding(cls=FindingClass.BY_DESIGN, object=name, reason=reason, rule="platform-login")
    if missing := sorted(_names(set(want.settings) - set(found.settings))):
        yield _lost(f"settings of {name}", f"these are missing or differ: {', '.join(missing)}")
    if want.comment and found.comment != want.comment:
        yield _lost(f"comment on {name}", "it differs")


def _attributes(want: RoleFacts, found: RoleFacts) -> list[str]:
    changed = [
        f.name
        for f in fields(RoleFacts)
        if f.name not in _ROLE_SPECIALS and getattr(found, f.name) != getattr(want, f.name)
    ]
    if (found.valid_until or "infinity") != (want.valid_until or "infinity"):
        changed.append("valid_until")
    return changed


def _role(want: RoleFacts, found: RoleFacts) -> Iterator[Finding]:
    name = f"role {quote_ident(want.name)}"
    if changed := _attributes(want, found):
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

    def kind(m: MembershipFacts) -> GrantKind:
        return sides.platform.kind_of_grant(m.role, m.member)

    want = {key(m): m for m in sides.facts.memberships if kind(m) is not GrantKind.PLATFORM}
    have = {key(m): m for m in sides.there.memberships}
    for missing in want.keys() - have.keys():
        grant = want[missing]
        if kind(grant) is GrantKind.RESERVED:
            reason = "the platform reserves one of the two roles"
            yield Finding(cls=FindingClass.DENIED, object=_membership(grant), reason=reason)
        else:
            yield _lost(_membership(grant), "it is missing or has other options")
    known = {r.name for r in sides.facts.roles if not r.managed or sides.platform.is_managed_role(r.name)}
    for extra in have.keys() - want.keys():
        grant = have[extra]
        both = {grant.member, grant.role} <= known and kind(grant) is not GrantKind.PLATFORM
        if both and grant.member != sides.role:
            yield _lost(_membership(grant), "it is not in the snapshot, or has other options")


def _membership(m: MembershipFacts) -> str:
    return f"membership of {quote_ident(m.member)} in {quote_ident(m.role)}"


def _database(sides: Sides) -> Iterator[Finding]:
    want, have, platform = sides.facts.database, sides.there.database, sides.platform
    if want.owner != have.owner:
        reason = f"{have.owner} instead of {want.owner}"
        yield (_lost if sides.plain else _managed)("database owner", reason)
    for what in ("encoding", "connection_limit", "comment"):
        if getattr(want, what) != getattr(have, what):
            reason = "it differs" if what == "comment" else f"{getattr(have, what)} instead of {getattr(want, what)}"
            yield _lost(f"database {what.replace('_', ' ')}", reason)
    for setting in sorted(_names(set(want.settings) ^ set(have.settings))):
        name = f"database setting {setting}"
        if platform.is_platform_setting(setting):
            yield _managed(name, "the platform's own differs")
        else:
            yield _lost(name, "it is missing, differs or is not in the snapshot")
    role_settings = {(r, s.partition("=")[0]) for r, s in set(want.role_settings) ^ set(have.role_settings)}
    for role, setting in sorted(role_settings):
        name = f"setting {setting} of role {quote_ident(role)} in the database"
        if platform.is_platform_setting(setting) or not platform.settings_are_users(role):
            yield _managed(name, "the platform's own differs")
        else:
            yield _lost(name, "it is missing, differs or is not in the snapshot")
    yield from _database_privileges(sides)


def _database_privileges(sides: Sides) -> Iterator[Finding]:
    want, have = (effective_acl(d.acl, d.owner) for d in (sides.facts.database, sides.there.database))
    if sides.plain:
        if want != have:
            yield _lost("database privileges", "they differ")
        return
    want = owner_neutral(want, sides.facts.database.owner)
    have = owner_neutral(have, sides.there.database.owner)
    ours = {item for item in want ^ have if _grantee(item) not in sides.platform.owners}
    if ours:
        yield _lost("database privileges", "they differ")
    elif want != have:
        yield _managed("database privileges", "those of the platform's own roles differ")


def _grantee(item: str) -> str:
    return "" if item.startswith("/=") else parse_acl([item if "/" in item else f"{item}/"])[0].grantee


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
    name = acl_name(owner)
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
