"""Progress for people: a bar with rate and ETA on a terminal, plain lines elsewhere. Always on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgkura.core.progress import Progress, Silent

PLAIN_INTERVAL_SECONDS = 5.0
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def human_bytes(count: float) -> str:
    """Decimal units, three significant digits: `12.3 MB`."""
    size = float(count)
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def human_seconds(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def amount(count: float, unit: str) -> str:
    """A count in its unit, bytes made readable."""
    return human_bytes(count) if unit == "bytes" else f"{count:,.0f} {unit}".rstrip()


class Plain:
    """Lines for logs and pipes: each stage when it begins, then at most one line per interval."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._name, self._unit = "", ""
        self._total: int | None = None
        self._done = 0
        self._started = self._spoke = clock()

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> None:
        """Say that a stage begins."""
        self._name, self._unit, self._total, self._done = name, unit, total, 0
        self._started = self._spoke = self._clock()
        self._write(name + (f" ({amount(total, unit)})" if total else ""))

    def advance(self, amount_done: int) -> None:
        """Count, and speak once per interval."""
        self._done += amount_done
        now = self._clock()
        if now - self._spoke < PLAIN_INTERVAL_SECONDS:
            return
        self._spoke = now
        rate = self._done / max(now - self._started, 1e-9)
        line = f"{self._name}: {amount(self._done, self._unit)}"
        if self._total:
            line += f" of {amount(self._total, self._unit)}"
        line += f", {amount(rate, self._unit)}/s"
        if self._total and rate:
            line += f", {human_seconds(max(self._total - self._done, 0) / rate)} left"
        self._write(line)

    def note(self, text: str) -> None:
        """One line."""
        self._write(text)


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Progress]:
    """The right Progress for this stderr, closed properly on every way out."""
    if quiet:
        yield Silent()
        return
    if not sys.stderr.isatty():
        yield Plain(lambda line: print(line, file=sys.stderr, flush=True))
        return
    from pgkura.cli.bars import bars

    with bars() as terminal:
        yield terminal
