"""What changed between two tables of contents, as readable DDL. Pure."""

import difflib
from dataclasses import dataclass
from typing import Any

from pgkura.catalog.components import component_of, text_of
from pgkura.catalog.toc import Entry, Toc

# How the text is read, and the database itself, which is known better from elsewhere.
_IGNORED = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object that is only on one side (`before` or `after` is '') or differs."""

    component: str
    title: str
    desc: str
    schema: str
    tag: str
    owner: str
    before: str
    after: str

    @property
    def verb(self) -> str:
        """added, removed or changed."""
        return "changed" if self.before and self.after else "added" if self.after else "removed"

    def as_json(self) -> dict[str, Any]:
        """The `--json` shape."""
        return {
            "change": self.verb,
            "component": self.component,
            "object": self.title,
            "before": self.before,
            "after": self.after,
        }


def compare(before: Toc, after: Toc) -> list[Change]:
    """Changes, by component and object."""
    old, new = _by_key(before), _by_key(after)
    changes = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key, []), new.get(key, [])
        text_a, text_b = _texts(a), _texts(b)
        if text_a != text_b:
            entry = (a or b)[0]
            changes.append(
                Change(
                    component=component_of(entry),
                    title=entry.title,
                    desc=entry.desc,
                    schema=entry.schema,
                    tag=entry.tag,
                    owner=entry.owner,
                    before=text_a,
                    after=text_b,
                )
            )
    return sorted(changes, key=lambda c: (c.component, c.title))


def _by_key(toc: Toc) -> dict[tuple[str, str, str], list[Entry]]:
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in toc.entries:
        if entry.desc not in _IGNORED and entry.subject != "DATABASE":
            found.setdefault(entry.key, []).append(entry)
    return found


def _texts(entries: list[Entry]) -> str:
    return "".join(sorted(text_of(e) for e in entries))


def as_text(changes: list[Change]) -> str:
    """A unified diff per object."""
    parts = []
    for change in changes:
        parts.append(f"# {change.verb}: {change.title}\n")
        lines = difflib.unified_diff(
            change.before.splitlines(), change.after.splitlines(), "before", "after", lineterm="", n=2
        )
        parts.extend(f"{line}\n" for line in list(lines)[2:])
    return "".join(parts)
