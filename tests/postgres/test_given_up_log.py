"""A log that the server gave up, from end to end: the hole has a name, and the watcher begins anew and takes a base."""

import time
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_holes import sql
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import Server, versions
from tests.support.watchers import limited, soon, write_log

from pgkura.postgres import replication
from pgkura.postgres.endpoint import Endpoint

NEWEST = versions()[-1]
SMALL = {"max_slot_wal_keep_size": "48MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
STATUS = "SELECT wal_status FROM pg_replication_slots"


def checksums(url: str) -> dict[str, str]:
    """Of all tables of the ledger."""
    with psycopg.connect(url) as connection:
        return ledger.checksums(connection)


def lose(home: Server, url: str) -> None:
    """Write until the server keeps nothing more for the slot."""
    for _ in range(20):
        write_log(url, 30)
        with psycopg.connect(home.url("lost_log"), autocommit=True) as connection:
            connection.execute("SET statement_timeout = '60s'")
            connection.execute("CHECKPOINT")
        if sql(url, STATUS) == [("lost",)]:
            return
    pytest.fail("the slot was kept")


def test_the_watcher_begins_anew_and_takes_a_base(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.run("init").expect()
    with limited(NEWEST, **SMALL) as home, ExitStack() as stack:
        url = ledger.make(home, "lost_log")
        env = {"DATABASE_URL": url}
        desk.run("watch", "--once", env=env).expect()
        desk.run("backup", env=env).expect(3)  # passwords of roles
        watcher = desk.start("watch", "--period", "0.2s", "--base-after", "0.5s", env=env)
        stack.callback(watcher.wait)
        stack.callback(watcher.kill)
        with ledger.Load(url, gentle=True):
            time.sleep(1)
        soon(lambda: sql(url, "SELECT active FROM pg_replication_slots") == [(True,)])

        watcher.kill()
        watcher.wait()
        with ledger.Load(url, seed=2, gentle=True):
            time.sleep(0.5)
        lose(home, url)
        watcher = desk.start("watch", "--period", "0.2s", "--base-after", "0.5s", env=env)
        stack.callback(watcher.wait)
        stack.callback(watcher.kill)
        soon(lambda: sql(url, STATUS) not in ([], [("lost",)]), 60)
        soon(lambda: len(desk.run("snapshots", "--json").expect().json["snapshots"]) == 2, 90)
        with ledger.Load(url, seed=3, gentle=True):
            time.sleep(1)
        watcher.terminate()
        assert watcher.wait(60) == 3  # a hole
        desk.run("watch", "--once", env=env).expect()

        told = desk.run("timeline", "--json").expect().json
        assert len(told["chains"]) == 2 and len(told["holes"]) == 1
        assert "max_slot_wal_keep_size" in told["holes"][0]["reason"]
        home.create_database("lost_log_back")
        back = home.url("lost_log_back")
        desk.run("restore", "--at", "latest", "--to", back, "--yes", "--json").expect(3)
        assert checksums(back) == checksums(url)


@pytest.mark.parametrize("version", [versions()[0], NEWEST])
def test_a_watcher_that_reads_nothing_does_not_hold_up_a_checkpoint(
    version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the server that sends to somebody who does not read does not end by a signal alone."""
    monkeypatch.setattr(replication, "STUCK_SECONDS", 3)
    with limited(version, **SMALL) as home:
        url = ledger.make(home, "lost_log")
        with psycopg.connect(home.url("lost_log"), autocommit=True) as admin:
            admin.execute("CREATE PUBLICATION p FOR ALL TABLES")
            admin.execute("SELECT pg_create_logical_replication_slot('stuck', 'pgoutput')")
        with closing(replication.Replication.open(Endpoint.parse(url), application_name="test")) as stream:
            stream.start("stuck", ("p",), 0)
            with ledger.Load(url, gentle=True):
                time.sleep(1)
            sql(url, "INSERT INTO item SELECT g, repeat('x', 1000), 1 FROM generate_series(1000000, 1020000) g")
            lose(home, url)
