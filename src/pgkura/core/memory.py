"""How much memory we take: the sum of PSS over our processes and their children, sampled."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

import psutil

INTERVAL_SECONDS = 0.5
# An embedded server may be a child of ours; the server's memory is not ours.
_SERVERS = frozenset({"postgres", "postmaster"})
# malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_ARENA_MAX.
_ALLOCATOR = ((-3, 2 << 20), (-1, 8 << 20), (-8, 1))


class MemoryMeter:
    """A thread that samples until it is closed; `peak` is 0 where the system does not tell."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = Event()
        self._thread = Thread(target=self._run, name="pgkura-memory", daemon=True)
        self._thread.start()

    def close(self) -> int:
        """Stop, with a last sample; returns the peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self.peak

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            self.peak = max(self.peak, sample())
            if self._ended.wait(INTERVAL_SECONDS):
                return


def use_again() -> None:
    """Let buffers below 2 MiB come from one heap of all threads, and stay there for the next (glibc only).

    By itself the allocator asks the system for each buffer of some hundred kilobytes anew, or, once it has learned the
    size, keeps some for each thread. New pages cost a quarter of the processor time of a backup, and half of a
    restore's; a heap for each thread costs a third of the memory. What is free above 8 MiB goes back. Whole packs and
    chunks are few: from the heap they would save no time and leave holes of as much as what is in use.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in _ALLOCATOR:
        mallopt(option, value)


def rarely_collect() -> None:
    """Let Python look for cycles rarely: each row received is an object, and looking cost a fifth of our time.

    Nothing on the data path makes cycles; reference counts free it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def sample() -> int:
    """Bytes now. Shared pages count once in sum (PSS), or as resident where PSS is not told."""
    own = psutil.Process()
    total = 0
    for process in (own, *_descendants(own)):
        try:
            if process.name() in _SERVERS:
                continue
            info = process.memory_full_info()
            total += getattr(info, "pss", 0) or info.rss
        except psutil.Error:
            continue  # ended between two looks
    return total


def _descendants(own: psutil.Process) -> Iterator[psutil.Process]:
    """Linux tells the children of each thread; else every process of the machine would be looked at, twice a second."""
    waiting = [own.pid]
    if not Path(f"/proc/{own.pid}/task/{own.pid}/children").exists():
        yield from own.children(recursive=True)
        return
    while waiting:
        files: list[Path] = []
        with suppress(OSError):  # ended between two looks, as below
            files += Path(f"/proc/{waiting.pop()}/task").glob("*/children")
        for file in files:
            with suppress(OSError, psutil.Error):
                for pid in map(int, file.read_text().split()):
                    waiting.append(pid)
                    yield psutil.Process(pid)
