"""Rows as multisets: two tables are equal when they hold the same rows the same number of times, in any order.

Construction: each row's COPY text is hashed with keyed BLAKE2b-256 under a key drawn for this proof; the digests are
added as 256-bit numbers (mod 2^320 here, so that 2^64 rows cannot wrap). Without the key nobody can choose rows whose
digests sum alike (docs/decisions/0003-row-proof.md).
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

_MASK = (1 << 320) - 1


@dataclass(frozen=True, slots=True)
class Multiset:
    """Count and sum of keyed row digests."""

    rows: int
    total: int


class RowHasher:
    """Adds up the rows of one table."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._rows = 0
        self._total = 0
        self._rest = b""

    def update(self, piece: bytes) -> None:
        """Any cut of COPY text: rows end with a newline, and a value never holds a raw one."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        blake = hashlib.blake2b
        key = self._key
        self._total += sum(int.from_bytes(blake(line, digest_size=32, key=key).digest(), "little") for line in lines)
        self._rows += len(lines)

    def result(self) -> Multiset:
        """The multiset so far."""
        return Multiset(self._rows, self._total & _MASK)


def new_key() -> bytes:
    """A fresh key for one proof."""
    return secrets.token_bytes(32)


def multiset(pieces: Iterable[bytes], key: bytes) -> Multiset:
    """Of a whole table's COPY text."""
    hasher = RowHasher(key)
    for piece in pieces:
        hasher.update(piece)
    return hasher.result()
