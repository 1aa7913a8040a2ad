"""What the proof of rows costs on our side, for each stage and each candidate. No server is needed.

    python benchmarks/hash_rows.py [ROWS]

stream    the MAC over whole pieces: a table that reads back in the snapshot's order
multiset  a digest per row: a table that does not
others    what was measured against it, for docs/decisions/0007-row-hashes-in-bulk.md
Candidates run in turns; the fastest turn of each counts. Time is that of the processor, of all threads.
"""

import gc
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from blake3 import blake3

from pgkura.repository.lines import Numbers, line_ends
from pgkura.repository.rowarrays import LONG, ArrayAdder, Words, gathered
from pgkura.repository.rowsums import RowHasher, compiled

PIECE = 256 * 1024
REPEATS = 7
SHAPES = (("66 bytes", 30, 0), ("336 bytes", 300, 0), ("60 to 336 bytes", 300, 276), ("1,500 bytes", 1464, 0))


def make_rows(count: int, width: int, spread: int) -> list[bytes]:
    """COPY text of rows as an application has them, without newlines."""
    body = os.urandom(width).hex().encode()[:width]
    ends = [width - n % (spread + 1) for n in range(count)]
    return [b"%d\t2024-01-01 00:00:00+00\t%b\t\\N\tt" % (n, body[:end]) for n, end in enumerate(ends)]


def pieces_of(rows: Sequence[bytes]) -> list[bytes]:
    """As they come from the server: whole rows in pieces."""
    text = b"\n".join(rows) + b"\n"
    pieces, place = [], 0
    while place < len(text):
        end = text.find(b"\n", place + PIECE) + 1 or len(text)
        pieces.append(text[place:end])
        place = end
    return pieces


class Multilinear(ArrayAdder):
    """Instead of AES: exact inner products with secret numbers (float64, BLAS), four of them modulo 2^31 - 1."""

    def __init__(self, keys: bytes) -> None:
        super().__init__(keys)
        numbers = np.frombuffer(blake3(b"multilinear", key=keys[:32]).digest(length=16 * (LONG // 2)), "<i4")
        self._numbers = (numbers >> 4).reshape(-1, 4).astype(np.float64)

    def _digests(self, text: bytes, starts: Numbers, lengths: Numbers, width: int) -> Words:
        words = gathered(text, starts, lengths, width).view("<i2").astype(np.float64)
        rows = max(1, (1 << 16) // words.shape[1])  # more at a time, and BLAS starts threads
        numbers = self._numbers[: words.shape[1]]
        sums = np.concatenate([words[at : at + rows] @ numbers for at in range(0, len(words), rows)])
        sums += lengths[:, None]
        sums -= np.rint(sums * (1 / (2**31 - 1))) * (2**31 - 1)
        return sums.astype("<i4").view("<u8")


def per_row(pieces: Sequence[bytes], digest: Callable[[bytes], bytes]) -> int:
    """A digest for each row, summed by folding one long number; that was our way before."""
    total = 0
    for piece in pieces:
        digests = [digest(line) for line in piece.split(b"\n")[:-1]]
        count, number = len(digests), int.from_bytes(bytes(8).join(digests), "little")
        while count > 1:
            count = (count + 1) // 2
            bits = count * 320
            number = (number & ((1 << bits) - 1)) + (number >> bits)
        total += number
    return total


class Arrays(RowHasher):
    """As where the compiled part is not there."""

    def _adder_of(self, keys: bytes) -> ArrayAdder:
        return ArrayAdder(keys)


class Products(RowHasher):
    """With inner products."""

    def _adder_of(self, keys: bytes) -> ArrayAdder:
        return Multilinear(keys)


def added(pieces: Sequence[bytes], hasher: RowHasher) -> None:
    """All rows."""
    for piece in pieces:
        hasher.update(piece)
    hasher.result()


def candidates(pieces: Sequence[bytes], key: bytes) -> dict[str, Callable[[], object]]:
    """Every way, by name."""
    keyed = hashlib.blake2b(key=key, digest_size=32)

    def stream() -> None:
        mac = blake3(key=key)
        for piece in pieces:
            mac.update(piece)

    def blake2b(line: bytes) -> bytes:
        state = keyed.copy()
        state.update(line)
        return state.digest()

    ours = {"multiset: masked AES blocks, AES, sum": lambda: added(pieces, RowHasher(key))} if compiled else {}
    return {
        "stream: keyed BLAKE3 over pieces": stream,
        **ours,
        "multiset: the same, with arrays": lambda: added(pieces, Arrays(key)),
        "other: float64 inner products, AES, sum": lambda: added(pieces, Products(key)),
        "other: keyed BLAKE2b per row, folded sum": lambda: per_row(pieces, blake2b),
        "other: keyed BLAKE3 per row, folded sum": lambda: per_row(pieces, lambda line: blake3(line, key=key).digest()),
        "other: only finding the newlines": lambda: [line_ends(piece) for piece in pieces],
    }


def best(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of processor time of each one's fastest turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            gc.collect()
            begun = time.process_time()
            work()
            times[name].append(time.process_time() - begun)
    return {name: min(some) for name, some in times.items()}


def side_by_side(pieces: Sequence[bytes], key: bytes) -> float:
    """How much longer two threads take for two tables than one thread for one."""

    def wall(count: int) -> float:
        threads = [threading.Thread(target=added, args=(pieces, RowHasher(key))) for _ in range(count)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun

    return min(wall(2) for _ in range(REPEATS)) / min(wall(1) for _ in range(REPEATS))


def main() -> None:
    """Print a table for each shape of rows."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    key = os.urandom(32)
    for title, width, spread in SHAPES:
        rows = make_rows(count * 66 // (36 + width), width, spread) if width > 30 else make_rows(count, width, spread)
        pieces = pieces_of(rows)
        size = sum(map(len, pieces))
        print(f"{len(rows):,} rows of {title}, {size / 1e6:.0f} MB")
        for name, seconds in best(candidates(pieces, key)).items():
            print(f"  {name:<44}{seconds / len(rows) * 1e6:8.3f} µs/row{seconds / size * 1e9:8.2f} CPU s/GB")
        print(f"  two tables in two threads: {side_by_side(pieces, key):.2f} times one in one")


if __name__ == "__main__":
    main()
