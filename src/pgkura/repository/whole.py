"""Chunks that are worked on as a whole: unpacked in one go into a buffer of the thread that is used again.

New pages for every chunk cost more than unpacking into them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from blake3 import blake3

from pgkura.core.errors import Tampered
from pgkura.core.refs import ChunkRef
from pgkura.repository.packs import object_key
from pgkura.repository.seal import unpack

# Chunks up to this size; most are page ranges of 4 MB.
ROOM_BYTES = 8 * 1024 * 1024


def read_into(room: bytearray, ref: ChunkRef, opened: bytes | bytearray, mac_key: bytes) -> memoryview:
    """A chunk of an opened object, checked, in a buffer that is long enough. Raises Tampered."""
    what = f"a chunk of {object_key(ref.object.id)}"
    whole = memoryview(room)[: ref.length]
    unpack(memoryview(opened)[ref.offset : ref.offset + ref.stored], what, whole)
    if blake3(whole, key=mac_key).hexdigest() != ref.mac:
        raise Tampered(f"{what} is damaged", detail="its MAC differs")
    return whole


class Rooms:
    """A buffer for each thread; a second one where the first is in use."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def of(self, length: int) -> Iterator[bytearray]:
        """A buffer of at least this length, for as long as the `with`."""
        room: bytearray = self._local.__dict__.pop("room", bytearray())
        if len(room) < length:
            room = bytearray(length)
        yield room
        self._local.room = room
