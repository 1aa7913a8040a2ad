"""Peak memory of every verb, at two sizes of the data, and of what grows with the number of chunks."""

import json
import sys

from benchmarks.bench import Bench
from benchmarks.many_chunks import STEPS
from benchmarks.measure import no_server, run
from benchmarks.results import Figure, Run, Verdict, Wrong, at_most, compared
from benchmarks.workload import one_day
from tests.support.cli import ROOT

GOAL = 150e6
CHUNKS = 1_000_000
VERBS = ("full backup", "incremental backup", "restore with proof", "verify")
MEMORY = "memory"


def figure(bench: Bench) -> Figure:
    """One run each: a peak is a peak."""
    small, large = f"at scale {bench.scale / 10:g}", f"at scale {bench.scale:g}"
    runs = [*_verbs(bench, bench.scale / 10, small), *_verbs(bench, bench.scale, large)]
    many = bench.chunks or max(1000, int(CHUNKS * min(1.0, bench.scale)))
    simulated = _many_chunks(bench, many)
    verdicts: list[Verdict] = []
    for verb in VERBS:
        name = f"{verb} {large}"
        verdicts.append(at_most(f"peak of {verb}", runs, name, _peak, goal=GOAL, unit="bytes"))
        verdicts.append(
            compared(f"growth of {verb} with ten times the data", runs, name, f"{verb} {small}", _peak, unit="bytes")
        )
    for one in simulated:
        verdicts.append(at_most(f"peak: {one.contestant}", [one], one.contestant, _peak, goal=GOAL, unit="bytes"))
    return Figure(
        name="memory",
        title="Peak memory",
        data=bench.server.facts(bench.server.source(bench.scale, bench.note)) | {"simulated_chunks": many},
        runs=[*runs, *simulated],
        verdicts=verdicts,
        checked=("the restores were proven equal, the repositories verified without a problem",),
        notes=(
            "PSS of all our processes and their children (pg_dump, pg_restore, psql too), sampled from outside",
            "simulated chunks: lists and indexes as the product writes them, of references to files that hold nothing",
        ),
    )


def _peak(run: Run) -> float:
    return float(run.peak_memory)


def _verbs(bench: Bench, scale: float, size: str) -> list[Run]:
    source = bench.server.source(scale, bench.note)
    with bench.database(MEMORY, source):
        url = bench.server.url(MEMORY)
        ours = bench.ours("memory-ours")
        told = [ours.backup(url, full=True)]
        one_day(url, seed=1)
        told.append(ours.backup(url))
    with bench.database("restored") as target:
        told.append(ours.restore(bench.server.url(target)))
    told.append(ours.run("verify", local=True))
    runs = []
    for verb, one in zip(VERBS, told, strict=True):
        own = {"peak_it_says": float(one.json.get("peak_memory_bytes", 0))}
        runs.append(one.cost.run(f"{verb} {size}", 1, more=own))
        bench.note(f"{verb} {size}: {runs[-1].peak_memory / 1e6:.0f} MB")
    return runs


def _many_chunks(bench: Bench, count: int) -> list[Run]:
    """Every step in a process of its own."""
    ours = bench.ours("memory-many")
    environment = ours.desk.environment | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    runs = []
    for step in STEPS:
        argv = [sys.executable, "-m", "benchmarks.many_chunks", step, str(count)]
        cost = run(argv, server_cpu=no_server, env=environment, cwd=ROOT)
        told = json.loads(cost.out)
        if told["chunks"] != (0 if step == "nothing" else count):
            raise Wrong(f"{step}: {told['chunks']} chunks instead of {count}")
        if step != "make":
            runs.append(cost.run(f"{count:,} chunks: {told['what']}", 1, more={"seconds": told["seconds"]}))
            bench.note(f"{runs[-1].contestant}: {cost.peak_memory / 1e6:.0f} MB, {told['seconds']:.1f} s")
    return runs
