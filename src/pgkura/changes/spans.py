"""Which files of a chain are read, which of them others replace, and which become one. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pgkura.repository.bundles import BundleName, Run, in_order

# So many segments become one bundle, and so many segments at most are in one.
FAN = 64
MOST = FAN * FAN


def cover(start: int, runs: Iterable[Run]) -> list[Run]:
    """The files to read from a position on, as far as there is no gap: each goes further than all before it.

    Two writers may have overlapped, and a bundle holds again what its segments hold: whatever ends no later than what
    is read already holds nothing new.
    """
    found: list[Run] = []
    at = start
    for run in in_order(runs):
        if run.start > at:
            break
        if run.end > at:
            found.append(run)
            at = run.end
    return found


def covered(start: int, runs: Iterable[Run]) -> int:
    """How far a chain goes without a gap."""
    found = cover(start, runs)
    return found[-1].end if found else start


def segments_in(run: Run) -> int:
    """How many."""
    return run.count if isinstance(run, BundleName) else 1


def replaced(runs: Sequence[Run], bundles: Iterable[BundleName]) -> set[Run]:
    """Those that lie within one of these bundles. Of two equal ones only the one that is read stays."""
    ordered = in_order(runs)
    wide = [run for run in in_order(bundles) if isinstance(run, BundleName)]
    # The furthest end among bundles up to each, and which one it is.
    ends = list(accumulate((b.end for b in wide), max))
    found: set[Run] = set()
    place = -1
    for run in ordered:
        while place + 1 < len(wide) and _before(wide[place + 1], run):
            place += 1
        if place >= 0 and ends[place] >= run.end:
            found.add(run)
    return found


def _before(bundle: BundleName, run: Run) -> bool:
    """Whether a bundle stands before another file in the order in which they are read."""
    return bundle != run and in_order((run, bundle))[0] == bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Files that become one bundle."""

    runs: tuple[Run, ...]

    @property
    def segments(self) -> int:
        """How many there are in them."""
        return sum(map(segments_in, self.runs))


def plan_bundles(runs: Sequence[Run], *, ended: bool, fan: int = FAN) -> list[Group]:
    """What can be made of a chain's files, in the order of `cover`.

    Segments become bundles of `fan`, or of `fan` × `fan` where so many are together; bundles become such larger
    ones. What is left at the end waits for more, unless the chain has ended. Nothing is written more than twice.
    """
    groups: list[Group] = []
    waiting: list[Run] = []
    for run in runs:
        if segments_in(run) >= fan * fan:
            groups += _grouped(waiting, fan, last=False)
            waiting = []
        else:
            waiting.append(run)
    return groups + _grouped(waiting, fan, last=not ended)


def _grouped(runs: Sequence[Run], fan: int, *, last: bool) -> list[Group]:
    """Of neighbours that are all smaller than the largest. `last`: more will come behind them."""
    most = fan * fan
    groups: list[Group] = []
    rest = list(runs)
    while sum(map(segments_in, rest)) >= most:
        taken = _take(rest, most)
        groups.append(Group(runs=tuple(rest[:taken])))
        rest = rest[taken:]
    if not last:
        return groups + ([Group(runs=tuple(rest))] if len(rest) > 1 else [])
    # Of the newest the loose segments only: their bundles wait until they are enough for a large one.
    loose: list[Run] = []
    for run in rest:
        if isinstance(run, BundleName):
            groups += [Group(runs=tuple(loose))] if len(loose) > 1 else []
            loose = []
            continue
        loose.append(run)
        if len(loose) == fan:
            groups.append(Group(runs=tuple(loose)))
            loose = []
    return groups


def _take(runs: Sequence[Run], most: int) -> int:
    """How many files, from the first on, hold `most` segments: what is made of them is large, and never made again."""
    totals = accumulate(map(segments_in, runs))
    return next(place for place, total in enumerate(totals, 1) if total >= most)
