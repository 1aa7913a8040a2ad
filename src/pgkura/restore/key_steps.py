"""A large table's primary or unique key in two steps. Pure.

ADD CONSTRAINT … PRIMARY KEY builds its index under a lock that no other index of the table can be built beside. CREATE
UNIQUE INDEX takes a weaker one, and ADD CONSTRAINT … USING INDEX makes it a key in no time; the catalog is the same.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pgkura.catalog.toc import Entry
from pgkura.restore.marker import Key, plain

_NAME = r'(?:[a-z_][a-z0-9_$]*|"(?:[^"]|"")+")'
_NAMES = rf"\({_NAME}(?:, {_NAME})*\)"
_OPTION = r"[a-z_]+='?[a-z0-9.]+'?"
# As pg_dump writes it (pg_dump.c, dumpConstraint); what it says of the index afterwards is left as it is.
_KEY = re.compile(
    rf"ALTER TABLE ONLY (?P<table>{_NAME}(?:\.{_NAME})?)\n"
    rf"    ADD CONSTRAINT (?P<name>{_NAME}) (?P<kind>PRIMARY KEY|UNIQUE)(?P<nulls> NULLS NOT DISTINCT)? "
    rf"(?P<columns>{_NAMES})(?P<include> INCLUDE {_NAMES})?(?P<options> WITH \({_OPTION}(?:, {_OPTION})*\))?"
    r"(?P<deferred> DEFERRABLE(?: INITIALLY DEFERRED)?)?;\n(?P<rest>(?:\nALTER .*)?)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySteps:
    """`index` builds the index called `name`; `key` makes it the key, and says the rest."""

    name: str
    index: str
    key: str


def key_steps(entry: Entry) -> KeySteps | None:
    """None where the definition is anything but a plain key: it is then executed as it is."""
    found = _KEY.fullmatch(entry.defn) if entry.desc == "CONSTRAINT" else None
    if found is None:
        return None
    table, name, kind = found["table"], found["name"], found["kind"]
    nulls, include, options, deferred = (found[g] or "" for g in ("nulls", "include", "options", "deferred"))
    alter = f"ALTER TABLE ONLY {table}\n    ADD CONSTRAINT {name}"
    return KeySteps(
        name=name[1:-1].replace('""', '"') if name.startswith('"') else name,
        index=f"CREATE UNIQUE INDEX {name} ON ONLY {table} USING btree {found['columns']}{include}{nulls}{options};\n",
        key=f"{alter} {kind} USING INDEX {name}{deferred};\n{found['rest']}",
    )


def bare_indexes(entries: Iterable[Entry]) -> frozenset[Key]:
    """How a dump names what lies between the two steps: an index that is no key yet."""
    steps = ((entry, key_steps(entry)) for entry in entries)
    return frozenset(plain(("INDEX", entry.schema, found.name)) for entry, found in steps if found is not None)
