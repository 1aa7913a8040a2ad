"""The benchmark's own PostgreSQL cluster, kept in a folder between runs since filling it takes minutes."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import psycopg
from benchmarks.data import generate
from benchmarks.results import Wrong
from psycopg.sql import SQL, Identifier
from tests.support.cluster import free_port
from tests.support.servers import PASSWORD, binaries

VERSION = 15
#: Durable, with room enough that no peer waits for memory or checkpoints; no vacuum at a moment of its own choosing.
SETTINGS = {
    "fsync": "on",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "wal_level": "logical",
    "max_connections": "60",
    "autovacuum": "off",
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "logging_collector": "off",
}
_HBA = "host all all 127.0.0.1/32 scram-sha-256\nhost all all 10.77.0.0/24 scram-sha-256\n"


def programs() -> Path | None:
    """Debian's server programs, else any of this version."""
    debian = Path(f"/usr/lib/postgresql/{VERSION}/bin")
    return debian if (debian / "postgres").exists() else binaries(VERSION)


class Server:
    """A cluster in `folder`, made if it is not there. Databases once filled are found again."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._home = home
        self._data = folder / f"cluster-{VERSION}"
        self._log = self._data / "server.log"
        self._host = "127.0.0.1"
        self._port = 0
        self._postmaster: psutil.Process | None = None
        if not (self._data / "PG_VERSION").exists():
            self._make(folder)

    def _make(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        self._data.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody")
            for path in (secret, self._data):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        initdb = [str(self._home / "initdb"), "-D", str(self._data), "-U", "postgres", "-E", "UTF8", "--no-sync"]
        self._as_owner([*initdb, "--locale=C.UTF-8", "-A", "scram-sha-256", f"--pwfile={secret}"])
        secret.unlink()
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write("include_if_exists = 'benchmark.conf'\n")
        (self._data / "pg_hba.conf").write_text(_HBA)

    def cold_copy(self, folder: Path) -> "Server":
        """Another cluster with the same content; this one must be stopped."""
        shutil.copytree(self._data, folder / self._data.name, copy_function=shutil.copy2, symlinks=True)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody")
            folder.chmod(0o755)
            for path in (folder / self._data.name, *(folder / self._data.name).rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        return Server(self._home, folder)

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self._data

    def said(self) -> str:
        """Its log so far."""
        return self._log.read_text(errors="replace")

    def program(self, name: str) -> str:
        """One of the programs that came with it."""
        return str(self._home / name)

    # -- start and stop

    def start(
        self, settings: Mapping[str, str] | None = None, *, host: str = "127.0.0.1", prefix: Sequence[str] = ()
    ) -> None:
        """Start it, with other settings for a while, on another address, or under another command."""
        self._host, self._port = host, free_port()
        lines = SETTINGS | {"port": str(self._port), "listen_addresses": f"'{host}'"} | dict(settings or {})
        (self._data / "benchmark.conf").write_text("".join(f"{k} = {v}\n" for k, v in lines.items()))
        ctl = [str(self._home / "pg_ctl"), "-D", str(self._data), "-w", "-t", "600", "-l", str(self._log), "start"]
        self._as_owner(ctl, prefix)
        self._postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))

    def stop(self) -> None:
        """Stop it, all written out; safe to call again."""
        self._postmaster = None
        if (self._data / "postmaster.pid").exists():
            self._as_owner([str(self._home / "pg_ctl"), "-D", str(self._data), "-m", "fast", "-w", "-t", "600", "stop"])

    def _as_owner(self, argv: Sequence[str], prefix: Sequence[str] = ()) -> None:
        """PostgreSQL refuses root: then it runs as `nobody`."""
        owner = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        environment = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "LD_LIBRARY_PATH": str(self._home.parent / "lib"),
        }
        with tempfile.TemporaryFile() as output:
            # a file, not a pipe: the started server keeps it open
            done = subprocess.run(
                [*prefix, *owner, *argv], env=environment, cwd="/", check=False,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            output.seek(0)
            if done.returncode != 0:
                raise Wrong(f"{Path(argv[0]).name} failed: {output.read().decode(errors='replace')[-3000:]}")

    # -- looking

    def url(self, database: str, *, host: str = "", port: int = 0) -> str:
        """A connection URL."""
        return f"postgresql://postgres:{PASSWORD}@{host or self._host}:{port or self._port}/{database}"

    @property
    def port(self) -> int:
        """Where it listens now."""
        return self._port

    def cpu(self) -> float:
        """Seconds of the postmaster, of what it has collected, and of its living children."""
        if self._postmaster is None:
            raise Wrong("the server is not running")
        while True:
            living = self._postmaster.children()
            try:
                times = [p.cpu_times() for p in living]
            except psutil.NoSuchProcess:
                continue  # ended between two looks: now it is among what was collected
            own = self._postmaster.cpu_times()
            collected = own.user + own.system + own.children_user + own.children_system
            return float(collected + sum(c.user + c.system for c in times))

    def version(self) -> str:
        """As the server tells it."""
        return str(self.value("postgres", "SHOW server_version"))

    def value(self, database: str, sql: str) -> object:
        """The first column of the first row."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            row = connection.execute(sql.encode()).fetchone()
        return row[0] if row else None

    def execute(self, database: str, *statements: str) -> None:
        """Statements, each a transaction of its own."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for sql in statements:
                connection.execute(sql.encode())

    # -- databases

    def create(self, name: str, template: str = "template0") -> str:
        """A new database (an old one of this name is dropped); returns its URL."""
        self.drop(name)
        # By copying files: no WAL of the whole copy.
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(Identifier(name), Identifier(template))
            )
        return self.url(name)

    def drop(self, name: str) -> None:
        """Gone, with its connections."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))

    def made(self, name: str, fill: Callable[[str], None]) -> str:
        """The name of a database that `fill` filled now or in an earlier run; a half-filled one is never taken."""
        if self.value("postgres", f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == 0:
            fill(self.create("filling"))
            self.execute("filling", "VACUUM (ANALYZE, FREEZE)", "CHECKPOINT")
            self.execute("postgres", f'ALTER DATABASE filling RENAME TO "{name}"')
        return name

    def source(self, scale: float, note: Callable[[str], None]) -> str:
        """The learning platform of this size."""
        name = f"source_{scale:g}".replace(".", "_").replace("-", "m")

        def fill(url: str) -> None:
            note(f"filling {name} …")
            generate(url, scale=scale, note=note)

        return self.made(name, fill)

    def warm(self, database: str) -> None:
        """Everything into the page cache and all hint bits set, so that no contestant pays for being first."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            tables = connection.execute(
                "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                "WHERE relkind = 'r' AND nspname !~ '^(pg_|information_schema)'"
            ).fetchall()
            for (table,) in tables:
                connection.execute(f"SELECT count(*) FROM {table}".encode())
            connection.execute("CHECKPOINT")
        folder = (
            self._data
            / "base"
            / str(self.value("postgres", f"SELECT oid FROM pg_database WHERE datname = '{database}'"))
        )
        for file in folder.iterdir():
            with file.open("rb") as stream:
                while stream.read(1 << 22):
                    pass

    def facts(self, database: str) -> dict[str, object]:
        """Tables, rows and bytes, for the record."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE relkind = 'r'), count(*) FILTER (WHERE relkind = 'i'), "
                "sum(reltuples) FILTER (WHERE relkind = 'r' AND reltuples > 0)::bigint, "
                "pg_database_size(current_database()) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                "WHERE nspname !~ '^(pg_|information_schema)'"
            ).fetchone()
        assert row is not None
        return {"tables": row[0], "indexes": row[1], "rows": int(row[2] or 0), "bytes_on_disk": row[3]}
