"""Restore into an empty database, every object counted, against pg_restore as it comes and tuned."""

from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.bench import Bench, Ours
from benchmarks.census import census, same
from benchmarks.measure import interleaved
from benchmarks.results import Figure, Run, compared

OURS = "pgkura restore, without its proof"
DEFAULT = "pg_restore -j2"
TUNED = {
    "pg_restore -j2, tuned": (2, peers.TUNED),
    "pg_restore -j2, tuned, less memory": (2, peers.LEAN),
    "pg_restore -j4, tuned, less memory": (4, peers.LEAN),
}
Census = dict[str, tuple[int, str]]


def figure(bench: Bench) -> Figure:
    """Wall of the load, and of the proof beside it."""
    source = bench.server.source(bench.scale, bench.note)
    url = bench.server.url(source)
    wanted = census(url)
    repository = bench.ours("restore-ours")
    repository.backup(url, full=True)
    archive = bench.fresh("restore-dump") / "dump"
    peers.GZIP.run(url, archive, bench.server.cpu)
    bench.note("a first restore, which is not counted")
    with bench.database("restored") as warming:
        peers.restore(archive, bench.server.url(warming), 2, bench.server.cpu, options=peers.LEAN)
    checked: dict[str, str] = {}
    contestants = {OURS: partial(_ours, bench, repository, wanted, checked)}
    for name, (jobs, options) in {DEFAULT: (2, ""), **TUNED}.items():
        contestants[name] = partial(_theirs, bench, repository, archive, wanted, checked, name, jobs, options)
    runs = interleaved(contestants, bench.rounds, bench.note, again=bench.again)
    return Figure(
        name="restore",
        title="Restore into an empty database",
        data=bench.server.facts(source),
        runs=runs,
        verdicts=(
            compared("wall, against the default", runs, OURS, DEFAULT, lambda r: r.wall, goal=0.72),
            compared("wall, against the best tuned", runs, OURS, list(TUNED), lambda r: r.wall, goal=0.75),
            compared(
                "wall, against the default and statistics as we leave them",
                runs,
                OURS,
                DEFAULT,
                lambda r: r.wall,
                peer_value=lambda r: r.wall + r.more["analyze_wall"],
            ),
            compared("server CPU, against the best tuned", runs, OURS, list(TUNED), lambda r: r.server_cpu),
            compared(
                "proof, against our own restore",
                runs,
                OURS,
                OURS,
                lambda r: r.more["proof_seconds"],
                goal=0.5,
                peer_value=lambda r: r.wall,
            ),
        ),
        checked=tuple(checked.values()),
        notes=(
            "our wall is the whole command's without the seconds of its proof; CPU is of both together",
            "ours leaves the tables analyzed, pg_restore does not: the line that says so adds `vacuumdb -Z -j2` to it",
            f"tuned: PGOPTIONS {peers.TUNED!r}",
            f"tuned, less memory: PGOPTIONS {peers.LEAN!r}",
            "max_wal_size and shared_buffers are large for all",
            "one restore by pg_restore comes first, not counted: it touches the buffers of a server just started",
            "moonshot: 0.6 of the best tuned",
        ),
    )


def _ours(bench: Bench, repository: Ours, wanted: Census, checked: dict[str, str], number: int) -> Run:
    with bench.database("restored") as name:
        bench.server.execute("postgres", "CHECKPOINT")
        told = repository.restore(bench.server.url(name))
        checked[OURS] = same(wanted, census(bench.server.url(name)), "the source and our restore")
        proof = float(told.json["proof_seconds"])
        whole = told.cost.run(OURS, number, more={"proof_seconds": proof, "whole_seconds": told.cost.wall})
    return Run(
        contestant=OURS,
        round=number,
        wall=whole.wall - proof,
        client_cpu=whole.client_cpu,
        server_cpu=whole.server_cpu,
        network=whole.network,
        peak_memory=whole.peak_memory,
        stolen=whole.stolen,
        more=whole.more,
    )


def _theirs(
    bench: Bench,
    repository: Ours,
    archive: Path,
    wanted: Census,
    checked: dict[str, str],
    name: str,
    jobs: int,
    options: str,
    number: int,
) -> Run:
    with bench.database("restored") as database:
        bench.server.execute("postgres", "CHECKPOINT")
        cost = peers.restore(archive, bench.server.url(database), jobs, bench.server.cpu, options=options)
        more = {}
        if name == DEFAULT:
            more["analyze_wall"] = peers.analyze(bench.server.url(database), jobs, bench.server.cpu).wall
        checked[name] = same(wanted, census(bench.server.url(database)), f"the source and {name}")
        if name == DEFAULT and number == bench.rounds:
            repository.prove(bench.server.url(database))  # rows, too, by the same proof as ours
    return cost.run(name, number, more=more)
