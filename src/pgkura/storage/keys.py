"""Which keys a store may hold: relative, printable, no way out of the prefix."""

import re

from pgkura.core.errors import StoreError

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\Z")


def check_key(key: str) -> str:
    """The key itself. Raises StoreError for anything that could leave the store or hide in it."""
    if len(key) > 512 or not _KEY.match(key):
        raise StoreError(f"not a key: {key[:80]!r}", detail="keys are made of A-Z a-z 0-9 . _ - and /")
    return key
