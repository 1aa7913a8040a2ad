"""What a restore said and what the proof saw become one list: each object once, under its class. Pure."""

import re
from collections.abc import Iterable

from pgkura.core.outcome import Finding, FindingClass

# What a finding told before may explain. A rule of the platform or of design never hides a difference that the proof
# calls lost: only "you may not" does, since then the difference is its consequence.
_EXPLAINS: dict[FindingClass, frozenset[FindingClass]] = {
    FindingClass.LOST: frozenset(FindingClass),
    FindingClass.DENIED: frozenset(FindingClass),
    FindingClass.BY_DESIGN: frozenset({FindingClass.BY_DESIGN, FindingClass.MANAGED}),
    FindingClass.MANAGED: frozenset({FindingClass.BY_DESIGN, FindingClass.MANAGED}),
}


def merge(told: Iterable[Finding], found: Iterable[Finding]) -> list[Finding]:
    """`told` first, then what of `found` it does not explain.

    Where the proof sees worse than was told, the proof's finding replaces it.
    """
    merged: dict[str, Finding] = {}
    for finding in (*told, *found):
        name = plain(finding.object)
        known = merged.get(name)
        if known is None or finding.cls not in _EXPLAINS[known.cls]:
            merged[name] = finding
    return list(merged.values())


def plain(name: str) -> str:
    """A title by which the same object is known whoever wrote it.

    Plans always quote, catalogs only where needed; only catalogs say where PostgreSQL's own types lie.
    """
    return _WORD.sub(_word, name).replace("pg_catalog.", "")


_WORD = re.compile(r'(?P<coded>U&)?"(?P<quoted>(?:[^"]|"")*)"|(?P<blank>\s+)')
_CODED = re.compile(r"\\([0-9a-f]{4})")
_SIMPLE = re.compile(r"[a-z_][a-z0-9_$]*\Z")


def _word(found: re.Match[str]) -> str:
    if found["blank"]:
        return ""
    text = found["quoted"]
    if found["coded"]:
        text = _CODED.sub(lambda code: chr(int(code[1], 16)), text)
    return text if _SIMPLE.match(text) else f'"{text}"'
