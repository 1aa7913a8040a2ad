"""The sampler of our memory, beside processes that come and go."""

import subprocess
import threading

from pgkura.core.memory import sample


def test_processes_that_end_while_they_are_looked_at() -> None:
    """Clients of ours end at any time: the one who looks goes on looking."""
    ended = threading.Event()

    def start() -> None:
        while not ended.is_set():
            subprocess.run(["sh", "-c", "true & true"], check=True)

    starters = [threading.Thread(target=start) for _ in range(4)]
    for one in starters:
        one.start()
    try:
        assert all(sample() > 1_000_000 for _ in range(300))
    finally:
        ended.set()
        for one in starters:
            one.join()
