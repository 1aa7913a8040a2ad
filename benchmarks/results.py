"""What a benchmark says: runs, and verdicts against goals. Pure; the JSON file is made of these."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

#: Largest share of the processors' time that the host may take in a run that counts.
DISTURBED = 0.03


class Wrong(Exception):
    """A run was not ok or not equal: no time of it means anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one contestant.

    client_cpu   of the command and everything it waited for; server_cpu: of all server processes meanwhile
    bytes        what it left behind, or added to what lay there
    received     row bytes it says it received from the server; 0 = it does not say
    network      bytes on the loopback interface meanwhile, whoever sent them
    peak_memory  PSS of the command and all its descendants, sampled
    stolen       share of the processors' time that the host of a virtual machine gave to others meanwhile; None = not
                 measured
    thrown       walls of runs before or after this one that do not count, since more of their time was stolen
    """

    contestant: str
    round: int
    wall: float
    client_cpu: float = 0.0
    server_cpu: float = 0.0
    bytes: int = 0
    received: int = 0
    network: int = 0
    peak_memory: int = 0
    stolen: float | None = None
    thrown: tuple[float, ...] = ()
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        """Client and server."""
        return self.client_cpu + self.server_cpu

    @property
    def disturbed(self) -> bool:
        """Whether it was not on a quiet machine, and should be measured again."""
        return (self.stolen or 0.0) > DISTURBED


def most_stolen(shares: Iterable[float | None]) -> float | None:
    """Of several parts of a run; None where none was measured."""
    return max((share for share in shares if share is not None), default=None)


def quietest(tries: Sequence[Run]) -> Run:
    """Of several tries of one run that which the host disturbed least, whatever its wall; the others are told in it."""
    best = min(tries, key=lambda run: run.stolen or 0.0)
    return replace(best, thrown=tuple(run.wall for run in tries if run is not best))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One goal: `value` (a ratio of medians, or an amount where there is no peer) should be at most `goal`.

    goal None: told beside the others, nothing was promised
    """

    what: str
    ours: str
    peer: str
    unit: str
    ours_value: float
    peer_value: float | None
    value: float
    goal: float | None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.goal is None else self.value <= self.goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure's result. `skipped` says why there are no runs; `checked` what was found equal."""

    name: str
    title: str
    data: Mapping[str, Any] = field(default_factory=dict)
    runs: Sequence[Run] = ()
    verdicts: Sequence[Verdict] = ()
    checked: Sequence[str] = ()
    notes: Sequence[str] = ()
    skipped: str = ""

    def as_json(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        made = asdict(self)
        for told, verdict in zip(made["verdicts"], self.verdicts, strict=True):
            told["met"] = verdict.met
        return made


def of(runs: Iterable[Run], contestant: str) -> list[Run]:
    """The runs of one contestant. Raises Wrong when there are none."""
    found = [r for r in runs if r.contestant == contestant]
    if not found:
        raise Wrong(f"no run of {contestant!r}")
    return found


def middle(runs: Iterable[Run], contestant: str, value: Callable[[Run], float]) -> float:
    """The median over a contestant's runs."""
    return float(median(value(r) for r in of(runs, contestant)))


def compared(
    what: str,
    runs: Sequence[Run],
    ours: str,
    peers: str | Sequence[str],
    value: Callable[[Run], float],
    *,
    goal: float | None = None,
    unit: str = "s",
    peer_value: Callable[[Run], float] | None = None,
) -> Verdict:
    """Ratio of medians; of several peers the best one counts."""
    theirs = peer_value or value
    names = [peers] if isinstance(peers, str) else list(peers)
    best = min(names, key=lambda name: middle(runs, name, theirs))
    a, b = middle(runs, ours, value), middle(runs, best, theirs)
    ratio = a / b if b else float("inf")
    return Verdict(what=what, ours=ours, peer=best, unit=unit, ours_value=a, peer_value=b, value=ratio, goal=goal)


def at_most(
    what: str, runs: Sequence[Run], ours: str, value: Callable[[Run], float], *, goal: float | None, unit: str
) -> Verdict:
    """The most of all runs against an amount."""
    most = max(value(r) for r in of(runs, ours))
    return Verdict(what=what, ours=ours, peer="", unit=unit, ours_value=most, peer_value=None, value=most, goal=goal)
