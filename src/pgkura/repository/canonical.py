"""Canonical JSON: one value, one sequence of bytes (docs/formats/repository.md, "Canonical encoding")."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pgkura.core.errors import Tampered

_PIECE = 64 * 1024
_PLAIN = frozenset({str, int, bool, type(None)})


def encode(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, integers only. Raises ValueError for a float or a non-text key."""
    _check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def encode_in_pieces(record: Mapping[str, Any]) -> Iterator[bytes]:
    """The same of a record of which some values are iterators: each is written as a list, item by item."""
    begin = b"{"
    for key in sorted(record):
        value = record[key]
        head = begin + encode(key) + b":"
        begin = b","
        if isinstance(value, Iterator):
            some = head + b"["
            for number, item in enumerate(value):
                some += (b"," if number else b"") + encode(item)
                if len(some) >= _PIECE:
                    yield some
                    some = b""
            yield some + b"]"
        else:
            yield head + encode(value)
    yield b"{}" if begin == b"{" else b"}"


def decode(data: bytes, what: str) -> Any:
    """The value of canonical bytes. Raises Tampered, naming `what`, for anything not exactly canonical."""
    try:
        value = json.loads(data.decode(), parse_float=_refuse, parse_constant=_refuse)
        if encode(value) != data:
            raise ValueError("not canonical")
    except (ValueError, RecursionError) as error:
        raise Tampered(f"{what} is not a canonical record", detail=type(error).__name__) from error
    return value


def _refuse(text: str) -> Any:
    raise ValueError(f"a number that is no integer: {text[:20]}")


def _check(value: Any) -> None:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"a key that is no text: {key!r}")
        values: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple):
        values = value
    elif value is None or isinstance(value, str | bool | int):
        return
    else:
        raise ValueError(f"cannot be written canonically: {type(value).__name__}")
    for inner in values:
        if type(inner) not in _PLAIN:  # most are: not a call for each
            _check(inner)
