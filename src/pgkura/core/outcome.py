"""`ok` or `incomplete`: the one place where that is decided.

Every difference or omission is a Finding of one class. The classes are a closed list; only a waiver, given
once by name with `--accept` and shown in every result, turns a `denied` finding into one that does not count.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FindingClass(StrEnum):
    """Why something is not exactly as it was.

    managed    owned by the platform, present in the target, not user state
    by_design  differs by a stated rule (vault ids, held cron jobs)
    denied     user state that the role's rights forbid to read or to write
    lost       user state that should be there and is not, or differs
    """

    MANAGED = "managed"
    BY_DESIGN = "by_design"
    DENIED = "denied"
    LOST = "lost"


class Result(StrEnum):
    """The answer of a whole run; a run that failed raises instead."""

    OK = "ok"
    INCOMPLETE = "incomplete"


# The rules that `by_design` and `managed` findings may cite. A closed list: a finding citing anything else is
# a programming error, so nobody can widen it to go green without touching this table and its test.
RULES: dict[str, str] = {
    "platform-object": "owned and created by the platform; present in the target before the restore",
    "platform-rows": "rows that the platform itself writes (its migration ledgers)",
    "platform-login": "logins of a platform that is not on the target come back without LOGIN and password",
    "vault-new-id": "vault secrets get new ids when created again; name, description and secret are compared",
    "cron-held": "cron jobs come back switched off until `pgkura release`",
    "extension-member": "created by its extension; the extension and its version are compared instead",
    "normalised-text": "the same definition printed differently by another PostgreSQL major",
    "extension-version": "the version of an extension that the target's server offers",
    "generated": "computed by the server from other columns; the expression is compared instead",
    "unlogged-not-durable": "contents of unlogged tables are copied, yet the server itself drops them after a crash",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One named omission or difference.

    `object` is a person-readable identity such as `table "public"."users"`; `reason` one plain sentence;
    `rule` a key of RULES, required for `managed` and `by_design`.
    """

    cls: FindingClass
    object: str
    reason: str
    rule: str = ""

    def __post_init__(self) -> None:
        needs_rule = self.cls in (FindingClass.MANAGED, FindingClass.BY_DESIGN)
        if needs_rule and self.rule not in RULES:
            raise ValueError(f"{self.cls} finding without a known rule: {self.object} ({self.rule!r})")

    def as_json(self) -> dict[str, str]:
        """The shape used in `skipped` lists of every `--json` result."""
        out = {"class": self.cls.value, "object": self.object, "reason": self.reason}
        if self.rule:
            out["rule"] = self.rule
        return out


def finding_from_json(data: dict[str, str]) -> Finding:
    """The inverse of Finding.as_json."""
    return Finding(
        cls=FindingClass(data["class"]),
        object=data["object"],
        reason=data["reason"],
        rule=data.get("rule", ""),
    )


def decide(findings: Iterable[Finding], accepted: Iterable[str] = ()) -> Result:
    """`incomplete` if any finding is `lost`, or `denied` and not waived by its exact object name.

    A `lost` finding cannot be waived.
    """
    waived = frozenset(accepted)
    for finding in findings:
        if finding.cls is FindingClass.LOST:
            return Result.INCOMPLETE
        if finding.cls is FindingClass.DENIED and finding.object not in waived:
            return Result.INCOMPLETE
    return Result.OK


def unused(findings: Iterable[Finding], accepted: Iterable[str]) -> tuple[str, ...]:
    """Waivers that name no `denied` finding: misspelt, or needed no more."""
    denied = {finding.object for finding in findings if finding.cls is FindingClass.DENIED}
    return tuple(name for name in dict.fromkeys(accepted) if name not in denied)
