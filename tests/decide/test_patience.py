"""How long a watcher waits before it tries again, however long a store is away."""

from itertools import pairwise

from pgkura.changes.watching import patience


def test_pauses_grow_and_stay_bounded() -> None:
    """A store that is away for days: four tries a minute, for ever."""
    pauses = [patience(n) for n in range(1, 100_000)]
    assert 0 < pauses[0] < 1
    assert all(a <= b for a, b in pairwise(pauses))
    assert pauses[-1] == 15.0
