"""Rows as multisets: two tables are equal when they hold the same rows the same number of times, in any order.

Construction (docs/decisions/0007-row-hashes-in-bulk.md): a row's COPY bytes become a keyed 128-bit digest; the digests
go through AES under a second key and are added as integers, so that no number of rows can wrap. Both keys come from one
key drawn for this proof: without it nobody can choose rows whose sums are alike.

A compiled part does this where a C compiler was there and the processor has instructions for AES (_rowsums.c), else
arrays do (rowarrays.py), at four to nine times the cost. Nothing runs per row in Python, but for rows longer than
`LONG`.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from pgkura.core.errors import Tampered
from pgkura.repository.lines import Numbers
from pgkura.repository.rowarrays import LONG, ArrayAdder, line_end

compiled: "type[_rowsums.Sums] | None"
try:
    from pgkura.repository import _rowsums

    compiled = _rowsums.Sums if _rowsums.available else None
except ImportError:
    compiled = None

_ENOUGH = 16 << 10  # bytes: a call with fewer costs more than to join them


@dataclass(frozen=True, slots=True)
class Multiset:
    """Count and sum of keyed row digests. Those of disjoint parts under one key add up to that of the whole."""

    rows: int
    total: int

    def __add__(self, other: "Multiset") -> "Multiset":
        return Multiset(self.rows + other.rows, self.total + other.total)


class CompiledAdder:
    """What `ArrayAdder` does, with the compiled part: rows are read where they lie."""

    def __init__(self, keys: bytes, sums: "_rowsums.Sums") -> None:
        self.enough = max(_ENOUGH, LONG + 1)
        self._long_key = keys[32:64]
        self._sums = sums

    def lines(self, text: memoryview) -> int:
        """Whole lines; where the rest begins."""
        start, end = self._sums.lines(text, 0)
        while end >= 0:
            self.long(blake3(text[start:end], key=self._long_key))
            start, end = self._sums.lines(text, end + 1)
        return start

    def rows(self, rows: memoryview, lengths: Numbers) -> None:
        """Rows of any bytes. Raises ValueError."""
        first, start = self._sums.rows(rows, lengths, 0, 0)
        while first < len(lengths):
            end = start + int(lengths[first])
            self.long(blake3(rows[start:end], key=self._long_key))
            first, start = self._sums.rows(rows, lengths, first + 1, end)

    def long(self, hasher: blake3) -> None:
        """A row longer than `LONG`."""
        self._sums.digests(hasher.digest(length=16))

    def total(self) -> tuple[int, int]:
        """Rows so far, and their sum."""
        rows, total = self._sums.total()
        return rows, int.from_bytes(total, "little")


class RowHasher:
    """Adds up rows; little more than a batch is held, however long a row is."""

    def __init__(self, key: bytes) -> None:
        keys = blake3(b"pgkura rows", key=key).digest(length=64 + LONG)
        self._adder = self._adder_of(keys)
        self._long_key = keys[32:64]
        self._waiting: list[bytes] = []  # text that is not enough yet
        self._size = 0
        self._begun: blake3 | None = None  # the hash of a long row whose end has not been seen

    def update(self, piece: bytes | memoryview) -> None:
        """Any cut of COPY text: rows end with a newline, and a value never holds a raw one."""
        view = memoryview(piece)
        while self._size + len(view) >= self._adder.enough:
            text = taken = view
            if self._size:
                # What waits, and as much as shows where its last row ends, or that it is a long one.
                taken = view[: LONG + 1]
                text = memoryview(b"".join((*self._waiting, taken)))
                self._waiting, self._size = [], 0
            rest = self._add(text)
            if len(rest) > len(taken):
                self._keep(rest)
                return
            view = view[len(taken) - len(rest) :]
        self._keep(view)

    def update_rows(self, buffer: bytes | memoryview, lengths: Numbers) -> None:
        """Whole rows of any bytes, one after the other."""
        try:
            self._adder.rows(memoryview(buffer), np.require(lengths, np.int64, ("C", "A")))
        except ValueError as error:
            raise Tampered(str(error)) from error

    def result(self) -> Multiset:
        """The multiset so far. Raises Tampered when the text ended within a row."""
        text, self._waiting, self._size = b"".join(self._waiting), [], 0
        self._keep(self._add(memoryview(text)))
        if self._begun is not None or self._size:
            raise Tampered("rows end in the middle of a line", detail="COPY text always ends with a newline")
        return Multiset(*self._adder.total())

    def _adder_of(self, keys: bytes) -> ArrayAdder | CompiledAdder:
        return ArrayAdder(keys) if compiled is None else CompiledAdder(keys, compiled(keys))

    def _keep(self, text: memoryview) -> None:
        if text:
            self._waiting.append(bytes(text))
            self._size += len(text)

    def _add(self, text: memoryview) -> memoryview:
        """Whole rows; the rest, which is at most `LONG`."""
        if self._begun is not None:
            end = line_end(text)
            self._begun.update(text if end < 0 else text[:end])
            if end < 0:
                return text[:0]
            self._adder.long(self._begun)
            self._begun, text = None, text[end + 1 :]
        rest = text[self._adder.lines(text) :]
        if len(rest) <= LONG:
            return rest
        self._begun = blake3(rest, key=self._long_key)
        return rest[:0]


def new_key() -> bytes:
    """A fresh key for one proof."""
    return secrets.token_bytes(32)


def multiset(pieces: Iterable[bytes | memoryview], key: bytes) -> Multiset:
    """Of a whole table's COPY text."""
    hasher = RowHasher(key)
    for piece in pieces:
        hasher.update(piece)
    return hasher.result()
