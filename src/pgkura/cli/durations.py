"""Durations as people write them."""

import re

from pgkura.core.errors import UsageError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}


def seconds(text: str, option: str, *, least: float) -> float:
    """`500ms`, `90`, `90s`, `30min`, `1.5h`, `2d`; '' is 0: not given. Raises UsageError."""
    if not text.strip():
        return 0.0
    found = _DURATION.match(text.strip().lower())
    if found is None:
        raise UsageError(f"{option} {text!r} is no duration", hint="for example 500ms, 90s, 30min or 6h")
    value = float(found[1]) * _SECONDS[found[2]]
    if value < least:
        raise UsageError(f"{option} {text!r} is too short", hint=f"{least:g} s at least")
    return value
