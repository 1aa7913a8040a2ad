"""Row digests added up with arrays: numpy, and the AES of `cryptography`. For where the compiled part is not there.

All rows of a batch are worked on at once; nothing runs per row in Python, except for rows longer than `LONG`.
"""

from typing import Any

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from pgkura.repository.lines import Numbers, line_ends

LONG = 4096  # longer rows are digested by BLAKE3, which is as fast for them
BATCH = 512 << 10  # bytes worked on at a time, at least LONG: they and their copies stay in the processor's cache
_ROWS = 32 << 10  # rows at a time: what is kept of each is small, yet larger than an empty row
_SEARCHED = 64 << 10  # bytes copied at a time
_BLOCK = 16  # of AES
_SPARE = bytes(LONG)  # behind a batch, for rows are gathered at more than their length

# Rows are gathered at the next of these widths, so that little is wasted.
_WIDTHS = [16, *(w << p for p in range(3, 10) for w in (4, 5, 6, 7) if (w << p) % _BLOCK == 0), LONG]

Words = NDArray[np.uint64]


class ArrayAdder:
    """Adds up rows; some copies of one batch are held. `keys` are E, F, that of long rows, and the masks."""

    def __init__(self, keys: bytes) -> None:
        self.enough = BATCH + 1  # bytes: a call with fewer costs too much
        self._inner, self._outer = _aes(keys[:16]), _aes(keys[16:32])
        self._long_key = keys[32:64]
        self._masks = np.frombuffer(keys, "<u8", offset=64)
        self._sealed = bytearray()
        self._rows = 0
        self._total = 0

    def lines(self, text: memoryview) -> int:
        """Whole lines, each a row without its newline; where the rest begins, which is no whole line."""
        start = 0
        while start < len(text):
            batch = text[start : start + BATCH + 1]
            last = start + len(batch) == len(text)
            ends = line_ends(batch)
            if len(ends):
                self._add_lines(b"".join((batch, _SPARE)), ends)
                start += int(ends[-1])
            elif not last and (end := line_end(text, start + len(batch))) >= 0:
                # Too long for a batch: hashed where it lies.
                self.long(blake3(text[start:end], key=self._long_key))
                start = end + 1
            else:
                break
            if last:
                break
        return start

    def rows(self, rows: memoryview, lengths: Numbers) -> None:
        """Rows of any bytes, one after the other. Raises ValueError."""
        ends = np.cumsum(lengths)
        # No sum can wrap when each fits.
        fit = not len(lengths) or (lengths.min() >= 0 and lengths.max() <= len(rows))
        if not fit or len(rows) != (ends[-1] if len(ends) else 0):
            raise ValueError("rows are not as long as they are said to be")
        first = start = 0
        while first < len(ends):
            last = min(int(np.searchsorted(ends, start + BATCH, "right")), first + _ROWS)
            if last == first:
                # Too long for a batch: hashed where it lies.
                last = first + 1
                self.long(blake3(rows[start : ends[first]], key=self._long_key))
            else:
                self._add_rows(bytes(rows[start : ends[last - 1]]) + _SPARE, 0, ends[first:last] - start, 0)
            first, start = last, int(ends[last - 1])

    def long(self, *hashers: blake3) -> None:
        """Rows longer than `LONG`, digested."""
        if hashers:
            digests = b"".join(hasher.digest(length=_BLOCK) for hasher in hashers)
            self._add(np.frombuffer(digests, "<u8").reshape(-1, 2))

    def total(self) -> tuple[int, int]:
        """Rows so far, and their sum."""
        return self._rows, self._total

    def _add_lines(self, text: bytes, ends: Numbers) -> None:
        start = 0
        for first in range(0, len(ends), _ROWS):
            some = ends[first : first + _ROWS]
            self._add_rows(text, start, some, 1)
            start = int(some[-1])

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
        self.long(*(blake3(view[at : at + length], key=self._long_key) for at, length in long))

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


def line_end(text: memoryview, start: int = 0) -> int:
    """Where the next newline is; -1 = nowhere."""
    for at in range(start, len(text), _SEARCHED):
        found = bytes(text[at : at + _SEARCHED]).find(b"\n")
        if found >= 0:
            return at + found
    return -1


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
