"""Which rows of a database must equal which chunks of a snapshot. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pgkura.core.facts import SourceFacts, TableFacts
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.platform import Platform
from pgkura.core.refs import Layer
from pgkura.postgres.facts import blobs_sql
from pgkura.repository.cuts import Cuts
from pgkura.repository.lists import BLOBS, TableData
from pgkura.repository.sums import Seen, Sums

LARGE_OBJECTS = "large objects"
# Their rows are compared as what they mean (verify/states.py): secrets are sealed anew, jobs get new numbers.
_AS_STATES = frozenset({("vault", "secrets"), ("cron", "job"), ("cron", "job_run_details")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Stored rows and the places of the compared columns in them, () = as they are.

    cuts  what the restore before this proof saw of them; sums: the same of a table that it loaded in parts
    """

    layers: Collection[Layer]
    keep: tuple[int, ...] = ()
    cuts: Cuts | None = None
    sums: Sums | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """What to compare: the relations whose rows together must equal the parts' rows.

    relations  one table, or the leaves of a partition tree that was loaded through its root; none for large objects
    columns    those compared, () for a table without columns
    where      an extension's condition on its configuration table
    binary     rows are stored, and compared, in binary form
    select     a query instead (large objects); numbers: the stored rows it is compared with, None = all
    draw       of the restore that made the parts' sums (Repository.row_key)
    """

    name: str
    relations: tuple[QualifiedName, ...]
    columns: tuple[str, ...]
    parts: tuple[Part, ...]
    rows: int
    bytes: int
    where: str = ""
    select: str = ""
    binary: bool = False
    numbers: frozenset[int] | None = None
    draw: str = ""

    @property
    def title(self) -> str:
        """As findings name it."""
        return "contents of large objects" if self.name == LARGE_OBJECTS else f"rows of {self.name}"

    @property
    def in_one_stream(self) -> bool:
        """Whether equal order can be hoped for: one relation, every stored byte compared, not loaded in parts."""
        whole = len(self.parts) == 1 and not self.parts[0].keep and self.numbers is None and not self.draw
        return whole and len(self.relations) <= 1


def plan_checks(
    facts: SourceFacts,
    data: Iterable[TableData],
    there: SourceFacts,
    platform: Platform,
    seen: Seen | None = None,
) -> tuple[list[TableCheck], list[Finding]]:
    """What to compare, largest first, and a finding for what cannot be. `platform` is the target's."""
    tables = {t.qname: t for t in there.tables}
    checks: list[TableCheck] = []
    findings: list[Finding] = []
    roots: dict[str, list[TableData]] = {}
    for table in data:
        if table.number == BLOBS:
            checks += _blob_checks(table, facts, there)
            continue
        source = facts.tables[table.number]
        if source.kind == "p":
            continue  # no rows of its own; older chunk lists name one whose lock gave way
        target = tables.get(source.qname)
        stored = _stored(table, source)
        if (source.schema, source.name) in platform.service_tables:
            findings += _service_rows(table, source)
        elif _is_state(source, facts, platform):
            continue
        elif target is None:
            findings.append(_finding(FindingClass.LOST, source, "the table is missing"))
        elif not target.readable:
            findings.append(_finding(FindingClass.DENIED, source, "no right to read it"))
        elif stored and not _shared(stored, _names(target)):
            findings.append(_finding(FindingClass.LOST, source, "the table has none of its columns"))
        elif source.load_root:
            roots.setdefault(source.load_root, []).append(table)
        else:
            checks.append(_check(table, source, target, seen))
    checks += [_root_check(root, parts, facts, tables) for root, parts in roots.items()]
    return sorted(checks, key=lambda c: -c.bytes), findings


def _is_state(source: TableFacts, facts: SourceFacts, platform: Platform) -> bool:
    name = (source.schema, source.name)
    return name in (_AS_STATES if platform.name != "plain" else facts.by_function)


def _finding(cls: FindingClass, source: TableFacts, reason: str) -> Finding:
    return Finding(cls=cls, object=f"rows of {source.qname}", reason=reason)


def _service_rows(data: TableData, source: TableFacts) -> list[Finding]:
    if not data.rows:
        return []
    name = f"rows of {source.qname}"
    return [Finding(cls=FindingClass.MANAGED, object=name, reason="the platform's own ledger", rule="platform-rows")]


def _stored(data: TableData, source: TableFacts) -> tuple[str, ...]:
    """The columns of the stored rows; the backup has reported those that it could not store."""
    return tuple(c.name for c in source.listed(data.columns))


def _names(target: TableFacts) -> frozenset[str]:
    return frozenset(c.name for c in target.data_columns)


def _shared(stored: Sequence[str], *others: Collection[str]) -> tuple[str, ...]:
    """The stored columns that all others have; the catalog comparison reports those that a target lacks."""
    return tuple(name for name in stored if all(name in names for names in others))


def _places(stored: Sequence[str], columns: Sequence[str]) -> tuple[int, ...]:
    """Where `columns` lie in the stored rows; () when they are exactly their columns in their order."""
    return () if list(columns) == list(stored) else tuple(stored.index(name) for name in columns)


def _check(data: TableData, source: TableFacts, target: TableFacts, seen: Seen | None) -> TableCheck:
    stored = _stored(data, source)
    columns = _shared(stored, _names(target))
    keep = _places(stored, columns)
    cuts = seen.cuts.of(data.number) if seen is not None else None
    sums = seen.sums.get(data.number) if seen is not None and not keep else None
    return TableCheck(
        name=str(source.qname),
        relations=(source.qname,),
        columns=columns,
        parts=(Part(layers=data.layers, keep=keep, cuts=cuts, sums=sums),),
        rows=data.rows,
        bytes=data.bytes,
        where=source.config_where if source.config_of else "",
        binary=data.binary,
        draw=seen.draw if seen is not None and sums is not None else "",
    )


def _root_check(
    root: str, parts: Sequence[TableData], facts: SourceFacts, tables: Mapping[QualifiedName, TableFacts]
) -> TableCheck:
    """All leaves together: which leaf a row lies in may differ, and each leaf may order its columns in its own way."""
    schema, _, name = root.partition("\0")
    sources = [facts.tables[p.number] for p in parts]
    stored = [_stored(p, s) for p, s in zip(parts, sources, strict=True)]
    columns = _shared(stored[0], *stored[1:], *(_names(tables[s.qname]) for s in sources))
    return TableCheck(
        name=str(QualifiedName(schema, name)),
        relations=tuple(s.qname for s in sources),
        columns=columns,
        parts=tuple(Part(layers=p.layers, keep=_places(s, columns)) for p, s in zip(parts, stored, strict=True)),
        rows=sum(p.rows for p in parts),
        bytes=sum(p.bytes for p in parts),
    )


def _blob_checks(data: TableData, facts: SourceFacts, there: SourceFacts) -> list[TableCheck]:
    """Contents of the large objects that both have; the others are reported as such."""
    present = {o.oid for o in there.large_objects}
    wanted = [o.oid for o in facts.large_objects]
    both = [oid for oid in wanted if oid in present]
    if not both:
        return []
    check = TableCheck(
        name=LARGE_OBJECTS,
        relations=(),
        columns=(),
        parts=(Part(layers=data.layers),),
        rows=data.rows,
        bytes=data.bytes,
        select=blobs_sql(both),
        numbers=None if len(both) == len(wanted) else frozenset(both),
    )
    return [check]
