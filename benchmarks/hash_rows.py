"""What the proof of rows costs on our side: microseconds per row for each stage. No server is needed.

    python benchmarks/hash_rows.py [ROWS]

stream    the MAC over whole pieces: a table that reads back in the snapshot's order
multiset  a digest per row: a table that does not
others    what was measured against it, for docs/decisions/0003-row-proof.md
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence

from blake3 import blake3

from pgkura.verify.rows import RowHasher, added

PIECE = 256 * 1024
REPEATS = 5


def make_rows(count: int, width: int) -> list[bytes]:
    """COPY text of rows as an application has them, without newlines."""
    body = os.urandom(width).hex().encode()[:width]
    return [b"%d\t2024-01-01 00:00:00+00\t%b\t\\N\tt" % (n, body) for n in range(count)]


def pieces_of(rows: Sequence[bytes]) -> list[bytes]:
    """As they come from the server: whole rows in pieces."""
    text = b"\n".join(rows) + b"\n"
    pieces, place = [], 0
    while place < len(text):
        end = text.find(b"\n", place + PIECE) + 1 or len(text)
        pieces.append(text[place:end])
        place = end
    return pieces


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def measure(rows: Sequence[bytes], key: bytes) -> dict[str, Callable[[], object]]:
    """Every way, by name."""
    pieces = pieces_of(rows)

    def stream() -> str:
        mac = blake3(key=key)
        for piece in pieces:
            mac.update(piece)
        return mac.hexdigest()

    def ours() -> object:
        hasher = RowHasher(key)
        for piece in pieces:
            hasher.update(piece)
        return hasher.result()

    def one_by_one() -> int:
        return sum(
            int.from_bytes(hashlib.blake2b(line, digest_size=32, key=key).digest(), "little")
            for piece in pieces
            for line in piece.split(b"\n")[:-1]
        )

    def blake3_rows() -> int:
        total = 0
        for piece in pieces:
            total += added([blake3(line, key=key).digest() for line in piece.split(b"\n")[:-1]])
        return total

    return {
        "stream: keyed BLAKE3 over pieces": stream,
        "multiset: keyed BLAKE2b, copied state, folded sum": ours,
        "other: keyed BLAKE2b made anew, summed one by one": one_by_one,
        "other: keyed BLAKE3 per row, folded sum": blake3_rows,
        "other: only splitting into rows": lambda: [piece.split(b"\n") for piece in pieces],
    }


def main() -> None:
    """Print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    key = os.urandom(32)
    for width in (30, 300):
        rows = make_rows(count, width)
        size = sum(map(len, rows)) + len(rows)
        print(f"{count:,} rows of {size / count:.0f} bytes")
        for name, work in measure(rows, key).items():
            seconds = best(work)
            print(f"  {name:<52}{seconds / count * 1e6:8.3f} µs/row{size / seconds / 1e6:9.0f} MB/s")


if __name__ == "__main__":
    main()
