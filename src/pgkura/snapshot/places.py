"""Places of rows (TIDs) as arrays: as the server sends them, as they are stored, and which rows are gone. Pure.

A TID is held as one number: block × 65536 + offset, so that numbers sort as rows lie.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgkura.core.errors import Tampered

Places = NDArray[np.int64]
_SENT = 6
_COUNT = 2
_COLUMN = 4 + _SENT
_WIDTH = 8


def from_server(sent: bytes) -> Places:
    """Concatenated `tidsend` values: four bytes of block and two of offset, big-endian (tid.c of PostgreSQL)."""
    words = np.frombuffer(sent, ">u2").reshape(-1, _SENT // 2).astype(np.int64)
    return (words[:, 0] << 32) | (words[:, 1] << 16) | words[:, 2]


def split_text(data: bytes) -> tuple[bytes, bytes]:
    """Rows of COPY text with their place in front: the places, and the rows without them."""
    lines = [line.partition(b"\t") for line in data.split(b"\n")[:-1]]
    return b"".join(place for place, _, _ in lines), b"".join(rest + b"\n" for _, _, rest in lines)


def split_binary(data: bytes | memoryview, sizes: NDArray[np.int64]) -> tuple[bytes, bytes, NDArray[np.int64]]:
    """The same of binary rows, and the sizes of what is left: the number of columns, then a length of 6 and the TID."""
    rows = np.frombuffer(data, np.uint8).copy()
    starts = np.cumsum(sizes) - sizes
    counts = (rows[starts].astype(np.int64) << 8 | rows[starts + 1]) - 1
    places = rows[starts[:, None] + np.arange(_COUNT + 4, _COUNT + 4 + _SENT)]
    kept = np.ones(len(rows), np.bool_)
    kept[starts[:, None] + np.arange(_COLUMN)] = False
    rows[starts + _COLUMN], rows[starts + _COLUMN + 1] = counts >> 8, counts & 0xFF
    return places.tobytes(), rows[kept].tobytes(), sizes - _COLUMN


def from_text(shown: bytes) -> Places:
    """`(block,offset)` each, as COPY prints them."""
    numbers = shown.replace(b"(", b"").replace(b")", b",").split(b",")
    flat = np.array(numbers[:-1], np.int64).reshape(-1, 2)
    return (flat[:, 0] << 16) | flat[:, 1]


def encode(places: Places) -> bytes:
    """For storage: differences as 8 bytes, little-endian, transposed: all lowest bytes, then all second ones, …"""
    steps = np.diff(places, prepend=np.int64(0)).astype("<i8")
    return steps.view(np.uint8).reshape(-1, _WIDTH).T.tobytes()


def decode(stored: bytes) -> Places:
    """What `encode` made. Raises Tampered."""
    if len(stored) % _WIDTH:
        raise Tampered("a list of places is damaged", detail="it ends within a place")
    steps = np.frombuffer(stored, np.uint8).reshape(_WIDTH, -1).T.copy().view("<i8").reshape(-1)
    return np.cumsum(steps, dtype=np.int64)


def ascending(places: Places) -> bool:
    """Whether rows came in the order in which they lie."""
    return bool(np.all(places[1:] > places[:-1]))


class Contradiction(Exception):
    """What the server says now and what is remembered do not fit: the range must be read whole."""


def _among(places: Places, ascending: Places) -> NDArray[np.bool_]:
    """Which of `places` are in `ascending`: a search each, since layers are often much smaller than their range."""
    if not len(ascending):
        return np.zeros(len(places), bool)
    found = np.searchsorted(ascending, places)
    found[found == len(ascending)] = 0
    return np.asarray(ascending[found] == places, bool)


def gone(layers: Sequence[tuple[Places, NDArray[np.int64]]], visible: Places, new: Places) -> list[NDArray[np.int64]]:
    """For each layer (places of its rows, line numbers dropped so far): all line numbers dropped now, from 1.

    `visible` are all places seen now, `new` those of rows to be stored now; both ascend. Raises Contradiction
    unless every old visible place belongs to exactly one row that counts.
    """
    old = np.setdiff1d(visible, new, assume_unique=True)
    dropped = []
    counted = 0
    for places, drops in layers:
        counts = _among(places, old)
        counts[drops - 1] = False
        counted += int(np.count_nonzero(counts))
        dropped.append(np.flatnonzero(~counts) + 1)
    if counted != len(old) or len(old) != len(visible) - len(new):
        raise Contradiction("rows that were there before are unknown")
    return dropped
