"""Long random runs (`make soak`): SOAK_SECONDS in all, shared by the chosen tests; SOAK_SEED repeats a run.

A round that fails says its own seed. The first round's is SOAK_SEED itself, so SOAK_SEED=<that seed> begins with it.
"""

import os
import random
import sys
import time
from collections.abc import Iterator

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
# Of one test: its share, and what the last round may take beyond it.
TIMEOUT = SECONDS + 600

_chosen = 1


def share_among(count: int) -> None:
    """How many tests share the time."""
    global _chosen
    _chosen = max(count, 1)


def rounds() -> Iterator[int]:
    """A seed for each round, until this test's share of the time is over; at least one."""
    dice, seed, end = random.Random(SEED), SEED, time.monotonic() + SECONDS / _chosen
    number = 0
    while number == 0 or time.monotonic() < end:
        number += 1
        print(f"soak: round {number}, seed {seed}", flush=True)
        yield seed
        seed = dice.randrange(1, 2**31)
    print(f"soak: {number} rounds", file=sys.stderr)
