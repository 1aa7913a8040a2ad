"""One private PostgreSQL cluster: initdb, start, stop. For fixtures that need their own superuser or pg_hba.conf.

PostgreSQL refuses root, so as root the server runs as `nobody` with its files in a folder of its own.
"""

import atexit
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.psql import FixtureError

_HBA = """\
# as on a hosted project: `all` does not match physical replication
local all all trust
host all all 127.0.0.1/32 {method}
host all all ::1/128 {method}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running server on a loopback port."""

    folder: Path
    binaries: Path
    port: int
    superuser: str

    def log(self) -> str:
        """What the server has written so far."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Stop at once and remove its files; safe to call again."""
        if (self.folder / "data" / "postmaster.pid").exists():
            run_as_server([str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-m", "immediate", "stop"])
        shutil.rmtree(self.folder, ignore_errors=True)


def start_cluster(
    binaries: Path,
    *,
    superuser: str,
    password: str,
    settings: Mapping[str, str] | None = None,
    initdb: Sequence[str] = (),
) -> Cluster:
    """Make and start a cluster with scram passwords and no line for physical replication."""
    binaries = _reachable(binaries)
    folder = Path(tempfile.mkdtemp(prefix="kura-cluster-"))
    data, secret = folder / "data", folder / "password"
    secret.write_text(password)
    port = free_port()
    if os.geteuid() == 0:
        owner = pwd.getpwnam("nobody")
        for path in (folder, secret):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    made = [str(binaries / "initdb"), "-D", str(data), "-U", superuser, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    run_as_server([*made, *initdb, "-A", "scram-sha-256", f"--pwfile={secret}"])
    lines = {
        "port": str(port),
        "listen_addresses": "'127.0.0.1'",
        "unix_socket_directories": "''",
        "fsync": "off",
        "shared_buffers": "32MB",
        "logging_collector": "off",
    } | dict(settings or {})
    with (data / "postgresql.conf").open("a") as conf:
        conf.writelines(f"{key} = {value}\n" for key, value in lines.items())
    (data / "pg_hba.conf").write_text(_HBA.format(method="scram-sha-256"))
    cluster = Cluster(folder=folder, binaries=binaries, port=port, superuser=superuser)
    atexit.register(cluster.stop)
    run_as_server([str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "start"])
    return cluster


@cache
def _reachable(binaries: Path) -> Path:
    """`nobody` may not enter a 0700 home: as root, programs that lie below one are copied."""
    if os.geteuid() != 0 or all(p.stat().st_mode & 0o001 for p in [binaries, *binaries.parents]):
        return binaries
    copy = Path(tempfile.mkdtemp(prefix="kura-binaries-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    shutil.copytree(binaries.parent, copy / "pg", symlinks=True)
    return copy / "pg" / "bin"


def run_as_server(argv: list[str], folder: Path = Path("/")) -> None:
    """Run a program of the server as the user it may run as, in a folder where it may write if it wants to."""
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "LD_LIBRARY_PATH": str(Path(argv[0]).parents[1] / "lib"),
    }
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryFile() as output:
        # a file, not a pipe: the started server keeps it open
        done = subprocess.run(
            argv, env=environment, user=user, extra_groups=[] if user else None, cwd=folder, check=False, timeout=120,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output.seek(0)
        if done.returncode != 0:
            raise FixtureError(f"{Path(argv[0]).name} failed: {output.read().decode(errors='replace')[-3000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
