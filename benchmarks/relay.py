"""A wire with a latency: a relay that holds every byte back. For machines whose kernel has no netem.

python -m benchmarks.relay PORT TARGET_PORT MILLISECONDS_EACH_WAY
"""

import queue
import socket
import sys
import time
from threading import Semaphore, Thread

from pgkura.core.memory import use_again

PIECE = 256 * 1024
#: Bytes at once after which more will follow; seconds in which it is let gather: fewer pieces cost less.
MUCH = 16 * 1024
GATHER = 0.004
#: Pieces under way in one direction: more than a fast link holds at such latencies.
UNDER_WAY = 256


def carry(source: socket.socket, sink: socket.socket, delay: float) -> None:
    """Bytes of one direction, each piece `delay` seconds after it came; returns at its end."""
    pieces: queue.Queue[tuple[float, bytes]] = queue.Queue()
    room = Semaphore(UNDER_WAY)

    def deliver() -> None:
        while True:
            due, piece = pieces.get()
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            room.release()
            try:
                if not piece:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(piece)
            except OSError:
                return

    deliverer = Thread(target=deliver, daemon=True)
    deliverer.start()
    while True:
        room.acquire()
        try:
            piece = source.recv(PIECE)
        except OSError:
            piece = b""
        pieces.put((time.monotonic() + delay, piece))
        if not piece:
            break
        if len(piece) >= MUCH:
            time.sleep(GATHER)
    deliverer.join()


def join(near: socket.socket, target: int, delay: float) -> None:
    """One connection, both directions."""
    with near, socket.create_connection(("127.0.0.1", target)) as far:
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = Thread(target=carry, args=(far, near, delay), daemon=True)
        back.start()
        carry(near, far, delay)
        back.join()


def main() -> None:
    """Serve until ended."""
    use_again()  # a wire takes no processor time: as little of the machine's as can be
    sys.setswitchinterval(0.0005)
    port, target, milliseconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with socket.create_server(("127.0.0.1", port), backlog=64) as server:
        print("ready", flush=True)
        while True:
            near, _ = server.accept()
            Thread(target=join, args=(near, target, milliseconds / 1000), daemon=True).start()


if __name__ == "__main__":
    main()
