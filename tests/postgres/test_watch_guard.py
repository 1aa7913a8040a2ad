"""The source is never hurt: lost keys, disks that would fill, slots of others. As a role that is no superuser."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_holes import sql, write
from tests.postgres.test_watch import open_repository
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import server, versions
from tests.support.watchers import limited, soon, watching, write_log

from pgkura.changes.guarding import Manners
from pgkura.changes.options import Options
from pgkura.core.errors import SourceBusy, StoreError
from pgkura.postgres import letting_go, slots
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage

NEWEST = versions()[-1]
SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
PUBLISHED = "SELECT p.pubname, t.tablename FROM pg_publication p JOIN pg_publication_tables t USING (pubname)"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database to be watched."""
    home = server(request.param)
    name = f"guarded_{request.param}"
    yield ledger.make(home, name)
    ledger.drop_slots(home, name)


def works(url: str, text: str) -> bool:
    """Whether the application is let."""
    with suppress(psycopg.errors.ObjectNotInPrerequisiteState):
        sql(url, text)
        return True
    return False


@pytest.mark.parametrize("source", [versions()[0], NEWEST], indirect=True)
def test_a_table_that_loses_its_key_leaves_at_once(source: str, desk: Desk) -> None:
    """Long before the watcher's next look, and for each way to lose a key. A table that gets one joins."""
    sql(source, "CREATE TABLE picky (id int NOT NULL, v text)")
    sql(source, "CREATE UNIQUE INDEX picky_id ON picky (id)")
    sql(source, "ALTER TABLE picky REPLICA IDENTITY USING INDEX picky_id")
    sql(source, "CREATE TABLE shy (id int PRIMARY KEY)")
    sql(source, "INSERT INTO picky VALUES (1, 'a')")
    sql(source, "INSERT INTO shy VALUES (1)")
    options = Options(period=60.0, manners=Manners(keys=0.05))
    with watching(source, open_repository(desk), options) as (heard, _):
        soon(lambda: any(t in ("picky", "shy") for _, t in sql(source, PUBLISHED)) and bool(sql(source, SLOTS)))
        sql(source, "ALTER TABLE account DROP CONSTRAINT account_pkey CASCADE")
        sql(source, "DROP INDEX picky_id")
        sql(source, "ALTER TABLE shy REPLICA IDENTITY NOTHING")
        for change in (
            "UPDATE account SET balance = 1",
            "UPDATE picky SET v = 'b'",
            "DELETE FROM shy",
        ):
            soon(lambda change=change: works(source, change), 20.0)  # type: ignore[misc]
        assert sum("lost its key" in note for note in heard.notes) == 3
        assert works(source, "UPDATE ledger SET client = 1")
    child = desk.start("watch", "--period", "0.3s", "--quiet", env={"DATABASE_URL": source})
    try:
        places = {t: p for p, t in sql(source, PUBLISHED)}
        inserts = source.endswith("_14") is False
        soon(lambda: not inserts or "picky" in {t for p, t in sql(source, PUBLISHED) if str(p).endswith("_inserts")})
        sql(source, "ALTER TABLE picky REPLICA IDENTITY DEFAULT, ADD PRIMARY KEY (id)")
        soon(lambda: any(t == "picky" and not str(p).endswith("_inserts") for p, t in sql(source, PUBLISHED)))
        assert len([t for _, t in sql(source, PUBLISHED) if t == "picky"]) == 1, places
        assert works(source, "UPDATE picky SET v = 'c'")
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()


@pytest.mark.parametrize("source", [NEWEST], indirect=True)
def test_where_a_table_cannot_leave_all_of_the_log_does(source: str, desk: Desk) -> None:
    """Somebody holds the table as VACUUM or CREATE INDEX CONCURRENTLY do: its UPDATE is worth more than our log."""
    options = Options(period=0.3, manners=Manners(keys=0.05, lock=0.1, patience=0.5, rest=0.2))
    with (
        watching(source, open_repository(desk), options) as (heard, done),
        psycopg.connect(source) as changer,
        psycopg.connect(source) as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        soon(lambda: bool(sql(source, SLOTS)))
        (first,) = sql(source, SLOTS)
        changer.execute("ALTER TABLE item DROP CONSTRAINT item_pkey")
        waits = pool.submit(holder.execute, "LOCK TABLE item IN SHARE UPDATE EXCLUSIVE MODE")
        soon(lambda: sql(source, "SELECT count(*) FROM pg_locks WHERE NOT granted") == [(1,)])
        changer.commit()  # and the holder has it before anybody else
        waits.result(30)
        soon(lambda: works(source, "UPDATE item SET amount = 1"))
        assert any("could not leave the log alone" in note for note in heard.notes)
        holder.rollback()
        soon(lambda: sql(source, SLOTS) not in ([], [first]))
    assert done[0].holes == 1
    told = desk.run("timeline", "--json").expect().json
    assert "item" in told["holes"][0]["reason"] and "given up" in told["holes"][0]["reason"]
    assert works(source, "DELETE FROM item")


class Refusing(LocalStorage):
    """A store that takes nothing while it is told to."""

    refuses = False

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Raises StoreError."""
        if self.refuses:
            raise StoreError("the store refuses")
        super().create(key, data, storage_class=storage_class)


@pytest.mark.parametrize("source", [NEWEST], indirect=True)
def test_a_store_that_refuses_costs_the_log_and_not_the_disk(source: str, desk: Desk) -> None:
    """The guard goes on while the watcher waits; the reason is told as soon as the store takes it."""
    identity, host = Identity.parse(desk.identity.read_text()), HostKey.parse(desk.host_key.read_text())
    storage = Refusing(desk.repository)
    repo = Repository.open(storage, identity=identity, host=host)
    options = Options(period=0.3, max_retained=20_000_000, manners=Manners(keys=0.1, disk=0.2, rest=0.2))
    with watching(source, repo, options) as (heard, done):
        soon(lambda: bool(sql(source, SLOTS)))
        write(source, 1)
        (first,) = sql(source, SLOTS)
        storage.refuses = True
        write(source, 2)
        write_log(source, 25)
        soon(lambda: any("--max-retained" in note for note in heard.notes))
        soon(lambda: sql(source, SLOTS) == [])
        write(source, 3)
        storage.refuses = False
        soon(lambda: sql(source, SLOTS) not in ([], [first]))
    assert done[0].holes == 1
    told = desk.run("timeline", "--json").expect().json
    assert "--max-retained" in told["holes"][0]["reason"] and len(told["chains"]) == 2


@pytest.mark.parametrize("version", [versions()[0], NEWEST])
def test_a_slot_that_the_server_gave_up_is_a_named_hole(version: int, desk: Desk) -> None:
    """Nobody watched, and the server kept its own limit."""
    env = {"DATABASE_URL": ""}
    with limited(version, max_slot_wal_keep_size="48MB", min_wal_size="32MB", max_wal_size="32MB") as home:
        url = env["DATABASE_URL"] = ledger.make(home, "given_up")
        desk.run("watch", "--once", env=env).expect()
        desk.run("backup", env=env).expect(3)
        for _ in range(5):
            write_log(url, 30)
            sql(home.url("given_up"), "CHECKPOINT")
        assert sql(url, "SELECT wal_status FROM pg_replication_slots") == [("lost",)]
        again = desk.run("watch", "--once", "--json", env=env).expect(3)
        assert again.json["holes"] == 1 and "max_slot_wal_keep_size" in again.err
        assert sql(url, "SELECT wal_status FROM pg_replication_slots") != [("lost",)]
        assert "max_slot_wal_keep_size" in desk.run("timeline", "--json").expect().json["holes"][0]["reason"]


def test_one_slot_is_left_to_others(desk: Desk) -> None:
    """The last of few is taken by consent alone; where none is left it is said so."""
    with limited(NEWEST, max_replication_slots="2", max_wal_senders="4") as home:
        url = ledger.make(home, "few")
        env = {"DATABASE_URL": url}
        sql(home.url(), "SELECT pg_create_physical_replication_slot('standby')")
        refused = desk.run("watch", "--once", env=env).expect(20)
        assert "only one" in refused.err and "--last-slot" in refused.err
        assert sql(url, "SELECT pubname FROM pg_publication") == []
        desk.run("watch", "--once", "--last-slot", env=env).expect()
        desk.run("watch", "--once", env=env).expect()  # what is there goes on
        sql(home.url(), "CREATE DATABASE few_too OWNER few_owner")
        env = {"DATABASE_URL": home.url("few_too", user="few_owner")}
        assert "all 2 replication slots" in desk.run("watch", "--once", "--last-slot", env=env).expect(20).err


@pytest.mark.parametrize("source", [versions()[0], NEWEST], indirect=True)
def test_making_a_slot_waits_and_not_for_ever(source: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short limit on locks does not end the wait for writers; ours does, names the writer, and leaves nothing."""
    home = server(int(source.rsplit("_", 1)[1]))
    other = home.create_database("elsewhere")
    with psycopg.connect(other) as writer:
        writer.execute("CREATE TABLE held (id int)")  # in another database of the server
        monkeypatch.setattr(slots, "SLOT_SECONDS", 3)
        with connect(Endpoint.parse(source), application_name="test") as session:
            session.execute("SET lock_timeout = '200ms'")
            with pytest.raises(SourceBusy) as told:
                slots.make_slot(session, "pgkura_00000000")
            assert "within 3 seconds" in told.value.msg
            assert session.one("SHOW lock_timeout") == ("200ms",)
        with connect(Endpoint.parse(home.url(source.rsplit("/", 1)[1])), application_name="test") as session:
            with pytest.raises(SourceBusy) as told:
                slots.make_slot(session, "pgkura_00000000")
            assert f"process {writer.info.backend_pid}" in told.value.detail
        assert sql(source, SLOTS) == []
    home.drop_database("elsewhere")


@pytest.mark.parametrize("source", [versions()[0], NEWEST], indirect=True)
def test_unwatch_ends_the_log_and_says_so(source: str, desk: Desk, tmp_path: Path) -> None:
    """Slot and publications go, what is stored stays; not under a watcher, and nothing of another repository."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    write(source, 1)
    child = desk.start("watch", "--period", "0.3s", env=env)
    try:
        soon(lambda: sql(source, "SELECT active FROM pg_replication_slots") == [(True,)])
        assert "a watcher reads" in desk.run("unwatch", env=env).expect(20).err
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
    soon(lambda: sql(source, "SELECT active FROM pg_replication_slots") == [(False,)])
    done = desk.run("unwatch", "--json", env=env).expect().json
    assert len(done["chains"]) == len(done["dropped"]) == 1 and done["stayed"] == []
    assert sql(source, SLOTS) == sql(source, "SELECT pubname FROM pg_publication") == []
    told = desk.run("timeline", "--json").expect().json
    assert told["chains"][0]["ended"] == "it was ended by `pgkura unwatch`"
    assert told["chains"][0]["stretches"][0]["until_lsn"]
    assert desk.run("unwatch", "--json", env=env).expect().json["chains"] == []

    desk.run("watch", "--once", env=env).expect()
    stranger = Desk(tmp_path / "stranger")
    stranger.run("init").expect()
    assert len(stranger.run("unwatch", "--json", env=env).expect(3).json["stayed"]) == 1
    stranger.run("unwatch", "--all", env=env).expect()
    assert sql(source, SLOTS) == []


@pytest.mark.parametrize("source", [versions()[0], NEWEST], indirect=True)
def test_event_triggers_let_a_table_go_with_its_key(source: str, desk: Desk) -> None:
    """In the same transaction, and with no watcher alive. For each way to lose a key; no command of anybody's fails."""
    home = server(int(source.rsplit("_", 1)[1]))
    name = source.rsplit("/", 1)[1]
    sql(source, "CREATE TYPE mood AS ENUM ('fine', 'bad')")
    sql(source, "CREATE TABLE felt (mood mood PRIMARY KEY, v int)")
    sql(source, "CREATE TABLE wide (a int, b int, v int, PRIMARY KEY (a, b))")
    sql(source, "CREATE TABLE picky (id int NOT NULL, v int)")
    sql(source, "CREATE UNIQUE INDEX picky_id ON picky (id)")
    sql(source, "ALTER TABLE picky REPLICA IDENTITY USING INDEX picky_id")
    sql(source, "CREATE TABLE whole (v int)")
    sql(source, "ALTER TABLE whole REPLICA IDENTITY FULL")
    sql(source, "INSERT INTO whole VALUES (1)")
    sql(source, "INSERT INTO felt VALUES ('fine', 1)")
    sql(source, "INSERT INTO wide VALUES (1, 1, 1)")
    sql(source, "INSERT INTO picky VALUES (1, 1)")
    with connect(Endpoint.parse(home.url(name)), application_name="test") as session:
        letting_go.install(session)
        letting_go.install(session)
        assert letting_go.installed(session)
    desk.run("watch", "--once", env={"DATABASE_URL": source}).expect()
    published = {t for p, t in sql(source, PUBLISHED) if not str(p).endswith("_inserts")}
    assert published >= {"account", "felt", "wide", "picky", "whole"}
    for change, then in (
        ("ALTER TABLE account DROP CONSTRAINT account_pkey CASCADE", "UPDATE account SET balance = 1"),
        ("ALTER TABLE wide DROP COLUMN b", "DELETE FROM wide"),
        ("DROP TYPE mood CASCADE", "UPDATE felt SET v = 2"),
        ("DO $$ BEGIN DROP INDEX picky_id; END $$", "UPDATE picky SET v = 2"),
        ("ALTER TABLE whole REPLICA IDENTITY DEFAULT", "DELETE FROM whole"),
        ("ALTER TABLE item REPLICA IDENTITY NOTHING", "UPDATE item SET amount = 1"),
    ):
        with psycopg.connect(source) as one:  # a single transaction, of a role that is no superuser
            one.execute(change.encode())
            one.execute(then.encode())
    assert works(source, "UPDATE ledger SET client = 1")
    told = desk.run("watch", "--once", env={"DATABASE_URL": source}).expect()
    assert "could not" not in told.err
    desk.run("unwatch", env={"DATABASE_URL": source}).expect()
    sql(source, "ALTER TABLE ledger DROP CONSTRAINT ledger_pkey")  # without a publication they do nothing
    with connect(Endpoint.parse(home.url(name)), application_name="test") as session:
        letting_go.remove(session)
        assert not letting_go.installed(session)
        letting_go.remove(session)


@pytest.mark.parametrize("source", [versions()[0], NEWEST], indirect=True)
def test_doctor_and_timeline_say_how_each_table_is_logged(source: str, desk: Desk) -> None:
    """Before there is a log and after; a slot that nobody reads is named, and what to do."""
    env = {"DATABASE_URL": source}
    version = int(source.rsplit("_", 1)[1])
    name = source.rsplit("/", 1)[1]
    sql(source, "CREATE TABLE nokey (v int)")
    sql(source, "CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY)")
    sql(source, "CREATE TABLE whole (v int)")
    sql(source, "ALTER TABLE whole REPLICA IDENTITY FULL")
    sql(server(version).url(name), "CREATE TABLE public.foreigner (id int PRIMARY KEY)")

    def told() -> str:
        done = desk.run("doctor", "--json", env=env)
        checks = done.json["checks"]
        return "\n".join(f"{c['state']} {c['found']} | {c['change']}" for c in checks if c["what"] == "change log")

    first = told()
    inserts = ", 1 by inserts alone, 2 not at all" if version >= 15 else ", 3 not at all"
    assert f"tables logged: 5 by key, 1 by whole rows{inserts}" in first
    assert "there can be one" in first and "max_slot_wal_keep_size is not set" in first
    assert "unlogged tables never reach" in first and "ours is no member of" in first and "nokey" in first
    assert ("pg_read_all_stats" in first) == (version >= 15)
    desk.run("watch", "--once", env=env).expect()
    second = told()
    assert "warn no watcher reads slot pgkura_" in second and "pgkura unwatch" in second
    assert "event triggers" in second
    chain = desk.run("timeline", "--json").expect().json["chains"][0]
    assert chain["slot"].startswith("pgkura_") and chain["watcher_seems_dead"] is False
    logged = {t["table"].split(".")[1].strip('"'): (t["logged"], bool(t["why"])) for t in chain["tables"]}
    assert logged["ledger"] == ("key", False) and logged["whole"] == ("full", False)
    assert logged["nokey"] == (("inserts", False) if version >= 15 else ("", True))
    assert logged["fleeting"] == logged["foreigner"] == ("", True)
    assert "nokey" in desk.run("timeline").expect().out


@pytest.mark.parametrize("source", [NEWEST], indirect=True)
def test_publications_that_a_restore_brought_along_go(source: str, desk: Desk) -> None:
    """A restored database has those of its source, which would make its UPDATE fail one day; strangers' stay."""
    home = server(NEWEST)
    name = source.rsplit("/", 1)[1]
    desk.run("watch", "--once", env={"DATABASE_URL": source}).expect()
    ((slot,),) = sql(source, SLOTS)
    sql(home.url(), "DROP DATABASE IF EXISTS brought_along")
    sql(home.url(), f"CREATE DATABASE brought_along OWNER {name}_owner")
    other = home.url("brought_along", user=f"{name}_owner")
    for publication in (str(slot), f"{slot}_inserts", "pgkura_00000000"):
        sql(other, f"CREATE PUBLICATION {publication}")
    desk.run("watch", "--once", env={"DATABASE_URL": other}).expect()
    left = {str(p) for (p,) in sql(other, "SELECT pubname FROM pg_publication")}
    assert not left & {str(slot), f"{slot}_inserts"} and "pgkura_00000000" in left
    assert sql(source, SLOTS) == [(slot,)]
    desk.run("unwatch", "--all", env={"DATABASE_URL": other}).expect()
    assert sql(other, "SELECT pubname FROM pg_publication") == []
    home.drop_database("brought_along")
