"""One giant table behind 20 ms of latency, four connections."""

import shutil
from functools import partial

from benchmarks.bench import Bench, Ours
from benchmarks.distance import Distance, distance
from benchmarks.measure import interleaved, size
from benchmarks.peers import Dump
from benchmarks.results import Figure, Run, Wrong, at_most, compared

OURS = "pgkura backup --workers 4 (sealed)"
DUMPS = (
    Dump(name="pg_dump -Fd -j4", options=("-Fd", "-j4")),
    Dump(name="pg_dump -Fd -j4 -Z1", options=("-Fd", "-j4", "-Z1")),
)
MILLISECONDS = 20.0
_KEEP = "lms.lesson_events"


def figure(bench: Bench) -> Figure:
    """Wall."""
    giant = _giant(bench)
    bench.server.warm(giant)
    facts = bench.server.facts(giant)
    with distance(bench.server, MILLISECONDS) as way:
        contestants = {OURS: partial(_ours, bench, giant, way)}
        contestants |= {one.name: partial(_dump, bench, giant, way, one) for one in DUMPS}
        runs = interleaved(contestants, bench.rounds, bench.note, again=bench.again)
    Ours(bench.server.cpu, bench.folder / "latency-ours").prove(bench.server.url(giant))
    default, cheap = (one.name for one in DUMPS)
    return Figure(
        name="latency",
        title=f"One giant table, {MILLISECONDS:g} ms away, four connections",
        data=facts,
        runs=runs,
        verdicts=(
            compared("wall", runs, OURS, default, lambda r: r.wall, goal=0.35),
            compared("wall, against -Z1", runs, OURS, cheap, lambda r: r.wall),
            compared("CPU of client, server and the way itself", runs, OURS, default, lambda r: r.cpu + r.more["way"]),
            at_most("of it the way's", runs, OURS, lambda r: r.more["way"], goal=None, unit="s"),
        ),
        checked=("our last snapshot was compared equal with the database",),
        notes=(f"the way: {way.how}", "pg_dump reads one table through one connection, whatever -j says"),
    )


def _giant(bench: Bench) -> str:
    source = bench.server.source(bench.scale, bench.note)
    name = source.replace("source", "giant")

    def fill(url: str) -> None:
        database = bench.server.create("filling", source)
        bench.server.execute(
            "filling",
            f"""DO $$ DECLARE t record; BEGIN
                FOR t IN SELECT oid::regclass AS name FROM pg_class WHERE relkind = 'r'
                    AND relnamespace = 'lms'::regnamespace AND oid <> '{_KEEP}'::regclass
                LOOP EXECUTE format('DROP TABLE %s CASCADE', t.name); END LOOP; END $$""",
        )
        if database != url:
            raise Wrong("another database was filled")

    return bench.server.made(name, fill)


def _ours(bench: Bench, giant: str, way: Distance, number: int) -> Run:
    repository = bench.ours("latency-ours")
    url = bench.server.url(giant, host=way.host, port=way.port) + ("?sslmode=disable" if way.insecure else "")
    before = way.cpu()
    told = repository.backup(url, "--workers", "4", full=True, prefix=way.prefix, insecure=way.insecure)
    more = {"way": way.cpu() - before}
    return told.cost.run(OURS, number, size=repository.size, received=told.json["bytes_read"], more=more)


def _dump(bench: Bench, giant: str, way: Distance, one: Dump, number: int) -> Run:
    to = bench.folder / "latency-dump"
    shutil.rmtree(to, ignore_errors=True)
    url = bench.server.url(giant, host=way.host, port=way.port)
    before = way.cpu()
    cost = one.run(url, to, bench.server.cpu, prefix=way.prefix)
    made = cost.run(one.name, number, size=size(to), more={"way": way.cpu() - before})
    shutil.rmtree(to)
    return made
