"""How long work tells the outside world where it stands. Deciders never see this; doers call it."""

import threading
from typing import Protocol


class Progress(Protocol):
    """Told by operations, shown by a shell. Calls come from one thread; all are cheap and never raise."""

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        """A named stage begins; `total` in `unit` ("bytes", "tables", "") when known."""
        ...

    def advance(self, amount: int) -> None:
        """`amount` more of the current stage's unit is done."""
        ...

    def note(self, text: str) -> None:
        """One plain line worth reading now (a warning, a retry, a table given up)."""
        ...


class Silent:
    """A Progress that shows nothing."""

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        """Ignore."""

    def advance(self, amount: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


class Meter:
    """Counts in worker threads, read by the one thread that speaks to people."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, amount: int) -> None:
        """From any thread."""
        with self._lock:
            self._count += amount

    def take(self) -> int:
        """What was added since the last call."""
        with self._lock:
            count, self._count = self._count, 0
            return count
