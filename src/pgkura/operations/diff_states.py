"""What no archive holds, compared between two sides: roles, memberships, the database, large objects, the inventory.

As the statement that makes it where there is one, else as a line per attribute. Pure; password hashes are never shown.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pgkura.catalog.diff import Change
from pgkura.catalog.grants import grant_statements
from pgkura.catalog.inventory import Items
from pgkura.catalog.roles import (
    Abilities,
    database_statements,
    effective_acl,
    membership_statements,
    role_statements,
)
from pgkura.catalog.toc import Toc
from pgkura.core.facts import DatabaseFacts, LargeObjectFacts, MembershipFacts, RoleFacts, SourceFacts
from pgkura.core.names import quote_ident, quote_literal
from pgkura.core.platform import PLAIN
from pgkura.restore.choosing import title_of
from pgkura.verify.merging import plain

_VERSION = 160000
_ALL = Abilities(superuser=True, createrole=True, replication=True, bypassrls=True, version=_VERSION)
_COMPONENTS = {
    "extension": "extensions", "schema": "schema", "relation": "schema", "column": "schema", "type": "types",
    "constraint": "constraints", "index": "indexes", "trigger": "triggers", "event_trigger": "triggers",
    "policy": "rls", "function": "functions", "default_privileges": "permissions",
    "system_privileges": "permissions", "parameter": "permissions",
}  # fmt: skip
# Entries whose names tell nothing of the items they make.
_MAKERS = {
    "DEFAULT ACL": "default_privileges",
    "PUBLICATION TABLE": "publication",
    "PUBLICATION TABLES IN SCHEMA": "publication_schema",
}
_ABOUT = frozenset({"ACL", "COMMENT", "SECURITY LABEL"})
_SUBJECT = re.compile(r"(?:[A-Z]+ )+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a diff."""

    name: str
    toc: Toc
    facts: SourceFacts
    items: Items


def compare_states(before: Side, after: Side, shown: Sequence[Change]) -> list[Change]:
    """Changes beside those of the archives, which are `shown` already."""
    return [
        *_roles(before.facts, after.facts),
        *_memberships(before.facts, after.facts),
        *_database(before.facts, after.facts),
        *_large_objects(before.facts, after.facts),
        *_items(before, after, shown),
    ]


def without_reordered(before: Side, after: Side, changes: Sequence[Change]) -> list[Change]:
    """Without policies that differ only in the order of their roles, which pg_dump leaves to chance."""
    same = {plain(f"{c} {i}") for (c, i), a in before.items.items() if c == "policy" and after.items.get((c, i)) == a}
    by_id = {e.dump_id: e for e in before.toc.entries}
    titles = {e.key: plain(title_of(e, by_id)) for e in before.toc.entries if e.desc == "POLICY"}
    return [c for c in changes if titles.get((c.desc, c.schema, c.tag)) not in same]


def _change(component: str, title: str, before: str, after: str) -> Change:
    return Change(component=component, title=title, desc="", schema="", tag="", owner="", before=before, after=after)


def _differing(
    component: str, before: Mapping[str, str], after: Mapping[str, str], title: Callable[[str], str]
) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key, ""), after.get(key, "")
        if a != b:
            yield _change(component, title(key), a, b)


def _roles(before: SourceFacts, after: SourceFacts) -> Iterator[Change]:
    hidden = {r.name for r in (*before.roles, *after.roles) if r.password is None}

    def texts(facts: SourceFacts) -> dict[str, str]:
        return {r.name: _role(r, with_password=r.name not in hidden) for r in facts.roles}

    yield from _differing("roles", texts(before), texts(after), lambda name: f"ROLE {quote_ident(name)}")


def _role(role: RoleFacts, *, with_password: bool) -> str:
    made = role_statements([replace(role, managed=False, password=None)], [], PLAIN, _ALL)
    text = "".join(f"{s.sql};\n" for s in made)
    if with_password and role.password:
        text += f"-- a password, number {hashlib.sha256(role.password.encode()).hexdigest()[:12]}\n"
    return text


def _memberships(before: SourceFacts, after: SourceFacts) -> Iterator[Change]:
    options = min(before.server_version_num, after.server_version_num) >= _VERSION

    def texts(facts: SourceFacts) -> dict[str, str]:
        found: dict[str, list[str]] = {}
        for grant in facts.memberships:
            for line in _membership(grant if options else replace(grant, inherit=None, set=None)):
                found.setdefault(f"{quote_ident(grant.member)} in {quote_ident(grant.role)}", []).append(line)
        return {name: "".join(sorted(lines)) for name, lines in found.items()}

    yield from _differing("roles", texts(before), texts(after), lambda name: f"MEMBERSHIP of {name}")


def _membership(grant: MembershipFacts) -> Iterator[str]:
    for made in membership_statements([replace(grant, grantor="")], [], PLAIN, _ALL):
        yield f"{made.sql};\n"


def _database(before: SourceFacts, after: SourceFacts) -> Iterator[Change]:
    name = before.database.name
    a, b = (_database_text(replace(side.database, name=name)) for side in (before, after))
    if a != b:
        yield _change("database", f"DATABASE {quote_ident(name)}", a, b)


def _database_text(facts: DatabaseFacts) -> str:
    name = f"DATABASE {quote_ident(facts.name)}"
    said = replace(facts, acl=None)
    fresh = replace(said, comment="", connection_limit=-1, settings=(), role_settings=())
    lines = [f"ALTER {name} OWNER TO {quote_ident(facts.owner)}"]
    lines += [s.sql for s in database_statements(said, fresh, PLAIN, superuser=True, me="")]
    lines += sorted(grant_statements(name, effective_acl(facts.acl, facts.owner), skip=facts.owner))
    locale = " ".join((facts.encoding, facts.collate, facts.ctype, facts.locale_provider, facts.locale)).strip()
    return f"-- encoding and locale: {locale}\n" + "".join(f"{line};\n" for line in lines)


def _large_objects(before: SourceFacts, after: SourceFacts) -> Iterator[Change]:
    a, b = ({str(o.oid): _large_object(o) for o in side.large_objects} for side in (before, after))
    yield from _differing("large objects", a, b, lambda oid: f"LARGE OBJECT {oid}")


def _large_object(item: LargeObjectFacts) -> str:
    target = f"LARGE OBJECT {item.oid}"
    lines = [f"-- {item.size} bytes", f"ALTER {target} OWNER TO {quote_ident(item.owner)};"]
    lines += sorted(f"{s};" for s in grant_statements(target, item.acl, skip=item.owner))
    if item.comment:
        lines.append(f"COMMENT ON {target} IS {quote_literal(item.comment)};")
    return "".join(f"{line}\n" for line in lines)


def _items(before: Side, after: Side, shown: Sequence[Change]) -> Iterator[Change]:
    explained = _Explained(before, after, shown)
    for key in sorted(before.items.keys() | after.items.keys()):
        a, b = before.items.get(key), after.items.get(key)
        if a == b:
            continue
        one, other = a or {}, b or {}
        names = sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))
        if explained.all_of(key, str((a or b or {}).get("of", ""))):
            # Whether a view is filled stands in no archive.
            names = [n for n in names if n == "populated" and a is not None and b is not None]
        if names:
            cls, identity = key
            texts = [
                "" if side is None else "".join(f"{n}: {json.dumps(side.get(n), ensure_ascii=False)}\n" for n in names)
                for side in (a, b)
            ]
            yield _change(_COMPONENTS.get(cls, "other"), f"{cls} {identity}", *texts)


class _Explained:
    """Items that changed because an entry of the archive did, which says it better."""

    def __init__(self, before: Side, after: Side, shown: Sequence[Change]) -> None:
        changed = {(c.desc, c.schema, c.tag) for c in shown}
        self._classes = {_MAKERS[desc] for desc, _, _ in changed if desc in _MAKERS}
        self._titles: set[str] = set()
        self._about: set[str] = set()
        for toc in (before.toc, after.toc):
            by_id = {e.dump_id: e for e in toc.entries}
            for entry in toc.entries:
                if (entry.desc, entry.schema, entry.tag) not in changed:
                    continue
                self._titles.add(plain(title_of(entry, by_id)))
                if entry.desc in _ABOUT:
                    name = _SUBJECT.sub("", entry.tag, count=1)
                    schema = f"{quote_ident(entry.schema)}." if entry.schema else ""
                    self._about |= {plain(name), plain(schema + name)}

    def all_of(self, key: tuple[str, str], of: str) -> bool:
        """Whether everything that differs in this item is shown elsewhere."""
        cls, identity = key
        if cls in self._classes or plain(f"{cls} {identity}") in self._titles:
            return True
        return plain(identity) in self._about or bool(of and plain(f"relation {of}") in self._titles)
