"""The incremental backup as a toy, right and wrong on purpose: what the random histories must be able to tell apart.

A model keeps, per table, the line of every TID; at the next moment it takes the lines of *new* tuples, keeps the others
by their TID, and drops what is no longer visible. It never looks at the line of a tuple it calls old, as the product
does not. The right model must equal the source at every moment of every history, which is the argument of decision 0004
tried out without the product; each wrong one must be caught, or the histories prove nothing.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.history_oracle import Moment, TableSeen, Tuple

_WRAP = 1 << 32
IsNew = Callable[[Tuple, Moment, Moment], bool]
Key = Callable[[TableSeen, Moment], tuple[object, ...]]


def widen(raw: int, moment: Moment) -> int:
    """The raw xmin of a tuple visible at this moment as a 64-bit xid, hence below its xmax; 0 if it never was one."""
    if raw < 3:
        return 0
    near = (moment.xmax & ~(_WRAP - 1)) | raw
    return near if near < moment.xmax else near - _WRAP


def _since_xmin(one: Tuple, before: Moment, now: Moment) -> bool:
    return widen(one.xmin, now) >= before.xmin


def _since_xmax(one: Tuple, before: Moment, now: Moment) -> bool:
    return widen(one.xmin, now) >= before.xmax


def _not_in_snapshot(one: Tuple, before: Moment, now: Moment) -> bool:
    xid = widen(one.xmin, now)
    return xid >= before.xmax or xid in before.running


def whole_key(table: TableSeen, moment: Moment) -> tuple[object, ...]:
    """All of it."""
    return (moment.system, moment.timeline, table.oid, table.filenode, table.shape)


@dataclass(slots=True, kw_only=True)
class Model:
    """One toy incremental backup.

    believes_counts  an equal number of visible tuples means the same set, new ones or not
    believes_names   text of reg* values is kept, though it follows names elsewhere
    believes_unflushed  a snapshot counts though a crash may take back what it saw
    """

    name: str
    is_new: IsNew = _since_xmin
    key: Key = whole_key
    believes_counts: bool = False
    believes_names: bool = False
    believes_unflushed: bool = False
    before: Moment | None = None
    rows: dict[str, dict[str, bytes]] = field(default_factory=dict)
    keys: dict[str, tuple[object, ...]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def take(self, now: Moment, *, flushed: bool = True) -> None:
        """The next snapshot; notes the tables it got wrong, and goes on from what it holds.

        flushed  whether the server's log was on disk past this moment when the snapshot was finished
        """
        rows = {name: self._table(name, table, now) for name, table in now.tables.items()}
        self.wrong += [
            f"{name}: {_shown(Counter(rows[name].values()), table.lines)}"
            for name, table in now.tables.items()
            if Counter(rows[name].values()) != table.lines
        ]
        self.keys = {name: self.key(table, now) for name, table in now.tables.items()}
        self.rows, self.before = rows, now if flushed or self.believes_unflushed else None

    def _table(self, name: str, table: TableSeen, now: Moment) -> dict[str, bytes]:
        known = self.rows.get(name, {}) if self.keys.get(name) == self.key(table, now) else None
        if known is None or self.before is None or (table.by_name and not self.believes_names):
            return {t.tid: t.line for t in table.tuples}
        new = {t.tid: t.line for t in table.tuples if self.is_new(t, self.before, now)}
        if self.believes_counts and len(known) == len(table.tuples):
            return known | new
        # An old tuple that the model never met has no line: that is how a lost row shows.
        return new | {t.tid: known[t.tid] for t in table.tuples if t.tid not in new and t.tid in known}


def _shown(got: Counter[bytes], want: Counter[bytes]) -> str:
    lost, false = list((want - got).elements()), list((got - want).elements())
    return f"{len(lost)} rows lost, {len(false)} false, such as {[line[:60] for line in (lost[:2] + false[:2])]}"


def right_model() -> Model:
    """As decided in 0004."""
    return Model(name="right")


def wrong_models() -> list[Model]:
    """Each with one fault that random histories must find."""
    return [
        Model(name="new is what is at or after xmax", is_new=_since_xmax),
        Model(name="new is what the snapshot did not see", is_new=_not_in_snapshot),
        Model(name="the file is not in the key", key=lambda t, m: (m.system, m.timeline, t.oid, t.shape)),
        Model(name="the row type is not in the key", key=lambda t, m: (m.system, m.timeline, t.oid, t.filenode)),
        Model(name="an equal count is believed beside new tuples", believes_counts=True),
        Model(name="text that follows names is kept", believes_names=True),
    ]


def without_timeline() -> Model:
    """Failover must catch this one."""
    return Model(name="the timeline is not in the key", key=lambda t, m: (m.system, t.oid, t.filenode, t.shape))


def without_flush() -> Model:
    """A crash must catch this one."""
    return Model(name="unflushed snapshots count", believes_unflushed=True)
