"""Us and the peers side by side on the same data, interleaved: medians, ratios, and the goals.

    python -m benchmarks                       every figure at scale 1 (3 GB of COPY text), 3 rounds: hours
    python -m benchmarks full restore --rounds 5 --keep-data /var/tmp/pgkura-data
    python -m benchmarks --scale 0.1 --rounds 1
    python -m benchmarks table results.json    docs/benchmarks.md from the results

Needs PostgreSQL 15's server programs and clients; restic, zstd and the wheel of benchmarks/requirements.txt for peers.
Results are written after every figure. Run it on a quiet machine.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
from benchmarks.bench import Bench, say
from benchmarks.figures import (
    encrypted,
    full,
    hash_rows,
    latency,
    memory,
    one_table,
    replay,
    restore,
    rpo,
    second_day,
    thirty_days,
    tiny,
    unchanged,
    watch_overhead,
)
from benchmarks.machine import machine, settings, versions
from benchmarks.results import Figure, Wrong
from benchmarks.server import VERSION, Server, programs
from benchmarks.table import figure_lines, write_page

FIGURES: dict[str, Callable[[Bench], Figure]] = {
    "full": full.figure,
    "encrypted": encrypted.figure,
    "latency": latency.figure,
    "restore": restore.figure,
    "one-table": one_table.figure,
    "second-day": second_day.figure,
    "unchanged": unchanged.figure,
    "thirty-days": thirty_days.figure,
    "memory": memory.figure,
    "tiny": tiny.figure,
    "hash-rows": hash_rows.figure,
    "watch-overhead": watch_overhead.figure,
    "rpo": rpo.figure,
    "replay": replay.figure,
}


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["table"]:
        parser = argparse.ArgumentParser(prog="benchmarks table", description="Write the page from result files.")
        parser.add_argument("results", nargs="+", type=Path, help="of the same figure the last one counts")
        parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"))
        chosen = parser.parse_args(sys.argv[2:])
        chosen.out.write_text(write_page([json.loads(path.read_text()) for path in chosen.results]))
        return
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure figures; `table` writes the page.")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; none: all")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 3 GB of COPY text")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs of every contestant")
    parser.add_argument("--days", type=int, default=30, help="of the figure thirty-days")
    parser.add_argument("--chunks", type=int, default=0, help="simulated by the figure memory; 0: a million × scale")
    parser.add_argument("--again", type=int, default=3, help="times a run is repeated whose processors the host took")
    parser.add_argument("--keep-data", type=Path, help="folder of the filled cluster, made or used again")
    parser.add_argument("--out", type=Path, default=Path("results.json"), help="the result file")
    given = parser.parse_args()
    wrong = [name for name in given.figures if name not in FIGURES]
    if wrong:
        parser.error(f"no figure {', '.join(wrong)}; there are {', '.join(FIGURES)}")
    names = given.figures or list(FIGURES)
    asked = {name: getattr(given, name) for name in ("scale", "rounds", "days", "chunks", "again")}
    sys.exit(measure(names, asked, given.keep_data, given.out))


def measure(names: Sequence[str], asked: Mapping[str, Any], keep: Path | None, out: Path) -> int:
    """Run figures one after the other; 1 when one of them failed."""
    home = programs()
    if home is None:
        sys.exit(f"no PostgreSQL {VERSION} server here")
    folder = Path(tempfile.mkdtemp(prefix="kura-bench-"))
    folder.chmod(0o755)  # the server's own user must reach its data
    failed: list[str] = []
    try:
        server = Server(home, (keep or folder / "data").resolve())
        told = {
            "format": 1,
            "machine": machine(),
            "scale": asked["scale"],
            "rounds": asked["rounds"],
            "settings": settings(),
        }
        figures: list[Figure] = []
        try:
            server.start()
            told["versions"] = versions(server)
            bench = Bench(server=server, folder=folder, **asked)
            for name in names:
                say(f"== {name}")
                try:
                    figures.append(FIGURES[name](bench))
                except (Wrong, psycopg.Error, psutil.Error, OSError, AssertionError) as error:
                    failed.append(name)
                    figures.append(Figure(name=name, title=name, skipped=f"failed: {error}"))
                say("\n".join(figure_lines(figures[-1].as_json())))
                out.write_text(json.dumps(told | {"figures": [f.as_json() for f in figures]}, indent=1) + "\n")
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say(f"results: {out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    main()
