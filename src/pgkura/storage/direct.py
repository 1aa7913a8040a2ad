"""Large files past the page cache.

What is stored is not read again soon. Through the cache it would push out what a database server on the same machine
has there, and be copied into memory that was not in use before, which on some virtual machines costs more than all else
that is done to store it (docs/decisions/0012). Linux, open(2): O_DIRECT wants memory, place and length in whole blocks.
"""

import fcntl
import mmap
import os

# Smaller files are not worth a buffer of their own.
DIRECT_BYTES = 1024 * 1024
_ROOM = 1024 * 1024
_BLOCK = 4096
_DIRECT: int = getattr(os, "O_DIRECT", 0)  # Linux has it


def write_file(descriptor: int, data: bytes) -> None:
    """All of it, into a file that is empty: whole blocks past the cache where the file system can, the rest through it.

    Raises OSError.
    """
    view = memoryview(data)
    if _DIRECT and len(data) >= DIRECT_BYTES:
        view = view[_directly(descriptor, view) :]
    while view:
        view = view[os.write(descriptor, view) :]


def _directly(descriptor: int, data: memoryview) -> int:
    """As much as goes; returns how much."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT)
    except OSError:
        return 0  # this file system knows no such way
    try:
        return _in_blocks(descriptor, data)
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _in_blocks(descriptor: int, data: memoryview) -> int:
    done, end = 0, len(data) - len(data) % _BLOCK
    with mmap.mmap(-1, _ROOM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        # After a write that stopped within a block nothing is aligned any more.
        while done < end and done % _BLOCK == 0:
            size = min(_ROOM, end - done)
            with memoryview(room)[:size] as aligned:
                aligned[:] = data[done : done + size]
                try:
                    done += os.write(descriptor, aligned)
                except OSError:
                    break  # larger blocks, another reason of its own; what is really wrong is told on the other way
    return done
