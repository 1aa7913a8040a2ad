"""A large table whose stored rows are added up already is compared in ranges of its pages: sums know no order. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pgkura.core.facts import TableFacts
from pgkura.repository.rowsums import Multiset
from pgkura.verify.checks import TableCheck

# Plain bytes of a range, or so.
RANGE_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """A check, the sums its rows must have, and the checks of its ranges, which say nothing of what is stored."""

    check: TableCheck
    want: Multiset
    pieces: tuple[TableCheck, ...]


def ranges(check: TableCheck, target: TableFacts | None) -> Ranges | None:
    """None: the table is compared as a whole. `target`: the table, where a query on it may be planned."""
    sums = check.parts[0].sums if len(check.parts) == 1 else None
    if target is None or sums is None or sum(sums.covered.values()) != len(check.parts[0].layers):
        return None
    count = min(check.bytes // RANGE_BYTES, target.pages)
    if count < 2 or not check.columns:
        return None
    bounds = [target.pages * n // count for n in range(count)]
    bare = replace(check, parts=(), bytes=check.bytes // count)
    return Ranges(
        check=check,
        want=sums.rows,
        pieces=tuple(replace(bare, where=f"WHERE {where}") for where in _conditions(bounds)),
    )


def _conditions(bounds: Sequence[int]) -> Iterator[str]:
    """All pages from the first bound on: the last range has no end."""
    for start, end in zip(bounds, (*bounds[1:], None), strict=True):
        from_start = f"ctid >= '({start},0)'::pg_catalog.tid"
        yield from_start if end is None else f"{from_start} AND ctid < '({end},0)'::pg_catalog.tid"
