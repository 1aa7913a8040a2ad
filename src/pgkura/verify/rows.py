"""Rows as multisets: two tables are equal when they hold the same rows the same number of times, in any order.

Construction: each row's COPY text is hashed with keyed BLAKE2b-256 under a key drawn for this proof; the digests are
added as integers, so that no number of rows can wrap. Without the key nobody can choose rows whose digests sum alike
(docs/decisions/0003-row-proof.md).
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from pgkura.core.errors import Tampered

_DIGEST = 32
# Zero bytes between digests: room for the carries of 2^64 additions.
_GUARD = 8
_SLOT_BITS = 8 * (_DIGEST + _GUARD)


@dataclass(frozen=True, slots=True)
class Multiset:
    """Count and sum of keyed row digests."""

    rows: int
    total: int


class RowHasher:
    """Adds up the rows of one table; a row's bytes are never joined, however long it is."""

    def __init__(self, key: bytes) -> None:
        self._keyed = blake2b(key=key, digest_size=_DIGEST)
        self._begun: blake2b | None = None  # a row whose end has not been seen
        self._rows = 0
        self._total = 0

    def update(self, piece: bytes) -> None:
        """Any cut of COPY text: rows end with a newline, and a value never holds a raw one."""
        if not piece:
            return
        lines = piece.split(b"\n")
        rest = lines.pop()
        first = self._begun
        if first is not None:
            first.update(lines[0] if lines else rest)
            if not lines:
                return
        self._add(lines if first is None else lines[1:], first)
        self._begun = None
        if rest:
            self._begun = self._keyed.copy()
            self._begun.update(rest)

    def _add(self, lines: Sequence[bytes], first: "blake2b | None") -> None:
        # Copying a keyed state saves compressing the key block again for every row.
        copy = self._keyed.copy
        digests = [] if first is None else [first.digest()]
        append = digests.append
        for line in lines:
            state = copy()
            state.update(line)
            append(state.digest())
        if digests:
            self._total += added(digests)
            self._rows += len(digests)

    def result(self) -> Multiset:
        """The multiset so far. Raises Tampered when the text ended within a row."""
        if self._begun is not None:
            raise Tampered("rows end in the middle of a line", detail="COPY text always ends with a newline")
        return Multiset(self._rows, self._total)


def added(digests: Sequence[bytes]) -> int:
    """The sum of little-endian integers, by folding one long integer in half instead of converting each.

    With zero bytes between them all digests form one number of wide digits; adding its halves adds digit by digit.
    """
    count = len(digests)
    number = int.from_bytes(bytes(_GUARD).join(digests), "little")
    while count > 1:
        half = (count + 1) // 2
        bits = half * _SLOT_BITS
        upper = number >> bits
        number = (number & ((1 << bits) - 1)) + upper
        count = half
    return number


def new_key() -> bytes:
    """A fresh key for one proof."""
    return secrets.token_bytes(32)


def multiset(pieces: Iterable[bytes], key: bytes) -> Multiset:
    """Of a whole table's COPY text."""
    hasher = RowHasher(key)
    for piece in pieces:
        hasher.update(piece)
    return hasher.result()
