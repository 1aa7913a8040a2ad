"""A standby takes over: the log goes on where all that is stored is part of the new history, else with a named hole."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_holes import sql, write
from tests.support import ledger, servers
from tests.support.cli import Desk
from tests.support.history_clusters import cut_off, make_standby, promote, reload, stop, url_of
from tests.support.servers import Server, versions
from tests.support.watchers import limited, soon

CARRYING = [v for v in versions() if v >= 17]


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary and a standby that is sent our slot too."""

    primary: Server
    standby: Server

    def url(self, server: Server) -> str:
        """Of the watched database, as its owner."""
        return server.url("carried", user="carried_owner")

    def carried(self) -> bool:
        """Whether the standby has the slot as far as the primary has."""
        ask = "SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots WHERE slot_type = 'logical'"
        there = sql(url_of(self.standby.cluster), ask + " AND synced AND NOT temporary")
        return bool(there) and there == sql(url_of(self.primary.cluster), ask)

    def replayed(self) -> None:
        """Until the standby has all of now."""
        now = str(sql(url_of(self.primary.cluster), "SELECT pg_current_wal_flush_lsn()")[0][0])
        ask = f"SELECT pg_last_wal_replay_lsn() >= '{now}'::pg_lsn"
        soon(lambda: sql(url_of(self.standby.cluster), ask) == [(True,)])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both run; the standby gets slots."""
    with limited(request.param, synchronous_commit="on") as primary:
        ledger.make(primary, "carried")
        other = make_standby(primary.cluster)
        try:
            sql(url_of(primary.cluster), "SELECT pg_create_physical_replication_slot('standby', true)")
            conninfo = f"host=127.0.0.1 port={primary.cluster.port} user=postgres password={servers.PASSWORD}"
            for name, value in (
                ("primary_slot_name", "standby"),
                ("hot_standby_feedback", "on"),
                ("primary_conninfo", f"{conninfo} dbname=postgres"),
                ("sync_replication_slots", "on"),
            ):
                sql(url_of(other), f"ALTER SYSTEM SET {name} = '{value}'")
            reload(other, {"wal_receiver_status_interval": "1s"})
            yield Pair(primary, replace(primary, cluster=other))
        finally:
            other.stop()


@pytest.mark.parametrize("pair", CARRYING, indirect=True)
def test_the_log_goes_on_after_a_promotion(pair: Pair, desk: Desk) -> None:
    """Nothing was stored that the standby did not have: the same chain, the same bases, one more timeline."""
    old, new = {"DATABASE_URL": pair.url(pair.primary)}, {"DATABASE_URL": pair.url(pair.standby)}
    desk.run("watch", "--once", env=old).expect()
    desk.run("backup", env=old).expect(3)
    write(old["DATABASE_URL"], 1, 2)
    soon(lambda: desk.run("watch", "--once", env=old).expect().code == 0 and pair.carried(), 90.0)
    pair.replayed()
    stop(pair.primary.cluster, "immediate")
    promote(pair.standby.cluster)
    write(new["DATABASE_URL"], 3)
    told = desk.run("watch", "--once", "--json", env=new).expect().json
    assert told["holes"] == 0
    write(new["DATABASE_URL"], 4)
    desk.run("watch", "--once", env=new).expect()
    chains = desk.run("timeline", "--json").expect().json["chains"]
    assert [bool(c["ended"]) for c in chains] == [False]
    home = pair.standby
    home.create_database("carried_back")
    sql(home.url("carried_back"), "ALTER DATABASE carried_back OWNER TO carried_owner")
    sql(home.url("carried_back"), "ALTER SCHEMA public OWNER TO carried_owner")
    back = home.url("carried_back", user="carried_owner")
    desk.run("restore", "--at", "latest", "--to", back).expect(3)
    with psycopg.connect(back) as one, psycopg.connect(new["DATABASE_URL"]) as two:
        assert ledger.checksums(one) == ledger.checksums(two)
    assert [n for (n,) in sql(back, "SELECT n FROM ledger ORDER BY n")] == [1, 2, 3, 4]


@pytest.mark.parametrize("pair", CARRYING[-1:], indirect=True)
def test_what_the_new_history_does_not_have_is_a_hole(pair: Pair, desk: Desk) -> None:
    """More was stored than the standby ever had; or a base saw more than that, while the log did not."""
    old, new = {"DATABASE_URL": pair.url(pair.primary)}, {"DATABASE_URL": pair.url(pair.standby)}
    desk.run("watch", "--once", env=old).expect()
    soon(lambda: desk.run("watch", "--once", env=old).expect().code == 0 and pair.carried(), 90.0)
    cut_off(pair.standby.cluster)
    write(old["DATABASE_URL"], 1)
    desk.run("watch", "--once", env=old).expect()
    stop(pair.primary.cluster, "immediate")
    promote(pair.standby.cluster)
    told = desk.run("watch", "--once", "--json", env=new).expect(3)
    assert told.json["holes"] == 1 and "promoted" in told.err
    assert len(sql(new["DATABASE_URL"], "SELECT 1 FROM pg_replication_slots WHERE slot_type = 'logical'")) == 1


@pytest.mark.parametrize("pair", CARRYING[-1:], indirect=True)
def test_a_base_of_a_left_history_leads_nowhere(pair: Pair, desk: Desk) -> None:
    """It saw a transaction that nobody else ever will."""
    old, new = {"DATABASE_URL": pair.url(pair.primary)}, {"DATABASE_URL": pair.url(pair.standby)}
    desk.run("watch", "--once", env=old).expect()
    desk.run("backup", env=old).expect(3)
    soon(lambda: desk.run("watch", "--once", env=old).expect().code == 0 and pair.carried(), 90.0)
    pair.replayed()
    cut_off(pair.standby.cluster)
    write(old["DATABASE_URL"], 1)
    lost = desk.run("backup", "--json", env=old).expect(3).json["snapshot"]
    stop(pair.primary.cluster, "immediate")
    promote(pair.standby.cluster)
    write(new["DATABASE_URL"], *range(2, 40))
    assert desk.run("watch", "--once", "--json", env=new).expect().json["holes"] == 0
    stretches = {s["snapshot"]: s["until_lsn"] for s in desk.run("timeline", "--json").json["chains"][0]["stretches"]}
    assert stretches.pop(lost) == "" and all(stretches.values())
    dry = desk.run("restore", "--at", "latest", "--to", new["DATABASE_URL"], "--dry-run", "--json")
    assert lost not in dry.out or dry.code == 18
