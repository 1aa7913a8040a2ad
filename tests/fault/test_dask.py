"""Backup, restore and verify on a real Dask cluster over mutual TLS, a worker killed in the middle of each."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.support import compare, nasty
from tests.support.cli import Desk, Done
from tests.support.dask import Certificates, DaskCluster, Deadly, certificates, die
from tests.support.servers import newest
from tests.support.wire import Wire

from pgkura.app.dask_cluster import DaskExecutor, dial
from pgkura.app.executors import choose
from pgkura.programs.pgtools import find_client
from pgkura.work.pools import WorkerDied

ROWS = 60_000
TABLES = ("one", "two", "three", "four")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dask")]


@pytest.fixture
def tls(tmp_path: Path) -> Certificates:
    """The cluster's and ours."""
    return certificates(tmp_path / "tls")


@pytest.fixture
def cluster(tmp_path: Path, tls: Certificates) -> Iterator[DaskCluster]:
    """A cluster without workers yet."""
    made = DaskCluster(tmp_path / "dask", tls)
    yield made
    made.stop()


@pytest.fixture
def desk(tmp_path: Path, tls: Certificates) -> Desk:
    """A desk with a repository and the cluster's certificates."""
    made = Desk(tmp_path / "desk")
    made.environment |= tls.variables
    made.run("init").expect()
    return made


def _killing(cluster: DaskCluster, url: str, name: str) -> "tuple[threading.Thread, list[int]]":
    killed: list[int] = []
    thread = threading.Thread(target=lambda: killed.append(cluster.kill_busy(url, name)), daemon=True)
    thread.start()
    return thread, killed


def test_backup_restore_and_verify_while_workers_are_killed(desk: Desk, cluster: DaskCluster) -> None:
    home = newest()
    source = home.create_database("dask_source")
    nasty.fill(home, "dask_source")
    with psycopg.connect(source, autocommit=True) as connection:
        for table in TABLES:
            connection.execute(
                f"CREATE TABLE public.{table} (id int PRIMARY KEY, v text);"
                f"INSERT INTO public.{table} "
                f"SELECT g, md5(g::text) || repeat('x', 300) FROM generate_series(1, {ROWS}) g"
            )
    target = home.create_database("dask_target")

    # Backup: workers have the host key itself in a variable, and no identity anywhere.
    reader = {"DATABASE_URL": source, "PGKURA_HOST_KEY": desk.host_key.read_text()}
    cluster.start(reader, reader)
    thread, killed = _killing(cluster, source, "pgkura%worker")
    backup = desk.run(
        *("backup", "--json", "-j", "2", "--max-rate", "30000000", "--executor", cluster.address),
        env={"DATABASE_URL": source},
    )
    thread.join()
    assert backup.expect().json["result"] == "ok", backup.err
    assert killed and killed[0]
    _no_connection_left(source)
    # What changed since then, by the worker that is left.
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(
            "UPDATE public.one SET v = 'new' WHERE id % 50 = 0; DELETE FROM public.two WHERE id % 60 = 0"
        )
    second = desk.run("backup", "--json", "--executor", cluster.address, env={"DATABASE_URL": source}).expect().json
    assert second["result"] == "ok" and second["bytes_read"] < backup.json["bytes_read"] // 2

    # Restore and its proof: these workers have the identity, and the target's URL by the same name.
    cluster.dismiss()
    writer = {"DATABASE_URL": target, "PGKURA_IDENTITY": str(desk.identity)}
    cluster.start(writer, writer, writer)
    thread, killed = _killing(cluster, target, "pgkura restore _%")
    restored = desk.run(
        *("restore", "--json", "--yes", "-j", "3", "--executor", cluster.address), env={"DATABASE_URL": target}
    )
    thread.join()
    assert restored.expect().json["proof"]["equal"] is True, restored.err
    assert restored.json["rows"] == second["rows"] < backup.json["rows"]
    assert killed and killed[0]
    compare.assert_same(source, target)

    thread, killed = _killing(cluster, target, "pgkura verify _%")
    verified = desk.run(
        *("verify", "--against", "env:DATABASE_URL", "--json", "-j", "2", "--executor", cluster.address),
        env={"DATABASE_URL": target},
    )
    thread.join()
    assert verified.expect().json["proof"]["equal"] is True, verified.err
    assert killed and killed[0]
    _no_connection_left(target)


def _connections(url: str, name: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s AND datname = current_database()"
    with psycopg.connect(url) as connection:
        return int((connection.execute(query.encode(), (name,)).fetchone() or (0,))[0])


def _no_connection_left(url: str) -> None:
    deadline = time.monotonic() + 10
    while _connections(url, "pgkura%") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _connections(url, "pgkura%") == 0


def test_what_cannot_work_is_said_before_anything_begins(
    desk: Desk, cluster: DaskCluster, tls: Certificates, tmp_path: Path
) -> None:
    home = newest()
    source = home.create_database("dask_refused")
    cluster.start({"DATABASE_URL": source})

    def backup(*arguments: str, tls: Certificates | None = None) -> Done:
        env = {"DATABASE_URL": source} | (tls.variables if tls else {})
        return desk.run("backup", *arguments, "--executor", cluster.address, env=env)

    # The worker lacks the key.
    refused = backup().expect(2)
    assert "env:PGKURA_HOST_KEY" in refused.err and "127.0.0.1" in refused.err
    # A URL given to this process alone.
    refused = backup("--database", source).expect(2)
    assert "`held:` reference" in refused.err and source not in refused.err
    # Somebody else's cluster; and somebody else, who knows this one's authority and has no certificate of it.
    stranger = certificates(tmp_path / "stranger")
    for wrong in (stranger, replace(stranger, ca=tls.ca)):
        assert "cannot reach the Dask scheduler" in backup(tls=wrong).expect(1).err
    assert not list(desk.repository.glob("snapshots/*"))


def test_a_worker_that_speaks_in_clear_is_refused(tmp_path: Path) -> None:
    """Off loopback: one that is there, before anything begins; one that joins later, before it is long at work."""
    source = _tables("dask_clear")
    desk = Desk(tmp_path / "desk")
    desk.run("init").expect()
    own = {"DATABASE_URL": source, "PGKURA_HOST_KEY": str(desk.host_key)}
    cluster = DaskCluster(tmp_path / "dask", None)
    # What it says of itself is what others use.
    far = ("--listen-address", "tcp://127.0.0.1:0", "--contact-address", "tcp://192.0.2.7:4242")
    try:
        cluster.start(own)
        backup = ("backup", "--max-rate", "2000000", "--executor", cluster.address)
        desk.run("backup", "--executor", cluster.address, env={"DATABASE_URL": source}).expect()
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(desk.run, *backup, "--full", env={"DATABASE_URL": source})
            while not late.done() and not _connections(source, "pgkura%worker"):
                time.sleep(0.05)
            cluster.start_worker(own, *far)
            for done in (late.result(), desk.run(*backup, env={"DATABASE_URL": source})):
                assert "192.0.2.7" in done.expect(2).err and "without TLS" in done.err
    finally:
        cluster.stop()
    assert len(desk.run("snapshots", "--json").expect().json["snapshots"]) == 1


def _tables(database: str) -> str:
    """A new database with rows that take a while; its URL."""
    url = newest().create_database(database)
    with psycopg.connect(url, autocommit=True) as connection:
        for table in TABLES:
            connection.execute(f"CREATE TABLE {table} AS SELECT repeat('x', 500) FROM generate_series(1, {ROWS})")
    return url


@pytest.mark.parametrize("late", [False, True], ids=["both at work", "one still connecting"])
def test_an_interrupt_ends_the_work_on_the_cluster_too(late: bool, desk: Desk, cluster: DaskCluster) -> None:
    source = _tables(f"dask_stopped_{late}".lower())
    reader = {"DATABASE_URL": source, "PGKURA_HOST_KEY": str(desk.host_key)}
    arguments = ("backup", "--max-rate", "2000000", "--executor", cluster.address)
    port = urlsplit(source).port or 0
    with Wire(port) as wire:
        wire.delay = 0.3 if late else 0.0
        cluster.start(reader, {**reader, "DATABASE_URL": source.replace(f":{port}/", f":{wire.port}/")})
        process = desk.start(*arguments, env={"DATABASE_URL": source})
        while process.poll() is None and _connections(source, "pgkura%worker") < 2 - late:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        time.sleep(2 * late)
        _no_connection_left(source)
        assert all(worker.poll() is None for worker in cluster.workers)
        # The workers are free for the next run.
        wire.delay = 0.0
        desk.run(*arguments[:1], *arguments[3:], env={"DATABASE_URL": source}).expect()


def test_workers_elsewhere_go_on_when_everything_is_read_again(desk: Desk, cluster: DaskCluster) -> None:
    """They were told that the reading is over; that is true of the first one alone."""
    source = _tables("dask_again")
    # The real pg_dump, which fails once, when rows are being read, as it does where a table is changed under it.
    real, folder = find_client("pg_dump", newest().version), desk.folder / "bin"
    folder.mkdir()
    (folder / "pg_dump").write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && exec {real.path} "$@"
{real.path} "$@" || exit 1
if [ ! -e {folder}/failed ]; then
  sleep 2; touch {folder}/failed
  echo 'pg_dump: error: could not open relation with OID 1' >&2; exit 1
fi
"""
    )
    (folder / "pg_dump").chmod(0o755)
    reader = {"DATABASE_URL": source, "PGKURA_HOST_KEY": str(desk.host_key)}
    cluster.start(reader, reader)
    backup = desk.run(
        *("backup", "--json", "--max-rate", "20000000", "--executor", cluster.address),
        env={"DATABASE_URL": source, "PGKURA_PG_BIN": str(folder)},
    )
    assert backup.expect().json["rows"] == len(TABLES) * ROWS
    assert backup.err.count("reading rows (") == 2 and "taking a new snapshot" in backup.err
    _no_connection_left(source)


def test_a_unit_that_kills_its_workers_is_named(cluster: DaskCluster, tls: Certificates) -> None:
    cluster.start({}, {}, {})
    choice = choose(cluster.address, tls.variables)
    client = dial(choice.scheduler, choice.tls)
    try:
        client.wait_for_workers(3, timeout=20)
        with DaskExecutor(client) as executor, pytest.raises(WorkerDied, match=r"2 workers died .* the deadly table"):
            executor.submit(die, Deadly()).result(timeout=60)
    finally:
        client.close()
