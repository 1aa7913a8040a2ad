"""Length and MAC of the rows that count of layers with dropped rows, as a restore saw them while it read them.

They follow from the snapshot alone: the proof that comes after that restore compares the target's rows with them
instead of reading, opening and cutting the same layers once more (docs/decisions/0003). 40 bytes each; of all tables
together only some stay in memory.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pgkura.core.scratch import LongFile

# Bytes that stay in memory: the cuts of 1,600 layers, some 6 GB of rows.
FEW_BYTES = 64 * 1024
_CUT = struct.Struct("<Q32s")
_BLOCK = 1_600 * _CUT.size


class Cuts:
    """(length, MAC in hex) of each layer of a table that has dropped rows.

    In memory or read anew from a working file by each iteration. Sent elsewhere, it travels as bytes: a tenth of what
    the names of the layers take.
    """

    __slots__ = ("_end", "_file", "_held", "_start")

    def __init__(self, held: bytes, file: LongFile | None = None, start: int = 0, end: int = 0) -> None:
        self._held = held
        self._file = file
        self._start = start
        self._end = end

    def __len__(self) -> int:
        return (len(self._held) + self._end - self._start) // _CUT.size

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for block in self.blocks():
            for length, mac in _CUT.iter_unpack(block):
                yield length, mac.hex()

    def blocks(self) -> Iterator[bytes]:
        """The same, packed, some at a time."""
        if self._file is None:
            yield self._held
            return
        for at in range(self._start, self._end, _BLOCK):
            size = min(_BLOCK, self._end - at)
            block = self._file.read(at, size)
            if len(block) != size:
                raise OSError("a working file was cut short")
            yield block

    def __reduce__(self) -> tuple[Any, ...]:
        return Cuts, (b"".join(self.blocks()),)


class CutPile:
    """Collects the cuts of one table while its rows go by. Not for several threads."""

    def __init__(self, new_mac: Callable[[], Any], few: int = FEW_BYTES) -> None:
        self._new_mac = new_mac
        self._few = few
        self._held = bytearray()
        self._file: LongFile | None = None

    def through(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The rows that count of the next layer with dropped rows, noted once all were taken."""
        mac, length = self._new_mac(), 0
        for piece in pieces:
            mac.update(piece)
            length += len(piece)
            yield piece
        self._held += _CUT.pack(length, mac.digest())
        if len(self._held) > self._few:
            self._file = self._file or LongFile()
            self._file.append(bytes(self._held))
            self._held.clear()

    def take(self) -> Cuts:
        """What was noted; nothing may follow."""
        if self._file is None:
            return Cuts(bytes(self._held))
        self._file.append(bytes(self._held))
        self._file.flush()
        return Cuts(b"", self._file, 0, self._file.size)


class CutBook:
    """The cuts of all tables, by their numbers. One thread at a time."""

    def __init__(self, few: int = FEW_BYTES) -> None:
        self._left = few
        self._file: LongFile | None = None
        self._found: dict[int, Cuts] = {}

    def add(self, number: int, cuts: Cuts) -> None:
        """Of one more table."""
        size = sum(map(len, cuts.blocks()))
        if not size:
            return
        if size <= self._left:
            self._left -= size
            self._found[number] = Cuts(b"".join(cuts.blocks()))
            return
        self._file = self._file or LongFile()
        start = self._file.size
        for block in cuts.blocks():
            self._file.append(block)
        self._file.flush()
        self._found[number] = Cuts(b"", self._file, start, self._file.size)

    def of(self, number: int) -> Cuts | None:
        """Of a table; None where nothing is known."""
        return self._found.get(number)
