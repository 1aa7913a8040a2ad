"""A wire between two programs that can be cut in the middle of a word, slowed down, or made to swallow everything."""

import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_PIECE = 16 * 1024
_BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Wire:
    """Carries connections to a port of this machine. What it does to them can be changed at any time.

    cut       a connection is cut after so many bytes towards `toward`; None = never
    toward    `near`: what the target sends; `far`: what the target is sent
    delay     seconds that each piece is held back
    stalled   nothing is carried, and nobody is told
    refusing  connections are answered by HTTP's 503, as by a store that has enough
    cuts      how often it cut
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.cut: Callable[[], int] | None = None
        self.toward = "near"
        self.delay = 0.0
        self.stalled = self.refusing = False
        self.cuts = self.refused = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> "Wire":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Cut whatever is open now."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near:
            if self.refusing:
                self._refuse(near)
                return
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
                with self._lock:
                    self._open |= {near, far}
                back = threading.Thread(target=self._carry, args=(far, near, "near"), daemon=True)
                back.start()
                self._carry(near, far, "far")
                back.join()
                with self._lock:
                    self._open -= {near, far}

    def _refuse(self, near: socket.socket) -> None:
        self.refused += 1
        with suppress(OSError):
            near.settimeout(0.5)
            while near.recv(_PIECE):  # a client that is answered before it has sent all takes it for a broken line
                near.settimeout(0.05)
        with suppress(OSError):
            near.sendall(_BUSY)

    def _carry(self, source: socket.socket, sink: socket.socket, toward: str) -> None:
        left = self.cut() if self.cut is not None and toward == self.toward else None
        try:
            while piece := source.recv(_PIECE):
                while self.stalled:
                    time.sleep(0.05)
                if self.delay:
                    time.sleep(self.delay)
                if left is not None:
                    piece, left = piece[:left], left - len(piece[:left])
                sink.sendall(piece)
                if left == 0:
                    self.cuts += 1
                    break
        except OSError:
            pass
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def random_cut(seed: int, least: int, most: int) -> Callable[[], int]:
    """Another number of bytes for each connection."""
    chance = random.Random(seed)
    return lambda: chance.randint(least, most)
