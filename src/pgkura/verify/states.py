"""States beside definitions: sequences, roles, the database itself, large objects, secrets, jobs. Pure."""

from collections.abc import Iterator
from dataclasses import fields

from pgkura.catalog.inventory import Versions
from pgkura.core.facts import MembershipFacts, RoleFacts, SourceFacts
from pgkura.core.names import quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.platform import Platform
from pgkura.postgres.facts import FactsRead

_LOST = FindingClass.LOST


def _lost(name: str, reason: str) -> Finding:
    return Finding(cls=_LOST, object=name, reason=reason)


def compare_states(facts: SourceFacts, there: FactsRead, platform: Platform, versions: Versions) -> list[Finding]:
    """Every state that is not as it was."""
    return [
        *_sequences(facts, there),
        *_roles(facts, there, platform),
        *_memberships(facts, there, platform, versions),
        *_database(facts, there, platform),
        *_large_objects(facts, there),
        *_secrets(facts, there),
        *_jobs(facts, there),
    ]


def _sequences(facts: SourceFacts, there: FactsRead) -> Iterator[Finding]:
    have = {s.qname: s for s in there.facts.sequences}
    for want in facts.sequences:
        found = have.get(want.qname)
        name = f"value of sequence {want.qname}"
        if found is None:
            yield _lost(name, "the sequence is missing")
        elif (found.last_value, found.is_called) != (want.last_value, want.is_called):
            reason = f"{found.last_value} instead of {want.last_value}"
            if found.managed:
                yield Finding(cls=FindingClass.DENIED, object=name, reason=f"{reason}; a sequence of the platform")
            else:
                yield _lost(name, reason)


def _roles(facts: SourceFacts, there: FactsRead, platform: Platform) -> Iterator[Finding]:
    have = {r.name: r for r in there.facts.roles}
    for want in facts.roles:
        if want.managed or platform.is_managed_role(want.name):
            continue
        found = have.get(want.name)
        name = f"role {quote_ident(want.name)}"
        if found is None:
            yield _lost(name, "it is missing")
            continue
        changed = [
            f.name
            for f in fields(RoleFacts)
            if f.name not in ("managed", "password", "settings", "valid_until", "comment")
            and getattr(found, f.name) != getattr(want, f.name)
        ]
        if changed:
            yield _lost(name, f"differs in {', '.join(changed)}")
        if (found.valid_until or "infinity") != (want.valid_until or "infinity"):
            yield _lost(name, "differs in valid_until")
        if found.comment != want.comment:
            yield _lost(f"comment on {name}", "differs")
        if set(found.settings) != set(want.settings):
            yield _lost(f"setting of {name}", f"{sorted(set(found.settings) ^ set(want.settings))}")
        if want.password is not None and found.password is not None and found.password != want.password:
            yield _lost(f"password of {name}", "another hash")


def _memberships(facts: SourceFacts, there: FactsRead, platform: Platform, versions: Versions) -> Iterator[Finding]:
    options = min(versions.source, versions.target) >= 16

    def key(m: MembershipFacts) -> tuple[object, ...]:
        return (m.role, m.member, m.admin, m.inherit, m.set) if options else (m.role, m.member, m.admin)

    have = {key(m) for m in there.facts.memberships}
    for want in facts.memberships:
        if platform.is_managed_role(want.member) or key(want) in have:
            continue
        yield _lost(f"membership of {quote_ident(want.member)} in {quote_ident(want.role)}", "it is missing or differs")


def _database(facts: SourceFacts, there: FactsRead, platform: Platform) -> Iterator[Finding]:
    want, have = facts.database, there.facts.database
    if want.owner != have.owner and platform.name == "plain":
        yield _lost("database owner", f"{have.owner} instead of {want.owner}")
    if want.comment != have.comment and platform.name == "plain":
        yield _lost("database comment", "differs")
    if want.connection_limit != have.connection_limit:
        yield _lost("database connection limit", f"{have.connection_limit} instead of {want.connection_limit}")
    if want.encoding != have.encoding:
        yield _lost("database encoding", f"{have.encoding} instead of {want.encoding}")
    for setting in want.settings:
        if setting not in have.settings:
            yield _lost(f"database setting {setting.partition('=')[0]}", "it is missing or differs")
    for role, setting in want.role_settings:
        if (role, setting) not in have.role_settings:
            name = f"setting {setting.partition('=')[0]} of role {quote_ident(role)} in the database"
            yield _lost(name, "it is missing or differs")
    if want.acl is not None and platform.name == "plain" and set(want.acl) != set(have.acl or ()):
        yield _lost("database privileges", "they differ")


def _large_objects(facts: SourceFacts, there: FactsRead) -> Iterator[Finding]:
    have = {o.oid: o for o in there.facts.large_objects}
    for want in facts.large_objects:
        found = have.pop(want.oid, None)
        name = f"large object {want.oid}"
        if found is None:
            yield _lost(name, "it is missing")
            continue
        if found.owner != want.owner:
            yield _lost(f"owner of {name}", f"{found.owner} instead of {want.owner}")
        if set(found.acl) - {_own(found.owner)} != set(want.acl) - {_own(want.owner)}:
            yield _lost(f"privileges of {name}", "they differ")
        if found.comment != want.comment:
            yield _lost(f"comment on {name}", "differs")
    for oid in have:
        yield _lost(f"large object {oid}", "it is not in the snapshot")


def _own(owner: str) -> str:
    return f"{owner}=rw/{owner}"


def _secrets(facts: SourceFacts, there: FactsRead) -> Iterator[Finding]:
    have = list(there.facts.secrets)
    for secret in facts.secrets:
        if secret in have:
            have.remove(secret)
        else:
            yield _lost(f"vault secret {secret[0] or '(unnamed)'}", "it is missing or differs")


def _jobs(facts: SourceFacts, there: FactsRead) -> Iterator[Finding]:
    have = {job[0]: job for job in there.facts.cron_jobs}
    for job in facts.cron_jobs:
        found = have.get(job[0])
        name = f"cron job {job[0]}"
        if found is None or found[1:3] != job[1:3]:
            yield _lost(name, "it is missing or differs")
        elif found[5] != job[5]:
            reason = "held back" if job[5] else "it was off and is on"
            yield Finding(cls=FindingClass.BY_DESIGN, object=name, reason=reason, rule="cron-held")
