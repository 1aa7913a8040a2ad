"""How much of the target's memory and processors the building of an index may use."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt

from pgkura.core.processors import processors_of
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session
from pgkura.restore.loads import Load

MIB = 1024 * 1024
LEAST, MOST = 64 * MIB, 1024 * MIB
# tuplesort.c: each run that is merged has a buffer of 32 pages and one page more. plan_create_index_workers: with less
# than _SHARE for each process, fewer take part.
_MERGE_BUFFER, _SHARE = 33 * 8192, 32 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """Settings of every connection.

    memory   bytes for building one index
    helpers  server processes beside the one that builds; None = as many as the target's own setting says
    """

    memory: int = LEAST
    helpers: int | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Statements."""
        memory = f"SET maintenance_work_mem = '{self.memory // 1024}kB'"
        if self.helpers is None:
            return (memory,)
        return (memory, f"SET max_parallel_maintenance_workers = {self.helpers}")


def building(session: Session, parallel: int, loads: Iterable[Load]) -> Building:
    """For `parallel` connections that build at a time, indexes of these tables."""
    buffers, own, workers = map(int, session.one(query("target", "building")))
    helpers = build_helpers(processors_of(session.pid), parallel, workers)
    memory = sort_memory(
        largest=max((load.data.bytes for load in loads), default=0),
        processes=1 + (workers if helpers is None else helpers),
        share=buffers // 2 // parallel,
    )
    return Building(memory=max(own, memory), helpers=helpers)


def sort_memory(*, largest: int, processes: int, share: int) -> int:
    """Bytes: as many as sort the largest table's rows in one merge, no more: memory beyond that makes nothing quicker
    (docs/decisions/0010). At most `share`, our part of what the target's owner gave its server, and a gigabyte. Pure.

    n bytes sorted in m of memory are n / m runs, whose buffers must fit into m.
    """
    return min(max(LEAST, processes * _SHARE, isqrt(largest * _MERGE_BUFFER)), share, MOST)


def build_helpers(processors: int | None, parallel: int, own: int) -> int | None:
    """Server processes beside each that builds an index, never more than the target has: with one for each processor
    that other jobs leave, nothing is quicker for more of them, and sorting costs more. None where that is not known.
    Pure."""
    return None if processors is None else min(own, max(0, processors // parallel - 1))
