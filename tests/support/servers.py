"""Real PostgreSQL servers for tests, one per version and session: npm packages in .parts/, Debian's, or the wheel."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.support.cluster import Cluster, start_cluster
from tests.support.nasty import remove_subscriptions

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = (14, 15, 16, 17, 18)
PASSWORD = "test-only"
SETTINGS = {
    "wal_level": "logical",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "timezone": "'UTC'",
}
ALL = os.environ.get("PGKURA_TEST_ALL") == "1"
missing: set[str] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server and its superuser."""

    version: int
    cluster: Cluster
    contrib: bool

    def url(self, database: str = "postgres", user: str = "postgres", password: str = PASSWORD) -> str:
        """A connection URL."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{login}@127.0.0.1:{self.cluster.port}/{quote(database, safe='')}"

    def create_database(self, name: str) -> str:
        """A new database (an old one of this name is dropped); returns its URL."""
        self.drop_database(name)
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Gone, with its subscriptions and connections."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if known is not None:
                remove_subscriptions(self.url(name))
                connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def needs(what: str, present: bool) -> None:
    """Skip the test with a named reason; with PGKURA_TEST_ALL=1 fail instead."""
    if present:
        return
    missing.add(what)
    if ALL:
        pytest.fail(f"{what} is missing, and PGKURA_TEST_ALL=1 allows no skip")
    pytest.skip(f"needs {what}")


@cache
def binaries(version: int) -> Path | None:
    """The server programs of a version, readable by the user the server runs as."""
    places = [
        ROOT / ".parts" / f"pg{version}" / "package" / "native" / "bin",
        Path(f"/usr/lib/postgresql/{version}/bin"),
    ]
    for place in places:
        if (place / "postgres").exists():
            return place
    return wheel_binaries(version)


@cache
def wheel_binaries(version: int) -> Path | None:
    from pgkura.programs.pgtools import wheel_folders

    name = {16: "pginstall", 18: "pginstall18"}.get(version)
    home = next((h for h in wheel_folders() if h.name == name), None)
    return home / "bin" if home else None


def versions() -> list[int]:
    """The versions this machine can run; with PGKURA_TEST_ALL=1 all of them, present or not."""
    if ALL:
        return list(VERSIONS)
    present = [v for v in VERSIONS if binaries(v) is not None]
    missing.update(f"PostgreSQL {v}" for v in VERSIONS if v not in present)
    return present


_running: dict[int, Server] = {}


def server(version: int) -> Server:
    """The session's server of this version, started when first asked for."""
    if version not in _running:
        home = binaries(version)
        needs(f"PostgreSQL {version}", home is not None)
        assert home is not None
        cluster = start_cluster(_reachable(home), superuser="postgres", password=PASSWORD, settings=SETTINGS)
        shares = (home.parent / "share", Path(f"/usr/share/postgresql/{version}"))
        share = [control for folder in shares for control in folder.glob("**/pgcrypto.control")]
        _running[version] = Server(version=version, cluster=cluster, contrib=bool(share))
    return _running[version]


def blank(version: int) -> Server:
    """A second server of this version without roles or databases of earlier tests: what a disaster leaves."""
    if version not in _blank:
        home = binaries(version)
        needs(f"PostgreSQL {version}", home is not None)
        assert home is not None
        cluster = start_cluster(_reachable(home), superuser="postgres", password=PASSWORD, settings=SETTINGS)
        _blank[version] = Server(version=version, cluster=cluster, contrib=server(version).contrib)
    made = _blank[version]
    with psycopg.connect(made.url(), autocommit=True) as connection:
        for (name,) in connection.execute("SELECT datname FROM pg_database WHERE oid >= 16384").fetchall():
            made.drop_database(str(name))
        roles = [
            str(r[0])
            for r in connection.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384 AND rolname !~ '^pg_'")
        ]
        for name in roles:
            connection.execute(SQL("DROP OWNED BY {} CASCADE").format(Identifier(name)))
        for name in roles:
            connection.execute(SQL("DROP ROLE {}").format(Identifier(name)))
    return made


_blank: dict[int, Server] = {}


def blank_as_it_is(version: int) -> Server:
    """The same server without clearing it again."""
    return _blank[version]


def newest() -> Server:
    """The newest server here."""
    return server(versions()[-1])


@cache
def _reachable(home: Path) -> Path:
    """As root the server runs as nobody, who may not enter a 0700 home: then a copy is used."""
    if os.geteuid() != 0 or all(p.stat().st_mode & 0o001 for p in [home, *home.parents]):
        return home
    copy = Path(tempfile.mkdtemp(prefix="kura-binaries-"))
    copy.chmod(0o755)
    shutil.copytree(home.parent, copy / "pg", symlinks=True)
    _copies.append(copy)
    return copy / "pg" / "bin"


_copies: list[Path] = []


def stop_all() -> None:
    """End every server that was started."""
    for one in (*_running.values(), *_blank.values()):
        one.cluster.stop()
    _running.clear()
    _blank.clear()
    for copy in _copies:
        shutil.rmtree(copy, ignore_errors=True)
