"""Canonical JSON: one value, one sequence of bytes (docs/formats/repository.md, "Canonical encoding")."""

import json
from typing import Any

from pgkura.core.errors import Tampered


def encode(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, integers only. Raises ValueError for a float or a non-text key."""
    _check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


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
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"a key that is no text: {key!r}")
            _check(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner)
    elif not (value is None or isinstance(value, str | bool | int)):
        raise ValueError(f"cannot be written canonically: {type(value).__name__}")
