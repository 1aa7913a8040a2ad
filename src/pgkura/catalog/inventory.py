"""Two readings of the catalog compared, each difference in exactly one class. Pure."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.platform import Platform

Key = tuple[str, str]
Items = Mapping[Key, Mapping[str, Any]]

# Attributes that hold SQL text which PostgreSQL majors print differently for the same thing.
_TEXTS = frozenset({"definition", "using", "check", "default", "partition_bound", "partition_key"})
# Rows of these kinds on a platform's table are the user's own.
_USERS_OWN = frozenset({"trigger", "policy"})
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[\w$]+|[^\s\w]")
_FIRST_WITH_MAINTAIN = 17
_FIRST_WITH_COLUMNS = 15  # publications of some columns or rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Majors of the source and the target."""

    source: int
    target: int

    @property
    def cross(self) -> bool:
        """Whether they differ."""
        return self.source != self.target

    @property
    def oldest(self) -> int:
        """The older of the two."""
        return min(self.source, self.target)


def read_items(lines: bytes) -> Items:
    """The items of a stored inventory: one JSON object per line."""
    records = (json.loads(line) for line in lines.splitlines())
    return {(r["class"], r["identity"]): r["attributes"] for r in records}


def compare(source: Items, target: Items, platform: Platform, versions: Versions) -> list[Finding]:
    """Every item that is on one side only or differs. `platform` is the target's.

    A relation that is missing, or too much, stands for its columns, indexes, triggers and the like.
    """
    source = as_owned_by(source, _first_superuser(target))
    owned = _platform_relations(source, platform) | _platform_relations(target, platform)
    # Not so a platform's: what a user put on it is the user's own.
    one_sided = (_relations(source) ^ _relations(target)) - owned
    findings: list[Finding] = []
    for key in sorted(source.keys() | target.keys()):
        cls, identity = key
        name = f"{cls} {identity}"
        want, have = source.get(key), target.get(key)
        if (want is None or have is None) and (want or have or {}).get("of") in one_sided:
            continue
        mine = _is_platforms(key, want if want is not None else have or {}, platform, owned)
        if want is None:
            findings.append(_extra(name, mine))
        elif have is None:
            findings.append(_missing(name, mine and cls not in _USERS_OWN))
        else:
            finding = _different(name, want, have, mine, versions)
            if finding is not None:
                findings.append(finding)
    return findings


def as_owned_by(items: Items, theirs: str) -> Items:
    """What every server's first superuser owns by itself, under the name that he has elsewhere; '' leaves it."""
    ours = _first_superuser(items)
    if not ours or not theirs or ours == theirs:
        return items
    renamed = {
        key: _given_to(attributes, ours, theirs) if _is_the_servers(key, attributes) else attributes
        for key, attributes in items.items()
    }
    # Rights on a parameter that only its owner has are no entry at all.
    return {k: a for k, a in renamed.items() if k[0] != "parameter" or not all(_is_of(i, theirs) for i in a["acl"])}


def _first_superuser(items: Items) -> str:
    owners = Counter(str(a["owner"]) for (cls, _), a in items.items() if cls == "system_privileges" and "owner" in a)
    return owners.most_common(1)[0][0] if owners else ""


def _is_the_servers(key: Key, attributes: Mapping[str, Any]) -> bool:
    made_by_type = key[0] == "function" and "range_constructor" in str(attributes.get("definition"))
    return made_by_type or key[0] in ("system_privileges", "parameter")


def _given_to(attributes: Mapping[str, Any], ours: str, theirs: str) -> Mapping[str, Any]:
    given = dict(attributes)
    if given.get("owner") == ours:
        given["owner"] = theirs
    if isinstance(given.get("acl"), list):
        granted = [i.removesuffix(f"/{ours}") + f"/{theirs}" if i.endswith(f"/{ours}") else i for i in given["acl"]]
        mine = f"{ours}="
        given["acl"] = sorted({f"{theirs}={i.removeprefix(mine)}" if _is_of(i, ours) else i for i in granted})
    return given


def _is_of(item: str, grantee: str) -> bool:
    return item.startswith(f"{grantee}=")


def _relations(items: Items) -> set[str]:
    return {identity for cls, identity in items if cls == "relation"}


def _platform_relations(items: Items, platform: Platform) -> frozenset[str]:
    if platform.name == "plain":
        return frozenset()
    return frozenset(
        identity
        for (cls, identity), attributes in items.items()
        if cls == "relation" and platform.owns(identity.split(".", 1)[0], str(attributes.get("owner", "")))
    )


def _is_platforms(key: Key, attributes: Mapping[str, Any], platform: Platform, owned: frozenset[str]) -> bool:
    if platform.name == "plain":
        return False
    cls, identity = key
    if cls == "relation":
        return identity in owned
    of = attributes.get("of")
    if isinstance(of, str):
        return of in owned
    if cls == "schema":
        return identity in platform.managed_schemas
    if cls == "default_privileges":
        return any(identity.startswith(f"for {role} ") for role in platform.owners)
    if cls == "extension":
        return False
    return str(attributes.get("owner", "")) in platform.owners


def _managed(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.MANAGED, object=name, reason=reason, rule="platform-object")


def _lost(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.LOST, object=name, reason=reason)


def _extra(name: str, mine: bool) -> Finding:
    reason = "it is not in the snapshot"
    return _managed(name, reason) if mine else _lost(name, reason)


def _missing(name: str, mine: bool) -> Finding:
    return _managed(name, "the target's platform has no such object") if mine else _lost(name, "it is missing")


def _different(
    name: str, want: Mapping[str, Any], have: Mapping[str, Any], mine: bool, versions: Versions
) -> Finding | None:
    changed = []
    normalised = []
    for attribute in sorted(want.keys() & have.keys() if versions.cross else want.keys() | have.keys()):
        a, b = want.get(attribute), have.get(attribute)
        if attribute == "acl" and versions.cross:
            a, b = _without_maintain(a, versions), _without_maintain(b, versions)
        if a == b or (
            attribute == "tables" and cls_of(name) == "publication" and versions.oldest < _FIRST_WITH_COLUMNS
        ):
            continue
        if versions.cross and attribute in _TEXTS and _tokens(a) == _tokens(b):
            normalised.append(attribute)
        else:
            changed.append(attribute)
    if mine:
        if "acl" in changed:
            return Finding(cls=FindingClass.DENIED, object=name, reason="privileges on a platform's object differ")
        return _managed(name, f"another version of it: {', '.join(changed)}") if changed else None
    if changed == ["version"] and cls_of(name) == "extension":
        return Finding(
            cls=FindingClass.BY_DESIGN,
            object=name,
            reason=f"{want['version']} → {have['version']}",
            rule="extension-version",
        )
    if changed:
        return _lost(name, f"differs in {', '.join(_shown(x, want, have) for x in changed)}")
    if normalised:
        return Finding(
            cls=FindingClass.BY_DESIGN,
            object=name,
            reason=f"{', '.join(normalised)} printed differently by PostgreSQL {versions.target}",
            rule="normalised-text",
        )
    return None


def cls_of(name: str) -> str:
    """The class at the beginning of an object's name."""
    return name.partition(" ")[0]


def _shown(attribute: str, want: Mapping[str, Any], have: Mapping[str, Any]) -> str:
    a, b = want.get(attribute), have.get(attribute)
    if attribute == "acl" and isinstance(a, list) and isinstance(b, list):
        return f"acl (missing {sorted(set(a) - set(b))}, extra {sorted(set(b) - set(a))})"
    text = f"{a!r} → {b!r}"
    return f"{attribute} ({text})" if len(text) < 120 else attribute


def _without_maintain(acl: Any, versions: Versions) -> Any:
    """MAINTAIN exists since 17 and comes with ALL."""
    if isinstance(acl, list) and versions.oldest < _FIRST_WITH_MAINTAIN:
        return [item for item in acl if "=MAINTAIN" not in item]
    return acl


def _tokens(text: Any) -> list[str] | None:
    """Words and signs without qualifiers, quotes and parentheses: what newer majors leave out or add."""
    if not isinstance(text, str):
        return None
    tokens = [t.strip('"') for t in _TOKEN.findall(text) if t not in "()"]
    kept: list[str] = []
    for word in tokens:
        if word == "." and kept:
            kept.pop()
        else:
            kept.append(word)
    return kept
