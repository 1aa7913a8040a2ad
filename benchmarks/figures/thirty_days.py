"""Thirty dailies kept: what they take, and what it costs to come back to the last one instead of the first."""

import shutil
from functools import partial

from benchmarks import peers
from benchmarks.bench import Bench, Ours
from benchmarks.census import census, same
from benchmarks.measure import interleaved, size
from benchmarks.peers import Restic
from benchmarks.results import Figure, Run, Wrong, compared, most_stolen
from benchmarks.workload import one_day

#: Of the scale asked for: thirty times everything takes long.
SHARE = 0.1
OURS, DUMPS, RESTIC = "pgkura, all days", "pg_dump -Fd -j2, all days", "restic over pg_dump -Fd -Z0, all days"
FIRST, LAST, WHOLE = "restore of the first day", "restore of the last day", "restore of a full backup of the last day"
MONTH = "thirty_days"


def figure(bench: Bench) -> Figure:
    """Sizes after the last day, then restores, interleaved."""
    source = bench.server.source(bench.scale * SHARE, bench.note)
    facts = bench.server.facts(source)
    with bench.database(MONTH, source):
        ours = bench.ours("month-ours")
        restic = Restic(bench.fresh("month-restic") / "restic") if Restic.here() else None
        if restic is not None:
            restic.init()
        sizes, ids = _month(bench, ours, restic)
        whole = bench.ours("month-whole")
        whole.backup(bench.server.url(MONTH), full=True)
        wanted = census(bench.server.url(MONTH))
        checked: dict[str, str] = {}
        contestants = {
            FIRST: partial(_restore, bench, ours, ids[0], FIRST, None, checked),
            LAST: partial(_restore, bench, ours, ids[-1], LAST, wanted, checked),
            WHOLE: partial(_restore, bench, whole, "latest", WHOLE, wanted, checked),
        }
        restores = interleaved(contestants, bench.rounds, bench.note, again=bench.again)
    verdicts = [compared("bytes kept, against dumps", sizes, OURS, DUMPS, lambda r: r.bytes, goal=0.1, unit="bytes")]
    if restic is not None:
        verdicts.append(
            compared("bytes kept, against restic", sizes, OURS, RESTIC, lambda r: r.bytes, goal=0.1, unit="bytes")
        )
    verdicts += [
        compared("wall, last day", restores, LAST, FIRST, lambda r: r.more["restore_seconds"], goal=1.15),
        compared("wall, last day", restores, LAST, WHOLE, lambda r: r.more["restore_seconds"]),
        compared("CPU with proof, last day", restores, LAST, FIRST, lambda r: r.client_cpu + r.server_cpu, goal=1.15),
    ]
    return Figure(
        name="thirty_days",
        title=f"{bench.days} dailies",
        data=facts | {"days": bench.days},
        runs=[*sizes, *restores],
        verdicts=verdicts,
        checked=("every restore was proven equal to its snapshot", *checked.values()),
        notes=(
            "every day as in the second-day figure, and as many of the oldest rows deleted as were appended, so that "
            "the last day is as large as the first; VACUUM every seventh day",
            "wall and CPU of 'all days' are sums over the days",
            "wall of the restores: their own `restore_seconds`, without proof",
            *(() if restic is not None else ("restic is not here: not measured",)),
        ),
    )


def _month(bench: Bench, ours: Ours, restic: Restic | None) -> tuple[list[Run], list[str]]:
    """One run per contestant: sums of the days' costs, and the bytes kept after the last."""
    url = bench.server.url(MONTH)
    costs: dict[str, list[Run]] = {}
    ids: list[str] = []
    dumped = 0
    dump = bench.folder / "month-dump"
    for day in range(1, bench.days + 1):
        if day > 1:
            one_day(url, seed=day, retire=True)
            if day % 7 == 0:
                bench.server.execute(MONTH, "VACUUM")
        told = ours.backup(url)
        ids.append(told.json["snapshot"])
        costs.setdefault(OURS, []).append(told.cost.run(OURS, day, size=ours.size, received=told.json["bytes_read"]))
        shutil.rmtree(dump, ignore_errors=True)
        cost = peers.GZIP.run(url, dump, bench.server.cpu)
        dumped += size(dump)
        costs.setdefault(DUMPS, []).append(cost.run(DUMPS, day, size=dumped))
        if restic is not None:
            shutil.rmtree(dump)
            raw = peers.RAW.run(url, dump, bench.server.cpu)
            added, _ = restic.backup(dump)
            costs.setdefault(RESTIC, []).append((raw + added).run(RESTIC, day, size=size(restic.folder)))
        kept = ", ".join(f"{name} {runs[-1].bytes / 1e6:.1f} MB" for name, runs in costs.items())
        bench.note(f"day {day} of {bench.days}: {kept}")
    if len(set(ids)) != bench.days:
        raise Wrong(f"{len(set(ids))} snapshots after {bench.days} days")
    return [_summed(runs) for runs in costs.values()], ids


def _summed(runs: list[Run]) -> Run:
    return Run(
        contestant=runs[0].contestant,
        round=1,
        wall=sum(r.wall for r in runs),
        client_cpu=sum(r.client_cpu for r in runs),
        server_cpu=sum(r.server_cpu for r in runs),
        bytes=runs[-1].bytes,
        received=sum(r.received for r in runs),
        network=sum(r.network for r in runs),
        peak_memory=max(r.peak_memory for r in runs),
        stolen=most_stolen(r.stolen for r in runs),
        more={f"bytes_after_day_{r.round}": float(r.bytes) for r in runs},
    )


def _restore(
    bench: Bench,
    ours: Ours,
    snapshot: str,
    name: str,
    wanted: dict[str, tuple[int, str]] | None,
    checked: dict[str, str],
    number: int,
) -> Run:
    with bench.database("restored") as database:
        bench.server.execute("postgres", "CHECKPOINT")
        told = ours.restore(bench.server.url(database), snapshot)
        if wanted is not None:
            checked[name] = same(wanted, census(bench.server.url(database)), f"the source and the {name}")
    more = {key: float(told.json[key]) for key in ("restore_seconds", "proof_seconds")}
    return told.cost.run(name, number, more=more)
