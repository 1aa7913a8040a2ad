"""The parts of a snapshot that have a history: canonical text per kind, the same for the same definitions."""

from collections import defaultdict
from collections.abc import Iterable

from pgkura.catalog.kinds import COMPONENTS, KINDS, Stage
from pgkura.catalog.render import definition, ownership
from pgkura.catalog.toc import Entry, Toc

_SETTINGS = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"})


def component_of(entry: Entry) -> str:
    """Comments and labels belong where their object belongs."""
    if entry.desc in ("COMMENT", "SECURITY LABEL") and entry.subject in KINDS:
        return KINDS[entry.subject].component
    return KINDS[entry.desc].component


def stage_of(entry: Entry) -> Stage:
    """The plan's stage an entry is shown under."""
    if entry.desc in ("COMMENT", "SECURITY LABEL") and entry.subject in KINDS:
        return KINDS[entry.subject].stage
    return KINDS[entry.desc].stage


def text_of(entry: Entry) -> str:
    """An entry's canonical text: privileges as a set of statements, since their order means nothing."""
    body = definition(entry) + ownership(entry)
    if entry.desc in ("ACL", "DEFAULT ACL"):
        body = "".join(sorted(_with_grantor(body)))
    return body


def _with_grantor(body: str) -> list[str]:
    grantor = ""
    lines = []
    for line in body.splitlines(keepends=True):
        if line.startswith("SET SESSION AUTHORIZATION "):
            grantor = line.removeprefix("SET SESSION AUTHORIZATION ").rstrip(";\n")
        elif line.startswith("RESET SESSION AUTHORIZATION"):
            grantor = ""
        else:
            lines.append(f"/* by {grantor} */ {line}" if grantor else line)
    return lines


def component_texts(toc: Toc) -> dict[str, str]:
    """Canonical text per component (all but `roles`, which no archive holds): sorted by identity, no ids, no OIDs."""
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for entry in toc.entries:
        if entry.desc not in _SETTINGS and entry.subject != "DATABASE":
            grouped[component_of(entry)].append(entry)
    return {name: canonical_text(grouped.get(name, [])) for name in COMPONENTS if name != "roles"}


def canonical_text(entries: Iterable[Entry]) -> str:
    """Entries sorted by identity, each under a heading."""
    ordered = sorted(entries, key=lambda e: (e.key, text_of(e)))
    return "".join(f"-- {e.title!r}\n{text_of(e)}\n" for e in ordered)
