"""Search a log: what each transaction did, and the history of rows. Reads only segments that can hold an answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pgkura.changes import pgoutput
from pgkura.changes.log import Log
from pgkura.changes.pgoutput import Relation, Row, Unchanged
from pgkura.postgres.ddl_messages import PREFIX, Told, parse

_KINDS = {
    pgoutput.INSERT: "insert",
    pgoutput.UPDATE: "update",
    pgoutput.DELETE: "delete",
    pgoutput.TRUNCATE: "truncate",
}
# Told by event triggers, where a watcher has made them.
DDL = "ddl"
KINDS = frozenset({*_KINDS.values(), DDL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is looked for; what is not given matches everything.

    table  `schema.name` or `name`; kinds: of changes; values: of a row, old or new, as text
    since, until  commit times in microseconds
    """

    table: str = ""
    kinds: frozenset[str] = KINDS
    values: Mapping[str, str] = field(default_factory=dict)
    since: int = 0
    until: int = 1 << 62

    def names(self, schema: str, name: str) -> bool:
        """Whether this table is meant."""
        return self.table in ("", name, f"{schema}.{name}")

    def identity(self, name: str) -> bool:
        """The same for an object as event triggers name it, a column or index of the table included."""
        plain = name.replace('"', "")
        return not self.table or f".{plain}.".find(f".{self.table}.") >= 0


@dataclass(slots=True, kw_only=True)
class Event:
    """A change that matches. `old` and `new` as told: of an old row often the key alone."""

    kind: str
    table: str
    old: dict[str, str | None]
    new: dict[str, str | None]


@dataclass(slots=True, kw_only=True)
class Found:
    """A transaction with what in it matches. `counts`: table → kind → changes; ddl: what it did to definitions."""

    lsn: int
    xid: int
    time: int
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    ddl: list[Told] = field(default_factory=list)

    @property
    def changes(self) -> int:
        """All that match."""
        return sum(n for kinds in self.counts.values() for n in kinds.values())

    @property
    def harm(self) -> tuple[int, int]:
        """What people look for first: tables that were dropped or emptied, then many rows."""
        dropped = sum(t.event == "sql_drop" and any(kind == "table" for _, kind, _ in t.objects) for t in self.ddl)
        return dropped + sum(kinds.get("truncate", 0) for kinds in self.counts.values()), self.changes


def search(log: Log, question: Question, *, keep_events: int) -> Iterator[Found]:
    """In commit order. `keep_events`: of each transaction at most so many changes are kept."""
    for first, last, head in log.pieces(0, len(log.names) - 1):
        if head is not None and not _may_hold(Bounds.of(head.record), question):
            continue  # a bundle is passed over without a look at its segments
        for place in range(first, last + 1):
            if _may_hold(log.at(place), question):
                yield from _in_segment(log, place, question, keep_events)


class Tells(Protocol):
    """What is told of a segment, or of many together."""

    @property
    def transactions(self) -> int: ...
    @property
    def first_time(self) -> int: ...
    @property
    def last_time(self) -> int: ...
    @property
    def ddl(self) -> int: ...
    @property
    def tables(self) -> Sequence[tuple[str, str, int, int, int, int]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of a bundle."""

    transactions: int
    first_time: int
    last_time: int
    ddl: int
    tables: Sequence[tuple[str, str, int, int, int, int]]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Bounds":
        """As its short record says."""
        return cls(
            transactions=record["transactions"],
            first_time=record["first_time"],
            last_time=record["last_time"],
            ddl=record.get("ddl", 0),
            tables=[(s, n, i, u, d, t) for s, n, i, u, d, t in record["tables"]],
        )


def _may_hold(segment: Tells, question: Question) -> bool:
    if not segment.transactions or segment.last_time < question.since or segment.first_time > question.until:
        return False
    # Times inside a segment are not in order by a hair: its first may not be its least.
    if segment.ddl and DDL in question.kinds and not question.values:
        return True
    return any(question.names(schema, name) for schema, name, *_ in segment.tables)


def _in_segment(log: Log, place: int, question: Question, keep_events: int) -> Iterator[Found]:
    from_32 = log.at(place).poll.widen
    relations: dict[int, Relation] = {}
    found: Found | None = None
    for payload in log.messages(place, place):
        kind = payload[0]
        if kind == pgoutput.BEGIN:
            begun = pgoutput.begin(payload)
            inside = question.since <= begun.time <= question.until
            found = Found(lsn=begun.lsn, xid=from_32(begun.xid), time=begun.time) if inside else None
        elif kind == pgoutput.RELATION:
            relation = pgoutput.relation(payload)
            relations[relation.oid] = relation
        elif kind == pgoutput.COMMIT:
            if found is not None and found.counts:
                yield found
            found = None
        elif found is not None and kind == pgoutput.MESSAGE and DDL in question.kinds and not question.values:
            _hear(found, payload, question)
        elif found is not None and kind in _KINDS and _KINDS[kind] in question.kinds:
            _take(found, payload, relations, question, keep_events)


def _hear(found: Found, payload: bytes, question: Question) -> None:
    said = pgoutput.message(payload)
    told = parse(said.content) if said.transactional and said.prefix == PREFIX else None
    if told is None or not any(question.identity(name) for *_, name in told.objects):
        return
    found.ddl.append(told)
    for _, kind, name in told.objects:
        if question.identity(name):
            kinds = found.counts.setdefault(f"{kind} {name}", {})
            kinds[DDL] = kinds.get(DDL, 0) + 1


def _take(
    found: Found, payload: bytes, relations: Mapping[int, Relation], question: Question, keep_events: int
) -> None:
    kind = payload[0]
    if kind == pgoutput.TRUNCATE:
        for oid in pgoutput.truncate(payload).relations:
            _count(found, relations[oid], "truncate", question, None, 0)
        return
    relation = relations[pgoutput.relation_of(payload)]
    if not question.names(relation.qname.schema, relation.qname.name):
        return
    change = pgoutput.change(payload) if question.values or keep_events else None
    _count(found, relation, _KINDS[kind], question, change, keep_events)


def _count(
    found: Found,
    relation: Relation,
    kind: str,
    question: Question,
    change: pgoutput.Change | None,
    keep_events: int,
) -> None:
    if not question.names(relation.qname.schema, relation.qname.name):
        return
    old: dict[str, str | None] = {}
    new: dict[str, str | None] = {}
    if change is not None:
        old = _told(relation, change.old, only_key=not change.whole)
        new = _told(relation, change.new)
    if question.values and kind != "truncate" and not (_fits(old, question) or _fits(new, question)):
        return
    kinds = found.counts.setdefault(str(relation.qname), {})
    kinds[kind] = kinds.get(kind, 0) + 1
    if len(found.events) < keep_events:
        found.events.append(Event(kind=kind, table=str(relation.qname), old=old, new=new))


def _fits(row: Mapping[str, str | None], question: Question) -> bool:
    return bool(row) and all(row.get(column) == value for column, value in question.values.items())


def _told(relation: Relation, row: Row | None, *, only_key: bool = False) -> dict[str, str | None]:
    """Values that are told. Of an old row that is only a key the other columns are NULL, which means nothing."""
    if row is None:
        return {}
    return {
        column.name: None if value is None else value.decode(errors="replace")
        for column, value in zip(relation.columns, row, strict=True)
        if not isinstance(value, Unchanged) and (column.key or not only_key)
    }
