"""Tables whose inserts alone are logged: what is stored of their counts, and what follows from it. Pure.

Inserts tell all of a table that is only added to. Whether it is, the server counts: an update or a delete that came
after a base was counted after it, since a session hands over its counts when its transaction has ended. So if the
counts of a look from before the base are those of a look that surely knows all up to the moment, there was none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgkura.core.names import QualifiedName
from pgkura.core.wal import Visible
from pgkura.postgres.counting import Counted

# Segments after which all counts are told again, so that a reader need not go far back.
_ALL_AGAIN = 32
Counts = tuple[int, int, int]


class Telling:
    """What a watcher tells of counts with each segment: those that moved, and now and then all."""

    def __init__(self) -> None:
        self._known: dict[QualifiedName, Counts] = {}
        self._epoch = ""
        self._since = _ALL_AGAIN

    def tell(self, counted: Counted | None) -> dict[str, Any] | None:
        """For the record of a segment; None where nothing is counted."""
        if counted is None:
            return None
        self._since += 1
        whole = self._since >= _ALL_AGAIN or counted.epoch != self._epoch or counted.tables.keys() != self._known.keys()
        if whole:
            self._since = 0
        told = {n: c for n, c in counted.tables.items() if whole or self._known.get(n) != c}
        self._known, self._epoch = dict(counted.tables), counted.epoch
        return as_record(counted, told, whole=whole)


def as_record(counted: Counted, tables: Mapping[QualifiedName, Counts], *, whole: bool) -> dict[str, Any]:
    """As it is stored."""
    return {
        "until": counted.until,
        "unseen": counted.unseen,
        "epoch": counted.epoch,
        "whole": whole,
        "tables": [[n.schema, n.name, *counts] for n, counts in tables.items()],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A look's counts as stored. `visible`: of the snapshot that was taken after them; `whole`: none is left out."""

    visible: Visible
    time: int
    until: int
    unseen: int
    epoch: str
    whole: bool
    tables: Mapping[QualifiedName, Counts]


def sample(record: Mapping[str, Any] | None, visible: str, time: int) -> Sample | None:
    """Back from a record. Raises KeyError, TypeError, ValueError."""
    if record is None:
        return None
    return Sample(
        visible=Visible.parse(visible),
        time=time,
        until=int(record["until"]),
        unseen=int(record["unseen"]),
        epoch=str(record["epoch"]),
        whole=bool(record["whole"]),
        tables={QualifiedName(s, n): (int(o), int(u), int(d)) for s, n, o, u, d in record["tables"]},
    )


@dataclass(slots=True, kw_only=True)
class Judged:
    """What may be said of tables between a base and a moment.

    moved    those that were updated or deleted from, or of which it is not known that they were not: how it was seen
    unknown  why the others are not yet known to be whole, '' where they are
    seen     latest look that was taken into account, microseconds since 1970
    """

    moved: dict[QualifiedName, str] = field(default_factory=dict)
    unknown: str = ""
    seen: int = 0


def judge_counts(samples: Iterable[Sample], tables: Iterable[QualifiedName], base: Visible, until: int) -> Judged:
    """`samples` in their order, from one that tells all on; `until`: the latest commit of the moment.

    Ends with the first look that surely counted it.
    """
    wanted = list(tables)
    before: Sample | None = None
    counts: dict[QualifiedName, Counts] = {}
    judged = Judged()
    for one in samples:
        if base.sees_all_of(one.visible):
            # From before the base: the newest of these is what is compared with.
            counts = dict(one.tables) if one.whole else counts | dict(one.tables)
            before = one
            continue
        if before is None:
            break
        judged.seen = one.time
        _compare(judged, before, counts, one, wanted)
        if one.until >= until:
            judged.unknown = ""
            return judged
        judged.unknown = _why(one)
    if before is None:
        judged.moved = dict.fromkeys(wanted, "nothing was counted before the snapshot was taken")
    elif not judged.seen:
        judged.unknown = "nothing was counted since"
    return judged


def _compare(
    judged: Judged, before: Sample, counts: Mapping[QualifiedName, Counts], now: Sample, wanted: list[QualifiedName]
) -> None:
    for name in wanted:
        if name in judged.moved:
            continue
        if now.epoch != before.epoch:
            judged.moved[name] = "the server began to count anew: updates and deletes in between are not known"
        elif name not in counts:
            judged.moved[name] = "nothing was counted before the snapshot was taken"
        elif name in now.tables and now.tables[name] != counts[name]:
            judged.moved[name] = _difference(counts[name], now.tables[name])


def _difference(before: Counts, now: Counts) -> str:
    if before[0] != now[0]:
        return "it is another table of this name"
    parts = [f"{now[n] - before[n]:,} {what}" for n, what in ((1, "updated"), (2, "deleted")) if now[n] != before[n]]
    return f"rows were changed since ({', '.join(parts)})"


def _why(one: Sample) -> str:
    if one.unseen:
        return (
            f"{one.unseen} sessions could not be seen, which may have updated it: GRANT pg_read_all_stats to the role"
        )
    return "updates and deletes of the last minutes before it may not be counted yet"
