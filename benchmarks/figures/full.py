"""A full backup, sealed, against every way of pg_dump that compresses; raw pg_dump is told beside them."""

import shutil
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.floor import PACKED, READ, floor, scripts
from benchmarks.measure import interleaved, size
from benchmarks.peers import Dump
from benchmarks.results import Figure, Run, Wrong, compared

OURS = "pgkura backup --full (sealed)"


def figure(bench: Bench) -> Figure:
    """Wall, CPU, bytes and memory."""
    source = bench.server.source(bench.scale, bench.note)
    url = bench.server.url(source)
    bench.server.warm(source)
    facts = bench.server.facts(source)

    def ours(number: int) -> Run:
        repository = bench.ours("full-ours")
        told = repository.backup(url, full=True)
        if told.json["tables"] != facts["tables"]:
            raise Wrong(f"{told.json['tables']} tables in the backup, {facts['tables']} in the database")
        if number == bench.rounds:
            repository.prove(url)
        return told.cost.run(OURS, number, size=repository.size, received=told.json["bytes_read"])

    def dump(one: Dump, number: int) -> Run:
        to = bench.folder / "full-dump"
        _remove(to)
        cost = one.run(url, to, bench.server.cpu)
        if one.entries(to) != facts["tables"]:
            raise Wrong(f"{one.name} holds {one.entries(to)} tables, the database {facts['tables']}")
        made = cost.run(one.name, number, size=size(to) if to.is_dir() else to.stat().st_size)
        _remove(to)
        return made

    best = [peers.GZIP_1, *peers.piped(), *peers.newer()]
    dumps = {one.name: partial(dump, one) for one in (peers.GZIP, *best, peers.RAW)}
    statements = scripts(url)

    def least(packed: bool, number: int) -> Run:
        return floor(url, statements, bench.server.cpu, packed=packed).run(PACKED if packed else READ, number)

    floors = {READ: partial(least, False), **({PACKED: partial(least, True)} if peers.piped() else {})}
    runs = interleaved({OURS: ours, **dumps, **floors}, bench.rounds, bench.note, again=bench.again)
    names = [one.name for one in best]
    return Figure(
        name="full",
        title="Full backup",
        data=facts,
        runs=runs,
        verdicts=(
            compared("wall, against the default", runs, OURS, peers.GZIP.name, lambda r: r.wall, goal=0.3),
            compared("wall, against the best", runs, OURS, names, lambda r: r.wall, goal=0.65),
            compared("CPU of client and server, against the best", runs, OURS, names, lambda r: r.cpu, goal=0.65),
            *(compared(f"{one}: CPU, against the best", runs, one, names, lambda r: r.cpu) for one in floors),
            *(compared(f"CPU of ours, against {one}", runs, OURS, one, lambda r: r.cpu) for one in floors),
            compared("wall, against uncompressed", runs, OURS, peers.RAW.name, lambda r: r.wall),
            compared("bytes stored, against the default", runs, OURS, peers.GZIP.name, _bytes, unit="bytes"),
        ),
        checked=(f"our last snapshot was compared equal with the database; every dump names {facts['tables']} tables",),
        notes=(
            "every contestant but the pipes flushes what it wrote to the disk",
            "a floor is no backup: nothing is locked, compared, sealed, hashed or written; it is what is left to gain",
            "moonshot: 0.22 of the default's wall",
            *peers.missing(),
        ),
    )


def _bytes(run: Run) -> float:
    return float(run.bytes)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
