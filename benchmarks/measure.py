"""Runs one command and books what it cost: wall, CPU of client and server, memory, bytes on the loopback."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

import psutil
from benchmarks.results import Run, Wrong, most_stolen, quietest

SAMPLE_SECONDS = 0.2
#: Until the postmaster has collected its children, whose CPU then counts as its own.
SETTLE_SECONDS = 0.5
#: How long we wait before a disturbed run is measured again.
REST_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one command cost, and what it printed."""

    wall: float
    client_cpu: float
    server_cpu: float
    network: int
    peak_memory: int
    stolen: float | None
    out: str

    def __add__(self, other: "Cost") -> "Cost":
        """One after the other."""
        return Cost(
            wall=self.wall + other.wall,
            client_cpu=self.client_cpu + other.client_cpu,
            server_cpu=self.server_cpu + other.server_cpu,
            network=self.network + other.network,
            peak_memory=max(self.peak_memory, other.peak_memory),
            stolen=most_stolen((self.stolen, other.stolen)),
            out=self.out + other.out,
        )

    def run(
        self,
        contestant: str,
        number: int,
        *,
        size: int = 0,
        received: int = 0,
        more: Mapping[str, float] | None = None,
    ) -> Run:
        """As a contestant's run."""
        return Run(
            contestant=contestant,
            round=number,
            wall=self.wall,
            client_cpu=self.client_cpu,
            server_cpu=self.server_cpu,
            bytes=size,
            received=received,
            network=self.network,
            peak_memory=self.peak_memory,
            stolen=self.stolen,
            more=more or {},
        )


def no_server() -> float:
    """For commands that talk to no server."""
    return 0.0


def run(
    argv: Sequence[str],
    *,
    server_cpu: Callable[[], float] = no_server,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    codes: Sequence[int] = (0,),
) -> Cost:
    """Run a command to its end. Raises Wrong, with all it said, for another exit code than these."""
    environment = dict(env) if env is not None else {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        served, sent, processors = server_cpu(), _loopback(), psutil.cpu_times()
        begun = time.monotonic()
        child = subprocess.Popen(list(argv), env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        sampler = _Sampler(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        network = _loopback() - sent
        stolen = _stolen(processors, psutil.cpu_times())
        peak = sampler.close()
        if server_cpu is not no_server:
            time.sleep(SETTLE_SECONDS)
        cost = Cost(
            wall=wall,
            client_cpu=usage.ru_utime + usage.ru_stime,
            server_cpu=server_cpu() - served,
            network=network,
            peak_memory=peak,
            stolen=stolen,
            out=_text(out),
        )
        if child.returncode not in codes:
            raise Wrong(f"{Path(argv[0]).name} ended with {child.returncode}\n{cost.out[-2000:]}\n{_text(err)[-4000:]}")
    return cost


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _loopback() -> int:
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_recv)


def _stolen(before: Any, after: Any) -> float | None:
    """Share of all processors' time between two looks; None where the system does not tell (`steal` of /proc/stat)."""
    whole = sum(b - a for a, b in zip(before, after, strict=True))
    return (after.steal - before.steal) / whole if whole and hasattr(after, "steal") else None


class _Sampler:
    """Peak PSS of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> int:
        """The peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _run(self) -> None:
        while True:
            self._peak = max(self._peak, self._sample())
            if self._ended.wait(SAMPLE_SECONDS):
                return

    def _sample(self) -> int:
        total = 0
        try:
            family = [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return 0
        for process in family:
            try:
                total += int(process.memory_full_info().pss)
            except psutil.Error:
                continue  # ended between two looks
        return total


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def interleaved(
    contestants: Mapping[str, Callable[[int], Run]],
    rounds: int,
    note: Callable[[str], None],
    *,
    first: int = 1,
    again: int = 0,
) -> list[Run]:
    """Every contestant once in each round; each round begins with another one, what was written before is flushed.

    again: how often a run that the host disturbed is measured again, ours as theirs; 0 where it cannot be repeated
    """
    runs: list[Run] = []
    names = list(contestants)
    for number in range(first, first + rounds):
        turn = (number - 1) % len(names)
        for name in names[turn:] + names[:turn]:
            tries = [_one(contestants[name], number, note)]
            while tries[-1].disturbed and len(tries) <= again:
                note("the host gave too much of the processors to others: measured again")
                time.sleep(REST_SECONDS)
                tries.append(_one(contestants[name], number, note))
            runs.append(quietest(tries))
    return runs


def _one(contestant: Callable[[int], Run], number: int, note: Callable[[str], None]) -> Run:
    os.sync()
    done = contestant(number)
    stolen = "" if done.stolen is None else f"stolen {done.stolen:.1%}, "
    note(
        f"round {number}: {done.contestant}: {done.wall:.1f} s, CPU {done.client_cpu:.1f} + {done.server_cpu:.1f} s, "
        f"{stolen}{done.bytes / 1e6:.0f} MB, peak {done.peak_memory / 1e6:.0f} MB"
    )
    return done
