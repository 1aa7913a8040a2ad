"""What the numbers were measured on."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from benchmarks.measure import run
from benchmarks.peers import newer, tool
from benchmarks.peers import version as told
from benchmarks.server import SETTINGS, Server
from tests.support.cli import ROOT


def machine() -> dict[str, Any]:
    """CPU, cores, memory, kernel, and how busy it was before we began."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def versions(server: Server) -> dict[str, str]:
    """Of everything that ran."""
    found = {
        "pgkura": f"{version('pgkura')} ({_commit()})",
        "Python": platform.python_version(),
        "PostgreSQL server": server.version(),
        "pg_dump": run([tool("pg_dump"), "--version"]).out.strip(),
        "zstd": next(iter(re.findall(r"v[\d.]+", told(["zstd", "--version"]))), ""),
        "restic": told(["restic", "version"]),
    }
    for one in newer()[:1]:
        env = {"LD_LIBRARY_PATH": one.libraries}
        found["newer pg_dump"] = run([one.program, "--version"], env=env).out.strip()
    return {name: text for name, text in found.items() if text}


def settings() -> dict[str, str]:
    """Of the server, but for its addresses."""
    return {k: v for k, v in SETTINGS.items() if not k.endswith(("addresses", "directories", "collector"))}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    if not (ROOT / ".git").exists():
        return "no commit"
    commit = told(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    dirty = told(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    return commit + (" and changes" if dirty else "")
