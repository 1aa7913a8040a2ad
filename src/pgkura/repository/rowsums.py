"""Rows as multisets: two tables are equal when they hold the same rows the same number of times, in any order.

Construction (docs/decisions/0007-row-hashes-in-bulk.md): a row's COPY bytes become a keyed 128-bit digest; the digests
go through AES under a second key and are added as integers, so that no number of rows can wrap. Both keys come from one
key drawn for this proof: without it nobody can choose rows whose sums are alike.

All rows of a batch are worked on at once; nothing runs per row in Python, except for rows longer than `LONG`.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from pgkura.core.errors import Tampered
from pgkura.repository.lines import Numbers, line_ends

LONG = 4096  # longer rows are digested by BLAKE3, which is as fast for them
BATCH = 512 << 10  # bytes worked on at a time, at least LONG: they and their copies stay in the processor's cache
_ROWS = 32 << 10  # rows at a time: what is kept of each is small, yet larger than an empty row
_BLOCK = 16  # of AES
_SPARE = bytes(LONG)  # behind a batch, for rows are gathered at more than their length

# Rows are gathered at the next of these widths, so that little is wasted.
_WIDTHS = [16, *(w << p for p in range(3, 10) for w in (4, 5, 6, 7) if (w << p) % _BLOCK == 0), LONG]

Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Multiset:
    """Count and sum of keyed row digests. Those of disjoint parts under one key add up to that of the whole."""

    rows: int
    total: int

    def __add__(self, other: "Multiset") -> "Multiset":
        return Multiset(self.rows + other.rows, self.total + other.total)


class RowHasher:
    """Adds up rows; some copies of one batch are held, however long a row is."""

    def __init__(self, key: bytes) -> None:
        keys = blake3(b"pgkura rows", key=key).digest(length=64 + LONG)
        self._inner, self._outer = _aes(keys[:16]), _aes(keys[16:32])
        self._long_key = keys[32:64]
        self._masks = np.frombuffer(keys, "<u8", offset=64)
        self._sealed = bytearray()
        self._waiting: list[bytes | memoryview] = []  # text that is not a batch yet
        self._size = 0
        self._begun: blake3 | None = None  # the hash of a long row whose end has not been seen
        self._rows = 0
        self._total = 0

    def update(self, piece: bytes | memoryview) -> None:
        """Any cut of COPY text: rows end with a newline, and a value never holds a raw one."""
        for at in range(0, len(piece), BATCH):
            part = piece[at : at + BATCH]
            self._waiting.append(part)
            self._size += len(part)
            if self._size >= BATCH:
                self._flush()

    def update_rows(self, buffer: bytes | memoryview, lengths: Numbers) -> None:
        """Whole rows of any bytes, one after the other."""
        ends = np.cumsum(lengths, dtype=np.int64)
        if (len(lengths) and np.min(lengths) < 0) or len(buffer) != (ends[-1] if len(ends) else 0):
            raise Tampered("rows are not as long as they are said to be")
        view = memoryview(buffer)
        first = start = 0
        while first < len(ends):
            last = min(int(np.searchsorted(ends, start + BATCH, "right")), first + _ROWS)
            if last == first:
                # Too long for a batch: hashed where it lies.
                last = first + 1
                self._add_long([blake3(view[start : ends[first]], key=self._long_key)])
            else:
                self._add_rows(bytes(view[start : ends[last - 1]]) + _SPARE, 0, ends[first:last] - start, 0)
            first, start = last, int(ends[last - 1])

    def result(self) -> Multiset:
        """The multiset so far. Raises Tampered when the text ended within a row."""
        self._flush()
        if self._begun is not None or self._size:
            raise Tampered("rows end in the middle of a line", detail="COPY text always ends with a newline")
        return Multiset(self._rows, self._total)

    def _flush(self) -> None:
        text = b"".join((*self._waiting, _SPARE))
        view = memoryview(text)[: len(text) - LONG]
        ends = line_ends(view)
        start = 0
        if self._begun is not None:
            start = int(ends[0]) if len(ends) else len(view)
            self._begun.update(view[: start - 1 if len(ends) else start])
            if len(ends):
                self._add_long([self._begun])
                self._begun, ends = None, ends[1:]
        for first in range(0, len(ends), _ROWS):
            some = ends[first : first + _ROWS]
            self._add_rows(text, start, some, 1)
            start = int(some[-1])
        rest = view[start:]
        if len(rest) > LONG:
            self._begun, rest = blake3(rest, key=self._long_key), rest[:0]
        self._waiting, self._size = [bytes(rest)], len(rest)

    def _add_rows(self, text: bytes, start: int, ends: Numbers, newline: int) -> None:
        """Rows of a batch that has spare bytes behind it; `newline` is what ends a row and is no part of it."""
        starts = np.concatenate(([start], ends[:-1]))
        lengths = ends - starts - newline
        # By length, so that rows of one width lie together; a sort of small numbers is a radix sort.
        order = np.argsort(np.minimum(lengths, LONG + 1).astype(np.uint16), kind="stable")
        starts, lengths = starts[order], lengths[order]
        begun = 0
        for width, end in zip(_WIDTHS, np.searchsorted(lengths, _WIDTHS, "right").tolist(), strict=True):
            if end > begun:
                self._add(self._digests(text, starts[begun:end], lengths[begun:end], width))
            begun = end
        view = memoryview(text)
        long = zip(starts[begun:].tolist(), lengths[begun:].tolist(), strict=True)
        self._add_long([blake3(view[at : at + length], key=self._long_key) for at, length in long])

    def _digests(self, text: bytes, starts: Numbers, lengths: Numbers, width: int) -> Words:
        """The XOR over a row's blocks of AES(block XOR the place's mask), and its length."""
        words = gathered(text, starts, lengths, width)
        words ^= self._masks[: width // 8]
        sums = self._encrypted(self._inner, words)
        # Many short rows are added up column by column, others by halves.
        narrow = 512 if len(starts) >= 64 else _BLOCK
        while width > narrow:
            half = width // _BLOCK // 2 * 2
            sums[:, :half] ^= sums[:, width // 8 - half : width // 8]
            width -= half * 8
        low, high = lengths.astype(np.uint64), np.zeros(len(lengths), np.uint64)
        for column in range(0, width // 8, 2):
            low ^= sums[:, column]
            high ^= sums[:, column + 1]
        return np.stack((low, high), axis=1)

    def _encrypted(self, cipher: Any, words: Words) -> Words:
        """Block by block. Valid until the next call."""
        if len(self._sealed) < words.nbytes + _BLOCK:
            self._sealed = bytearray(words.nbytes + _BLOCK)
        cipher.update_into(words.data.cast("B"), self._sealed)
        return np.frombuffer(self._sealed, "<u8", words.size).reshape(words.shape)

    def _add(self, digests: Words) -> None:
        parts = self._encrypted(self._outer, digests).view("<u4").T.astype(np.uint64, order="C")
        self._total += sum(part << (32 * n) for n, part in enumerate(parts.sum(axis=1).tolist()))
        self._rows += len(digests)

    def _add_long(self, hashers: list[blake3]) -> None:
        if hashers:
            digests = b"".join(hasher.digest(length=_BLOCK) for hasher in hashers)
            self._add(np.frombuffer(digests, "<u8").reshape(-1, 2))


def gathered(text: bytes, starts: Numbers, lengths: Numbers, width: int) -> Words:
    """Rows side by side, zeros behind them. They are sorted by length, and their text goes on for `width` each."""
    anywhere = np.ndarray((len(text) - width + 1,), f"V{width}", text, 0, (1,))
    rows = anywhere[starts].view(np.uint8).reshape(len(starts), width)
    shortest = int(lengths[0])
    tails = rows[:, shortest:]
    tails *= np.arange(shortest, width, dtype=np.uint16) < lengths.astype(np.uint16)[:, None]
    return rows.view("<u8")


def _aes(key: bytes) -> Any:
    # ECB is what is wanted: a permutation of blocks under a secret key, whose output nobody ever sees.
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305


def new_key() -> bytes:
    """A fresh key for one proof."""
    return secrets.token_bytes(32)


def multiset(pieces: Iterable[bytes | memoryview], key: bytes) -> Multiset:
    """Of a whole table's COPY text."""
    hasher = RowHasher(key)
    for piece in pieces:
        hasher.update(piece)
    return hasher.result()
