"""Which rows are loaded where: one Load per table, chosen before the first write. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pgkura.core.facts import SourceFacts, TableFacts
from pgkura.core.forms import Form
from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.refs import Layer
from pgkura.repository.lists import BLOBS, TableData
from pgkura.repository.spool import outside, portions
from pgkura.restore.target import Target

# Tables from this size on are loaded in parts, each in a transaction of its own: what is there survives a restore cut
# short, and connections that have nothing else to do share what is left.
DIVIDED_BYTES = 128 * 1024 * 1024
PART_BYTES = 64 * 1024 * 1024
PARTS = 1024  # at most, or so
# A restore that was cut short once may be so again: it goes on chunk by chunk, each in a transaction of its own.
CHUNK_BYTES = 8 * 1024 * 1024
CHUNKS = 4096  # transactions of one table, at most, or so
# What a restore that is cut short has to load again of a large table, at most.
HEAD_BYTES = 1024 * 1024 * 1024

# These rows come back through the platform's own functions.
_BY_FUNCTION = frozenset({("vault", "secrets"), ("cron", "job"), ("cron", "job_run_details")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One table's rows.

    columns  those that are stored and both sides have; keep: their places in the stored rows, () = all of them
    absent   those that are not stored, since the table was altered while it was backed up: NULL in each row, for a
             default would make values up. Such rows are COPY text
    managed  a platform's table: loaded with triggers and foreign keys off
    form     how rows from before the table was altered go into it
    first    of a part of the rows: the place of its first chunk in the table; None = these are all
    """

    data: TableData
    facts: TableFacts | None
    target: QualifiedName
    columns: tuple[str, ...]
    managed: bool
    absent: tuple[str, ...] = ()
    keep: tuple[int, ...] = ()
    delete_where: str | None = None
    form: Form | None = None
    first: int | None = None

    @property
    def place(self) -> tuple[int, int]:
        """In the ledger."""
        return self.data.number, self.first or 0

    @property
    def plain(self) -> bool:
        """Whether it is all that an ordinary table gets, as it is stored."""
        own = self.facts is not None and self.facts.kind == "r" and not self.facts.load_root
        return own and self.delete_where is None and not self.managed and self.form is None

    def parts(self, head: int = 0) -> Iterator["Load"]:
        """The rows in portions that several connections may load at a time, in any order, once the first one is there:
        it has `head` bytes, where that is not 0."""
        for first, layers in portions(self.data.layers, max(PART_BYTES, self.data.bytes // PARTS), head):
            yield self._part(first, layers)

    def parts_left(self, covered: Mapping[int, int]) -> Iterator["Load"]:
        """The rows but those of chunks that are there (place of the first of a run, how many), in small portions."""
        for first, layers in portions(self.data.layers, max(CHUNK_BYTES, self.data.bytes // CHUNKS)):
            end = first + len(layers)
            near = {place: count for place, count in covered.items() if place < end and first < place + count}
            if not near:
                yield self._part(first, layers)
                continue
            for place, layer in enumerate(layers, first):
                for one in outside((layer,), near, place):
                    yield self._part(place, (one,))

    def _part(self, first: int, layers: Collection[Layer]) -> "Load":
        rows, size = sum(x.rows for x in layers), sum(x.chunk.length for x in layers)
        return replace(self, first=first, data=replace(self.data, layers=layers, rows=rows, bytes=size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """All loads, largest first; `empty` are the platform's tables that must be emptied before."""

    loads: tuple[Load, ...]
    empty: tuple[QualifiedName, ...]
    findings: tuple[Finding, ...]


def plan_loads(
    facts: SourceFacts, tables: Sequence[TableData], target: Target, kept: frozenset[QualifiedName]
) -> Loads:
    """`kept`: relations of the target that nobody touches."""
    loads: list[Load] = []
    empty: list[QualifiedName] = []
    findings: list[Finding] = []
    for data in tables:
        if data.number == BLOBS:
            continue
        source = facts.tables[data.number]
        there = target.tables.get(source.qname)
        if there is not None and there.managed:
            load = _managed_load(source, there, data, target, findings, empty)
        elif (source.schema, source.name) in facts.by_function:
            load = None
        else:
            load = _own_load(source, data, kept)
        if load is not None:
            loads.append(load)
            findings.extend(_not_stored(load, source))
    return Loads(
        loads=tuple(sorted(loads, key=lambda load: -load.data.bytes)), empty=tuple(empty), findings=tuple(findings)
    )


def _own_load(source: TableFacts, data: TableData, kept: frozenset[QualifiedName]) -> Load | None:
    root = source.load_root.split("\0") if source.load_root else None
    target = QualifiedName(root[0], root[1]) if root else source.qname
    if target in kept or source.qname in kept:
        return None
    stored = source.listed(data.columns)
    return Load(
        data=data,
        facts=source,
        target=target,
        columns=tuple(c.name for c in stored),
        managed=False,
        absent=tuple(c.name for c in source.data_columns if c not in stored),
        delete_where=source.config_where if source.config_of else None,
    )


def _managed_load(
    source: TableFacts,
    there: TableFacts,
    data: TableData,
    target: Target,
    findings: list[Finding],
    empty: list[QualifiedName],
) -> Load | None:
    """A platform table: rows only, columns that both sides have."""
    name = f"rows of {source.qname}"
    if (source.schema, source.name) in target.platform.service_tables:
        if data.rows:
            findings.append(
                Finding(cls=FindingClass.MANAGED, object=name, reason="the platform's own ledger", rule="platform-rows")
            )
        return None
    if (source.schema, source.name) in _BY_FUNCTION or data.rows == 0:
        return None
    rights = target.rights[source.qname]
    if not rights.insert:
        findings.append(_denied(name, "no right to insert into this table of the platform"))
        return None
    if not target.replica:
        findings.append(_denied(name, "its triggers and foreign keys cannot be switched off by this role"))
        return None
    if rights.rows:
        if not rights.truncate and not rights.delete:
            findings.append(_denied(name, "the target's table is not empty and this role may not empty it"))
            return None
        empty.append(source.qname)
    have = {c.name for c in there.data_columns}
    missing = [c.name for c in source.data_columns if c.name not in have]
    findings.extend(
        Finding(
            cls=FindingClass.LOST,
            object=f"column {source.qname}.{quote_ident(c)}",
            reason="the target's platform has no such column",
        )
        for c in missing
    )
    stored = source.listed(data.columns)
    return Load(
        data=data,
        facts=source,
        target=source.qname,
        columns=tuple(c.name for c in stored if c.name in have),
        managed=True,
        absent=tuple(c.name for c in source.data_columns if c not in stored and c.name in have),
        keep=tuple(n for n, c in enumerate(stored) if c.name in have) if missing else (),
    )


def _not_stored(load: Load, source: TableFacts) -> Iterator[Finding]:
    for name in load.absent if load.data.rows else ():
        yield Finding(
            cls=FindingClass.LOST,
            object=f"column {source.qname}.{quote_ident(name)}",
            reason="not in the snapshot, for it was altered while the backup ran; its rows are loaded with NULL there",
        )


def _denied(name: str, reason: str) -> Finding:
    return Finding(cls=FindingClass.DENIED, object=name, reason=reason)
