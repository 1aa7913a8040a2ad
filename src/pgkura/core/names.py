"""SQL names as one printable word, and back.

A name in a repository list must survive tabs, newlines and backslashes in identifiers and stay usable by
`psql` as it stands, so identifiers are always quoted, and those with control characters or backslashes use
the standard's U&"..." form (PostgreSQL documentation, "Identifiers and Key Words", 4.1.1).
"""

import re
from dataclasses import dataclass

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\\]")


def quote_ident(name: str) -> str:
    """`name` as an always-quoted SQL identifier in printable characters.

    Raises ValueError for an empty name or one holding NUL, which PostgreSQL cannot have.
    """
    if not name or "\0" in name:
        raise ValueError(f"not a PostgreSQL identifier: {name!r}")
    doubled = name.replace('"', '""')
    if _UNPRINTABLE.search(name) is None:
        return f'"{doubled}"'
    escaped = "".join(f"\\{ord(ch):04x}" if ch == "\\" or ch < " " or ch == "\x7f" else ch for ch in doubled)
    return f'U&"{escaped}"'


def quote_literal(text: str) -> str:
    """`text` as an SQL string literal, safe whatever `standard_conforming_strings` says."""
    if "\0" in text:
        raise ValueError("a PostgreSQL text value cannot hold NUL")
    body = text.replace("'", "''")
    return " E'" + body.replace("\\", "\\\\") + "'" if "\\" in text else f"'{body}'"


@dataclass(frozen=True, slots=True, order=True)
class QualifiedName:
    """A schema-qualified relation name."""

    schema: str
    name: str

    @property
    def sql(self) -> str:
        """Both parts quoted, e.g. `"public"."users"`."""
        return f"{quote_ident(self.schema)}.{quote_ident(self.name)}"

    def __str__(self) -> str:
        return self.sql
