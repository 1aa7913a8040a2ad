"""The second day: what an incremental backup receives, stores and costs, against a full one and against restic."""

import shutil
from functools import partial

from benchmarks import peers
from benchmarks.bench import Bench, Ours
from benchmarks.measure import Cost, interleaved, size
from benchmarks.peers import Restic
from benchmarks.results import Figure, Run, Wrong, compared
from benchmarks.workload import one_day

OURS, FULL, RESTIC = "pgkura backup (incremental)", "pgkura backup (full, same day)", "pg_dump -Fd -Z0, restic"
DAY = "second_day"


def figure(bench: Bench) -> Figure:
    """Each round is a second day of its own, begun from the same first day."""
    source = bench.server.source(bench.scale, bench.note)
    first = _first_day_of_restic(bench, source)
    runs: list[Run] = []
    changed: dict[str, int] = {}
    for number in range(1, bench.rounds + 1):
        with bench.database(DAY, source):
            ours = bench.ours("day-ours")
            ours.backup(bench.server.url(DAY))
            changed = one_day(bench.server.url(DAY), seed=number)
            bench.server.warm(DAY)
            contestants = {OURS: partial(_incremental, bench, ours), FULL: partial(_full, bench)}
            if first is not None:
                contestants[RESTIC] = partial(_restic, bench, first)
            runs += interleaved(contestants, 1, bench.note, first=number)
            ours.prove(bench.server.url(DAY))
    verdicts = [
        compared("bytes received", runs, OURS, FULL, lambda r: r.received, goal=0.08, unit="bytes"),
        compared("bytes on the wire", runs, OURS, FULL, lambda r: r.network, unit="bytes"),
        compared("wall", runs, OURS, FULL, lambda r: r.wall, goal=0.35),
        compared("server CPU", runs, OURS, FULL, lambda r: r.server_cpu, goal=0.35),
        compared("bytes stored, against a full backup", runs, OURS, FULL, lambda r: r.bytes, unit="bytes"),
    ]
    if first is not None:
        verdicts.insert(2, compared("bytes stored", runs, OURS, RESTIC, lambda r: r.bytes, goal=0.05, unit="bytes"))
    return Figure(
        name="second_day",
        title="The second day",
        data=bench.server.facts(source) | {"changed": changed},
        runs=runs,
        verdicts=verdicts,
        checked=("after every incremental backup the database was compared equal with the snapshot",),
        notes=(
            "1 % appended, 0.5 % updated at random, 30 % of the newest 2 % updated, 0.02 % deleted; no VACUUM between",
            "bytes stored: by how much the repository's folder grew",
            *(() if first is not None else ("restic is not here: not measured",)),
        ),
    )


def _first_day_of_restic(bench: Bench, source: str) -> Restic | None:
    if not Restic.here():
        return None
    restic = Restic(bench.fresh("day-restic-first") / "restic")
    restic.init()
    _dump(bench, source)
    restic.backup(bench.folder / "day-dump")
    return restic


def _dump(bench: Bench, database: str) -> Cost:
    shutil.rmtree(bench.folder / "day-dump", ignore_errors=True)
    return peers.RAW.run(bench.server.url(database), bench.folder / "day-dump", bench.server.cpu)


def _incremental(bench: Bench, ours: Ours, number: int) -> Run:
    before = ours.size
    told = ours.backup(bench.server.url(DAY))
    return told.cost.run(OURS, number, size=ours.size - before, received=told.json["bytes_read"])


def _full(bench: Bench, number: int) -> Run:
    fresh = bench.ours("day-full")
    told = fresh.backup(bench.server.url(DAY), full=True)
    return told.cost.run(FULL, number, size=fresh.size, received=told.json["bytes_read"])


def _restic(bench: Bench, first: Restic, number: int) -> Run:
    folder = bench.fresh("day-restic") / "restic"
    shutil.copytree(first.folder, folder)
    before = size(folder)
    dumped = _dump(bench, DAY)
    cost, summary = Restic(folder).backup(bench.folder / "day-dump")
    added = size(folder) - before
    if added <= 0:
        raise Wrong("restic added nothing")
    both = (dumped + cost).run(RESTIC, number, size=added, more={"data_added": float(summary["data_added"])})
    shutil.rmtree(folder)
    return both
