"""What the proof of rows costs on our side: `benchmarks/hash_rows.py`, told like the other figures."""

import os

from benchmarks.bench import Bench
from benchmarks.hash_rows import SHAPES, best, candidates, make_rows, pieces_of, side_by_side
from benchmarks.results import Figure, Run, Verdict

ROWS = 200_000
OURS = "multiset"


def figure(bench: Bench) -> Figure:
    """Microseconds per row of every candidate, for each shape of rows; the fastest turn of each."""
    count = max(2000, int(ROWS * min(1.0, bench.scale)))
    key = os.urandom(32)
    runs: list[Run] = []
    verdicts: list[Verdict] = []
    for title, width, spread in SHAPES:
        rows = make_rows(max(500, count * 66 // (36 + width)), width, spread)
        pieces = pieces_of(rows)
        size = sum(map(len, pieces))
        for name, seconds in best(candidates(pieces, key)).items():
            told = f"{name}, rows of {title}"
            per_gb = {"cpu_seconds_per_gb": seconds / size * 1e9}
            runs.append(Run(contestant=told, round=1, wall=seconds, client_cpu=seconds, bytes=size, more=per_gb))
            verdicts.append(_amount("per row", told, "µs", seconds / len(rows) * 1e6))
            if name.startswith(OURS):
                verdicts.append(_amount("per GB", told, "CPU s", per_gb["cpu_seconds_per_gb"]))
                both = side_by_side(pieces, key)
                verdicts.append(_amount("two tables in two threads, instead of one in one", told, "times", both))
    return Figure(
        name="hash_rows",
        title="Hashing rows",
        data={"rows": count},
        runs=runs,
        verdicts=verdicts,
        notes=("seconds are the processor's, of all threads, of the fastest turn",),
    )


def _amount(what: str, ours: str, unit: str, value: float) -> Verdict:
    return Verdict(what=what, ours=ours, peer="", unit=unit, ours_value=value, peer_value=None, value=value, goal=None)
