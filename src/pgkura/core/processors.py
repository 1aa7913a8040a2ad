"""How many processors a server has, which nothing in SQL tells."""

import psutil

_SERVERS = frozenset({"postgres", "postmaster"})


def processors_of(pid: int) -> int | None:
    """Those that a server process of this machine may use, by its number; None where it runs elsewhere: on another
    machine, however near its port is, or where numbers of processes are others'."""
    try:
        process = psutil.Process(pid)
        if process.name() not in _SERVERS:
            return None
        return len(process.cpu_affinity() or ()) or None
    except (psutil.Error, AttributeError):
        return None
