"""One comparison as a unit of work: references and a description, never a credential. Runs in any process.

The key of row hashes is drawn by whoever compares: both sides of a table are hashed by one worker, so it never travels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pgkura.core.access import Access
from pgkura.core.outcome import Finding
from pgkura.core.progress import Meter
from pgkura.postgres.session import Session
from pgkura.repository.rowsums import Multiset, new_key
from pgkura.verify.checks import TableCheck
from pgkura.verify.foreign_keys import ForeignKey, check_foreign_keys
from pgkura.verify.tables import Reader, TableResult, compare_tables, sum_table
from pgkura.work.station import station_for

APPLICATION = "pgkura verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckUnit:
    """Tables to compare at an exported snapshot of the target. `epoch`: that of the repository's snapshot."""

    access: Access
    snapshot: str
    epoch: int
    checks: tuple[TableCheck, ...]

    @property
    def title(self) -> str:
        """For people."""
        return _title([check.title for check in self.checks], "tables")


@dataclass(frozen=True, slots=True, kw_only=True)
class SumUnit:
    """Rows of a table, or of a range of its pages, to be added up there."""

    access: Access
    snapshot: str
    epoch: int
    check: TableCheck

    @property
    def title(self) -> str:
        """For people."""
        return self.check.title


@dataclass(frozen=True, slots=True, kw_only=True)
class SumReport:
    """What they come to; `finding` where they may not be read."""

    rows: Multiset
    finding: Finding | None
    untold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUnit:
    """Foreign keys to check there."""

    access: Access
    snapshot: str
    keys: tuple[ForeignKey, ...]

    @property
    def title(self) -> str:
        """For people."""
        return _title([key.title for key in self.keys], "keys")


def _title(titles: Sequence[str], what: str) -> str:
    return titles[0] + (f" and {len(titles) - 1} more {what}" if len(titles) > 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What became of a table; fields as in TableResult."""

    rows: int
    finding: Finding | None
    in_order: bool

    def result(self, check: TableCheck) -> TableResult:
        """With the check that only the sender keeps: it may name very many chunks."""
        return TableResult(check=check, rows=self.rows, finding=self.finding, in_order=self.in_order)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReports:
    """Of a unit, in its order. `untold`: bytes received that nobody was told of yet."""

    reports: tuple[CheckReport, ...]
    untold: int


def application_name(access: Access) -> str:
    """Of the workers' connections in one proof."""
    return f"{APPLICATION} {access.run}".strip()


def row_unit(unit: CheckUnit | SumUnit) -> CheckReports | SumReport:
    """Either of them."""
    return check_unit(unit) if isinstance(unit, CheckUnit) else sum_unit(unit)


def sum_unit(unit: SumUnit) -> SumReport:
    """Add up its rows."""
    untold = Meter()
    with _at_snapshot(unit) as session:
        rows, finding = sum_table(session, _reader(unit, untold), unit.check)
    return SumReport(rows=rows, finding=finding, untold=untold.take())


def _reader(unit: CheckUnit | SumUnit, untold: Meter) -> Reader:
    shared = station_for(unit.access).shared()
    received = shared.moved or untold.add
    return Reader(repo=shared.repo, epoch=unit.epoch, key=new_key(), stop=shared.stop, received=received)


def check_unit(unit: CheckUnit) -> CheckReports:
    """Compare its tables."""
    untold = Meter()
    with _at_snapshot(unit) as session:
        found = compare_tables(session, _reader(unit, untold), unit.checks)
    reports = tuple(CheckReport(rows=one.rows, finding=one.finding, in_order=one.in_order) for one in found)
    return CheckReports(reports=reports, untold=untold.take())


def key_unit(unit: KeyUnit) -> list[Finding]:
    """Check its foreign keys."""
    with _at_snapshot(unit) as session:
        return check_foreign_keys(session, unit.keys)


@contextmanager
def _at_snapshot(unit: CheckUnit | SumUnit | KeyUnit) -> Iterator[Session]:
    """The worker's connection in its one transaction, which sees the exported snapshot."""
    with station_for(unit.access).using(application_name(unit.access)) as session:
        if not session.in_transaction:
            session.adopt(unit.snapshot)
        yield session
