"""One word for everybody: stop. Set by a signal, an operator or the first failure; read by every loop."""

from threading import Event, Lock

from pgkura.core.errors import Interrupted, PgkuraError


class Stop:
    """A stop token; safe to use from several threads. The first reason wins."""

    def __init__(self) -> None:
        self._event = Event()
        self._lock = Lock()
        self._reason: PgkuraError | None = None

    def request(self, reason: PgkuraError | None = None) -> None:
        """Ask everybody to stop."""
        with self._lock:
            if self._reason is None:
                self._reason = reason or Interrupted("stopped", hint="what was stored stays; run it again")
        self._event.set()

    @property
    def event(self) -> Event:
        """For callees that wait on an event themselves (a running program)."""
        return self._event

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise the reason if somebody asked."""
        if self._event.is_set() and self._reason is not None:
            raise self._reason

    def wait(self, seconds: float) -> bool:
        """Sleep, at most `seconds`; True as soon as somebody asks."""
        return self._event.wait(seconds)
