"""`aclitem` text of databases and large objects as grants. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pgkura.core.names import quote_ident

# PostgreSQL documentation, table 5.1: the letters of databases and large objects.
_WORDS = {"r": "SELECT", "w": "UPDATE", "C": "CREATE", "T": "TEMPORARY", "c": "CONNECT"}
_ITEM = re.compile(r'(?P<grantee>(?:"(?:[^"]|"")*"|[^"=])*)=(?P<letters>[a-zA-Z*]*)/', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one grantee ('' = PUBLIC) has, without and with grant option."""

    grantee: str
    plain: tuple[str, ...]
    with_option: tuple[str, ...]


def parse_acl(items: Iterable[str]) -> list[Grant]:
    """Raises ValueError for text that is no aclitem or a letter of another kind of object."""
    return [_parse(item) for item in items]


def _parse(item: str) -> Grant:
    found = _ITEM.match(item)
    if found is None:
        raise ValueError(f"not an aclitem: {item!r}")
    plain: list[str] = []
    with_option: list[str] = []
    letters = found["letters"]
    for place, letter in enumerate(letters):
        if letter == "*":
            continue
        if letter not in _WORDS:
            raise ValueError(f"unknown privilege {letter!r} in {item!r}")
        (with_option if letters[place + 1 : place + 2] == "*" else plain).append(_WORDS[letter])
    grantee = found["grantee"]
    if grantee.startswith('"'):
        grantee = grantee[1:-1].replace('""', '"')
    return Grant(grantee=grantee, plain=tuple(plain), with_option=tuple(with_option))


def grant_statements(target: str, items: Iterable[str], *, skip: str = "") -> list[str]:
    """GRANTs on `target` that make these privileges; the grantee `skip` (the owner) has them anyway."""
    statements = []
    for grant in parse_acl(items):
        if grant.grantee == skip and skip:
            continue
        to = quote_ident(grant.grantee) if grant.grantee else "PUBLIC"
        for words, option in ((grant.plain, ""), (grant.with_option, " WITH GRANT OPTION")):
            if words:
                statements.append(f"GRANT {', '.join(words)} ON {target} TO {to}{option}")
    return statements
