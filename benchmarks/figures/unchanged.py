"""Nothing changed since the last backup."""

from functools import partial

from benchmarks.bench import Bench, Ours
from benchmarks.measure import interleaved
from benchmarks.results import Figure, Run, compared

OURS, FULL = "pgkura backup (nothing changed)", "pgkura backup (full)"


def figure(bench: Bench) -> Figure:
    """Wall and bytes received."""
    source = bench.server.source(bench.scale, bench.note)
    url = bench.server.url(source)
    bench.server.warm(source)
    ours = bench.ours("unchanged-ours")
    ours.backup(url)
    contestants = {OURS: partial(_again, ours, url), FULL: partial(_full, bench, url)}
    runs = interleaved(contestants, bench.rounds, bench.note, again=bench.again)
    ours.prove(url)
    return Figure(
        name="unchanged",
        title="Nothing changed",
        data=bench.server.facts(source),
        runs=runs,
        verdicts=(
            compared("wall", runs, OURS, FULL, lambda r: r.wall, goal=0.12),
            compared("bytes received", runs, OURS, FULL, lambda r: r.received, goal=0.001, unit="bytes"),
            compared("bytes on the wire", runs, OURS, FULL, lambda r: r.network, unit="bytes"),
            compared("server CPU", runs, OURS, FULL, lambda r: r.server_cpu),
        ),
        checked=("the last snapshot was compared equal with the database",),
    )


def _again(ours: Ours, url: str, number: int) -> Run:
    before = ours.size
    told = ours.backup(url)
    return told.cost.run(OURS, number, size=ours.size - before, received=told.json["bytes_read"])


def _full(bench: Bench, url: str, number: int) -> Run:
    fresh = bench.ours("unchanged-full")
    told = fresh.backup(url, full=True)
    return told.cost.run(FULL, number, size=fresh.size, received=told.json["bytes_read"])
