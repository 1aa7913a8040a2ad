"""`aclitem` text as grants, for the Python-free script. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

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
