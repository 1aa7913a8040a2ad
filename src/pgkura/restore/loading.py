"""Tables loaded by several workers at once: threads, processes, or workers elsewhere."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pgkura.postgres.session import Session
from pgkura.restore.load import Loaded
from pgkura.restore.loads import Load
from pgkura.restore.run import Run
from pgkura.restore.units import LoadReport, LoadUnit, application_name, load_unit, repeatable
from pgkura.work.pools import Crew, workers
from pgkura.work.running import end_connections, end_work, run_units
from pgkura.work.station import seed


def load_all(run: Run, session: Session, loads: Sequence[tuple[Load, str]]) -> Iterator[Loaded]:
    """Results as they come, of loads with their search_path. The first error of ours stops everything.

    Workers elsewhere may vanish after they committed and before they said so: what cannot be loaded twice stays here.
    """
    if run.crew.given is None:
        yield from _load(run, run.crew, loads)
        return
    with _fenced(run, session) as fence:
        yield from _load(run, run.crew, [x for x in loads if repeatable(x[0])], fence)
    yield from _load(run, run.crew.local(), [x for x in loads if not repeatable(x[0])])


def _load(run: Run, crew: Crew, loads: Sequence[tuple[Load, str]], fence: int = 0) -> Iterator[Loaded]:
    if not loads:
        return
    units = [
        LoadUnit(access=run.access, load=load, path=path, settings=run.settings, fence=fence) for load, path in loads
    ]
    parallel = run.plan.options.parallel
    name = application_name(run.access)
    seed(run.access, run.repo, stop=run.stop)
    with workers(
        crew.else_threads(),
        run.access,
        count=parallel,
        data_bytes=sum(load.data.bytes for load, _ in loads),
        abort=lambda: end_work(run.access, run.endpoint, name, run.stop),
    ) as pool:
        for unit, report in run_units(pool, load_unit, units, at_once=parallel, stop=run.stop):
            run.progress.advance(unit.load.data.bytes)
            yield _loaded(unit, report)


def _loaded(unit: LoadUnit, report: LoadReport) -> Loaded:
    return Loaded(load=unit.load, rows=report.rows, finding=report.finding, by_path=report.by_path)


@contextmanager
def _fenced(run: Run, session: Session) -> Iterator[int]:
    """While inside, workers elsewhere may write; afterwards none can, not even one that was given up for lost."""
    fence = secrets.randbits(62) + 1
    session.one("SELECT pg_catalog.pg_advisory_lock(%s)", (fence,))
    try:
        yield fence
    finally:
        if not session.broken:
            session.one("SELECT pg_catalog.pg_advisory_unlock(%s)", (fence,))
        end_connections(run.endpoint, application_name(run.access))
