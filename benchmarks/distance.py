"""A server that is far away: in a network namespace with netem, or behind a relay where the kernel has no netem."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from benchmarks.measure import run
from benchmarks.results import Wrong
from benchmarks.server import Server
from tests.support.cli import ROOT
from tests.support.cluster import free_port

SERVER, CLIENT = "kura-bench-server", "kura-bench-client"
SERVER_ADDRESS, CLIENT_ADDRESS = "10.77.0.1", "10.77.0.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How to get to the server: a prefix for commands, the address, and what it is in words.

    cpu  seconds that the way itself has taken so far from the machine that all share
    """

    prefix: tuple[str, ...]
    host: str
    port: int
    insecure: bool
    how: str
    cpu: Callable[[], float]


@contextmanager
def distance(server: Server, milliseconds: float) -> Iterator[Distance]:
    """A round trip of so many milliseconds. The server is restarted and comes back as it was."""
    if can_netem():
        with _namespaces(milliseconds):
            server.stop()
            try:
                server.start(host=SERVER_ADDRESS, prefix=_inside(SERVER))
                yield Distance(
                    prefix=_inside(CLIENT),
                    host=SERVER_ADDRESS,
                    port=server.port,
                    insecure=True,
                    how=f"netem delay {milliseconds:g} ms on a veth pair between two network namespaces",
                    cpu=lambda: 0.0,
                )
            finally:
                server.stop()
                server.start()
        return
    with relay(server.port, milliseconds / 2) as near:
        yield Distance(
            prefix=(),
            host="127.0.0.1",
            port=near.port,
            insecure=False,
            how=f"a relay that holds every byte back for {milliseconds / 2:g} ms each way (no netem here: it needs "
            "root, iproute2 and a kernel that has it); its own CPU is in no other number",
            cpu=near.cpu,
        )


def can_netem() -> bool:
    """Tried, in a namespace of our own."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        return False
    try:
        with _namespaces(1):
            return True
    except Wrong:
        return False


def _inside(name: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", name)


@contextmanager
def _namespaces(milliseconds: float) -> Iterator[None]:
    """Two namespaces joined by a veth pair; 0 milliseconds: without netem."""
    try:
        for name in (SERVER, CLIENT):
            run(["ip", "netns", "add", name])
            run([*_inside(name), "ip", "link", "set", "lo", "up"])
        run(["ip", "link", "add", "kbs0", "netns", SERVER, "type", "veth", "peer", "name", "kbc0", "netns", CLIENT])
        for name, device, address in ((SERVER, "kbs0", SERVER_ADDRESS), (CLIENT, "kbc0", CLIENT_ADDRESS)):
            run([*_inside(name), "ip", "address", "add", f"{address}/24", "dev", device])
            run([*_inside(name), "ip", "link", "set", device, "up"])
            if milliseconds:
                # Half of it in each direction; room for all that is under way, or netem would drop it.
                delay = ["netem", "delay", f"{milliseconds / 2:g}ms", "limit", "200000"]
                run([*_inside(name), "tc", "qdisc", "add", "dev", device, "root", *delay])
        yield
    finally:
        for name in (SERVER, CLIENT):
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)


@dataclass(frozen=True, slots=True)
class Relay:
    """A port of this machine that leads to another."""

    port: int
    process: psutil.Process

    def cpu(self) -> float:
        """Seconds it has taken so far."""
        return sum(self.process.cpu_times()[:2])


@contextmanager
def relay(target: int, milliseconds: float) -> Iterator[Relay]:
    """So many milliseconds away in each direction."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.relay", str(port), str(target), str(milliseconds)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise Wrong("the relay did not start")
            yield Relay(port, psutil.Process(process.pid))
        finally:
            process.kill()
