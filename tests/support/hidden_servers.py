"""A pytest plugin (`-p tests.support.hidden_servers`) for a machine without PostgreSQL 14 and 17."""

from pathlib import Path

from tests.support import servers

_real = servers.binaries


def _hidden(version: int) -> Path | None:
    return None if version in (14, 17) else _real(version)


servers.binaries = _hidden  # type: ignore[assignment]
