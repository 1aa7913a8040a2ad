"""Disasters of a whole cluster, on real servers: crash, standby, promotion, a data folder put back, pg_upgrade."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg
from tests.support.cluster import Cluster, free_port, run_as_server, start_cluster
from tests.support.servers import PASSWORD


def lazy(delay: str) -> dict[str, str]:
    """Commits that are not yet on disk when the server dies; the log writer comes by only every `delay`."""
    return {
        "synchronous_commit": "off",
        "wal_writer_delay": delay,
        "wal_writer_flush_after": "1GB",
        "wal_buffers": "16MB",
    }


def url_of(cluster: Cluster, database: str = "postgres") -> str:
    """As the superuser."""
    return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{cluster.port}/{quote(database)}"


def stop(cluster: Cluster, mode: str = "fast") -> None:
    """`immediate` is a crash: nothing is written any more."""
    run_as_server([str(cluster.binaries / "pg_ctl"), "-D", str(cluster.folder / "data"), "-w", "-m", mode, "stop"])


def start(cluster: Cluster) -> None:
    """And wait until it takes connections."""
    log = str(cluster.folder / "log")
    run_as_server([str(cluster.binaries / "pg_ctl"), "-D", str(cluster.folder / "data"), "-w", "-l", log, "start"])


def copy_data(cluster: Cluster, to: Path) -> None:
    """The data folder of a stopped cluster, with its owners."""
    shutil.copytree(cluster.folder / "data", to, copy_function=_copy)
    for path in (to, *to.rglob("*")):
        _same_owner(cluster.folder / "data", path)


def put_back(cluster: Cluster, saved: Path) -> None:
    """The stopped cluster is what it was when `saved` was made."""
    shutil.rmtree(cluster.folder / "data")
    saved.rename(cluster.folder / "data")


def make_standby(primary: Cluster) -> Cluster:
    """A streaming standby, made from a cold copy; both run afterwards."""
    with (primary.folder / "data" / "pg_hba.conf").open("a") as hba:
        hba.write("host replication all 127.0.0.1/32 scram-sha-256\n")
    folder = Path(tempfile.mkdtemp(prefix="kura-standby-"))
    _same_owner(primary.folder, folder)
    stop(primary)
    copy_data(primary, folder / "data")
    start(primary)
    standby = replace(primary, folder=folder, port=free_port())
    conf = folder / "data" / "postgresql.conf"
    conf.write_text(re.sub(r"(?m)^port = .*$", f"port = {standby.port}", conf.read_text()))
    with conf.open("a") as lines:
        lines.write(f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres password={PASSWORD}'\n")
    (folder / "data" / "standby.signal").touch()
    _same_owner(folder / "data", folder / "data" / "standby.signal")
    start(standby)
    return standby


def wait_for_standby(primary: Cluster) -> None:
    """Until a standby has replayed everything."""
    with psycopg.connect(url_of(primary), autocommit=True) as connection:
        for _ in range(200):
            if connection.execute("SELECT FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()").fetchall():
                return
            connection.execute("SELECT pg_sleep(0.1)")
    raise AssertionError("the standby never caught up")


def cut_off(standby: Cluster) -> None:
    """It receives nothing any more."""
    with psycopg.connect(url_of(standby), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
        connection.execute("SELECT pg_reload_conf()")
        for _ in range(100):
            if not connection.execute("SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL").fetchall():
                return
            connection.execute("SELECT pg_sleep(0.1)")
    raise AssertionError("the standby goes on receiving")


def promote(standby: Cluster) -> None:
    """A new timeline begins."""
    run_as_server([str(standby.binaries / "pg_ctl"), "-D", str(standby.folder / "data"), "-w", "promote"])


def upgrade(old: Cluster, binaries: Path, settings: Mapping[str, str] | None = None) -> Cluster:
    """pg_upgrade of a cluster into a new one of these programs; the old one is stopped, the new one runs."""
    plain = ("--no-data-checksums",)
    new = start_cluster(binaries, superuser="postgres", password=PASSWORD, settings=settings, initdb=plain)
    stop(new)
    stop(old)
    sockets = Path(tempfile.mkdtemp(prefix="kura-up-"))
    _same_owner(old.folder, sockets)
    argv = [str(new.binaries / "pg_upgrade"), "-U", "postgres", "-s", str(sockets)]
    argv += ["-b", str(old.binaries), "-B", str(new.binaries), "-p", str(free_port()), "-P", str(free_port())]
    argv += ["-d", str(old.folder / "data"), "-D", str(new.folder / "data")]
    try:
        run_as_server(argv, folder=sockets)
    finally:
        shutil.rmtree(sockets)
    start(new)
    return new


def next_xid(cluster: Cluster, xid: int) -> None:
    """The stopped cluster goes on at a later 64-bit xid, as if it had burnt those before."""
    epoch, low = divmod(xid, 1 << 32)
    low = max(low, 100) & ~0xFFFFF | 0x400  # near the beginning of a segment of the commit log, which must exist
    segment = cluster.folder / "data" / "pg_xact" / f"{low >> 20:04X}"
    if not segment.exists():
        segment.write_bytes(bytes(256 * 1024))
        _same_owner(cluster.folder / "data", segment)
    argv = [str(cluster.binaries / "pg_resetwal"), "-D", str(cluster.folder / "data")]
    run_as_server([*argv, "-e", str(epoch), "-x", str(low)])


def _copy(source: str, target: str) -> str:
    return str(shutil.copy2(source, target))


def _same_owner(like: Path, path: Path) -> None:
    if os.geteuid() == 0:
        facts = like.stat()
        os.chown(path, facts.st_uid, facts.st_gid, follow_symlinks=False)


def reload(cluster: Cluster, settings: Mapping[str, str]) -> None:
    """Change settings that need no restart, on a standby too; returns when new sessions have them."""
    with psycopg.connect(url_of(cluster), autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")
    for _ in range(100):
        with psycopg.connect(url_of(cluster)) as fresh:
            now = {n: fresh.execute(f"SHOW {n}".encode()).fetchall()[0][0] for n in settings}
        if now == dict(settings):
            return
    raise AssertionError(f"not taken over: {now}")
