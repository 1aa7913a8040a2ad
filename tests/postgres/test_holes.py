"""A slot that is lost is a hole with a name, never a silent one; what lies before it stays."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.postgres.test_watch import open_repository
from tests.support import ledger
from tests.support.cli import Desk
from tests.support.servers import Server, server, versions

from pgkura.core.progress import Silent
from pgkura.operations.replay import parse_moment
from pgkura.operations.restore import execute_restore, plan_restore
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.session import Session
from pgkura.replay import running
from pgkura.replay.applying import Place, apply_fold
from pgkura.replay.folding import Fold

NEWEST = versions()[-1]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def source() -> Iterator[str]:
    """A database to be watched."""
    yield ledger.make(server(NEWEST), "holes")
    ledger.drop_slots(server(NEWEST), "holes")


def write(url: str, *numbers: int) -> None:
    """Ledger rows, a transaction each."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = on")
        for n in numbers:
            connection.execute("INSERT INTO ledger (n, client) VALUES (%s, 0)", (n,))


def sql(url: str, text: str) -> list[tuple[object, ...]]:
    """Run one statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def target(home: Server) -> str:
    """An empty database of the owner's."""
    home.create_database("holes_back")
    sql(home.url("holes_back"), "ALTER DATABASE holes_back OWNER TO holes_owner")
    sql(home.url("holes_back"), "ALTER SCHEMA public OWNER TO holes_owner")
    return home.url("holes_back", user="holes_owner")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'holes'",
            "slot is gone",
        ),
        ("DO $$ BEGIN EXECUTE (SELECT 'DROP PUBLICATION ' || min(pubname) FROM pg_publication); END $$", "publication"),
        (
            "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots "
            "WHERE database = 'holes'",
            "somebody else",
        ),
    ],
)
def test_a_lost_slot_is_a_named_hole(source: str, desk: Desk, harm: str, reason: str) -> None:
    """The old chain still leads to its last moment; the hole is refused; a new base heals it."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    write(source, 1, 2)
    desk.run("watch", "--once", env=env).expect()
    write(source, 3)
    lost = str(sql(source, "SELECT pg_current_wal_insert_lsn()")[0][0])
    write(source, 4)
    sql(source, harm)
    again = desk.run("watch", "--once", "--json", env=env).expect(3)
    assert again.json["holes"] == 1 and reason in again.err
    told = desk.run("timeline", "--json").expect().json
    assert [bool(c["ended"]) for c in told["chains"]] == [True, False]
    assert reason in told["holes"][0]["reason"] and told["holes"][0]["until"] == ""
    assert len(sql(source, "SELECT 1 FROM pg_replication_slots WHERE database = 'holes'")) == 1
    assert len(sql(source, "SELECT 1 FROM pg_publication")) == 2

    back = target(server(NEWEST))
    first = told["chains"][0]["stretches"][0]
    desk.run("restore", "--at", first["until_lsn"], "--to", back, "--yes").expect(3)
    assert [n for (n,) in sql(back, "SELECT n FROM ledger ORDER BY n")] == [1, 2]
    refused = desk.run("restore", "--at", lost, "--to", back, "--yes").expect(23)
    assert first["until_lsn"] in refused.err
    desk.run("restore", "--at", "latest", "--to", back, "--yes", "--dry-run").expect(23)

    made = desk.run("backup", "--json", env=env).expect(3).json
    write(source, 5)
    desk.run("watch", "--once", env=env).expect()
    back = target(server(NEWEST))
    done = desk.run("restore", "--at", "latest", "--to", back, "--json").expect(3).json
    assert done["snapshot"] == made["snapshot"]
    assert [n for (n,) in sql(back, "SELECT n FROM ledger ORDER BY n")] == [1, 2, 3, 4, 5]


def test_times_and_positions(source: str, desk: Desk) -> None:
    """Quiet moments between known rows; beyond what is known nothing is promised."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    write(source, 1)
    time.sleep(0.1)
    ((when, where),) = sql(source, "SELECT clock_timestamp()::text, pg_current_wal_insert_lsn()::text")
    time.sleep(0.1)
    write(source, 2)
    desk.run("watch", "--once", env=env).expect()
    for moment in (str(when), str(where), f"time {when}", f"lsn {where}"):
        back = target(server(NEWEST))
        desk.run("restore", "--at", moment, "--to", back).expect(3)
        assert [n for (n,) in sql(back, "SELECT n FROM ledger ORDER BY n")] == [1], moment
    for beyond in ("2100-01-01", "FF/0", "no such mark", "before xid 3", "2020-01-01", "snapshot 5:900000000:"):
        assert "next:" in desk.run("restore", "--at", beyond, "--to", back, "--yes").expect(23).err
    for wrong in ("snapshot 5", "snapshot 9:5:"):
        desk.run("restore", "--at", wrong, "--to", back, "--yes").expect(2)


def test_changed_tables_need_a_new_base(source: str, desk: Desk) -> None:
    """Moments between a change of columns and the next base are refused by name; those before and after are not."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    write(source, 1)
    desk.run("watch", "--once", env=env).expect()
    desk.run("mark", "good", env=env).expect()
    desk.run("watch", "--once", env=env).expect()
    sql(source, "ALTER TABLE ledger ADD COLUMN late int DEFAULT 7")
    sql(source, "CREATE TABLE newcomer (id int PRIMARY KEY, v text)")
    write(source, 2)
    desk.run("watch", "--once", env=env).expect()
    desk.run("mark", "between", env=env).expect()
    desk.run("watch", "--once", env=env).expect()
    back = target(server(NEWEST))
    refused = desk.run("restore", "--at", "between", "--to", back, "--yes").expect(23)
    assert "tables were changed" in refused.err and "reachable" in refused.err
    desk.run("restore", "--at", "good", "--to", back).expect(3)
    assert sql(back, "SELECT n FROM ledger") == [(1,)]

    sql(source, "CREATE TABLE latecomer (id int PRIMARY KEY)")
    with psycopg.connect(source) as older:
        older.execute("INSERT INTO latecomer VALUES (1)")  # before the table is in the log
        desk.run("watch", "--once", env=env).expect()
        desk.run("backup", env=env).expect(3)
        older.execute("INSERT INTO latecomer VALUES (2)")
        older.commit()
    desk.run("watch", "--once", env=env).expect()
    back = target(server(NEWEST))
    assert "older than" in desk.run("restore", "--at", "latest", "--to", back).expect(23).err

    desk.run("backup", env=env).expect(3)
    sql(source, "INSERT INTO newcomer VALUES (1, 'x')")
    write(source, 3)
    desk.run("watch", "--once", env=env).expect()
    back = target(server(NEWEST))
    desk.run("restore", "--at", "latest", "--to", back).expect(3)
    assert sql(back, "SELECT n, late FROM ledger ORDER BY n") == [(1, 7), (2, 7), (3, 7)]
    assert sql(back, "SELECT * FROM newcomer") == [(1, "x")]
    assert sql(back, "SELECT * FROM latecomer ORDER BY id") == [(1,), (2,)]


def test_what_the_log_does_not_carry_is_named(source: str, desk: Desk) -> None:
    """Tables without key, unlogged ones, others' definitions; sequences never below what was used; views filled."""
    env = {"DATABASE_URL": source}
    sql(source, "CREATE TABLE nokey (v int)")
    sql(source, "CREATE TABLE whole (v int, j json, b bool)")
    sql(source, "ALTER TABLE whole REPLICA IDENTITY FULL")
    sql(source, "CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY)")
    sql(source, "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM ledger")
    sql(source, "CREATE SEQUENCE lonely INCREMENT 10")
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    write(source, 1, 2)
    sql(source, "INSERT INTO nokey VALUES (1)")
    sql(source, "UPDATE nokey SET v = 2")  # never fails for our sake
    sql(source, "INSERT INTO whole VALUES (1, '{\"a\": 1}', true), (1, '{\"a\": 1}', true), (NULL, NULL, NULL)")
    sql(source, "UPDATE whole SET v = 5 WHERE ctid = (SELECT min(ctid) FROM whole)")
    sql(source, "DELETE FROM whole WHERE v IS NULL")
    sql(source, "SELECT nextval('lonely') FROM generate_series(1, 5)")
    desk.run("watch", "--once", env=env).expect()
    back = target(server(NEWEST))
    done = desk.run("restore", "--at", "latest", "--to", back, "--json").expect(3).json
    named = {f["object"]: f["reason"] for f in done["skipped"]}
    assert "no primary key" in named['rows of "public"."nokey"']
    assert "unlogged" in named['rows of "public"."fleeting"']
    assert sql(back, "SELECT * FROM nokey") == []
    assert sorted(map(str, sql(back, "SELECT v, j::text, b FROM whole"))) == [
        "(1, '{\"a\": 1}', True)",
        "(5, '{\"a\": 1}', True)",
    ]
    assert sql(back, "SELECT n FROM total") == [(2,)]
    assert int(str(sql(back, "SELECT nextval('lonely')")[0][0])) == 51

    sql(source, "CREATE VIEW later AS SELECT 1 AS one")
    write(source, 3)
    desk.run("watch", "--once", env=env).expect()
    back = target(server(NEWEST))
    done = desk.run("restore", "--at", "latest", "--to", back, "--json").expect(3).json
    assert "definitions" in {f["object"] for f in done["skipped"]}
    assert [n for (n,) in sql(back, "SELECT n FROM ledger ORDER BY n")] == [1, 2, 3]


def test_a_replay_that_was_cut_short_is_begun_anew(source: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were replayed already are never taken for rows of the base."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    write(source, *range(1, 40))
    sql(source, "UPDATE account SET balance = balance + 1")
    desk.run("watch", "--once", env=env).expect()
    back = target(server(NEWEST))
    applied: list[str] = []

    def ends(session: Session, place: Place, fold: Fold) -> int:
        if applied:
            session.commit()  # what a crash between two transactions leaves
            raise KeyboardInterrupt
        applied.append(fold.name)
        return apply_fold(session, place, fold)

    monkeypatch.setattr(running, "apply_fold", ends)
    planned = plan_restore(
        open_repository(desk), "latest", Endpoint.parse(back), at=parse_moment("latest"), progress=Silent()
    )
    with pytest.raises(KeyboardInterrupt):
        execute_restore(planned, progress=Silent())
    again = desk.run("restore", "--at", "latest", "--to", back, "--json").expect(3).json
    assert again["rows_kept"] == 0
    with psycopg.connect(back) as one, psycopg.connect(source) as other:
        assert ledger.checksums(one) == ledger.checksums(other)


def test_damage_of_the_log_is_named(source: str, desk: Desk) -> None:
    """A flipped bit, a missing segment: found by `verify`, and never restored."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    desk.run("backup", env=env).expect(3)
    for n in (1, 2, 3):
        write(source, n)
        desk.run("watch", "--once", env=env).expect()
    desk.run("verify", "--json").expect()
    segments = sorted(desk.repository.glob("changes/*/segments/*"))
    whole = segments[-2].read_bytes()
    segments[-2].write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    problems = desk.run("verify", "--json").expect(16).json["problems"]
    assert len(problems) == 1 and str(segments[-2].relative_to(desk.repository)) in str(problems[0])
    back = target(server(NEWEST))
    desk.run("restore", "--at", "latest", "--to", back).expect(16)
    segments[-2].unlink()
    back = target(server(NEWEST))
    assert "missing" in desk.run("restore", "--at", "latest", "--to", back).expect(23).err
    assert "missing" in desk.run("timeline").expect().out
    told = desk.run("watch", "--once", env=env).expect(3)
    assert "missing in the store" in told.err


def test_slots_that_nobody_reads_are_taken_away(source: str, desk: Desk) -> None:
    """A watcher that died between its head and its start, an older chain that was never ended: no slot stays behind."""
    env = {"DATABASE_URL": source}
    desk.run("watch", "--once", env=env).expect()
    (chain,) = (path.name for path in (desk.repository / "chains").iterdir())
    (desk.repository / "chains" / chain / "start").rename(desk.folder / "start")
    desk.run("watch", "--once", env=env).expect()
    assert len(sql(source, "SELECT 1 FROM pg_replication_slots WHERE database = 'holes'")) == 1
    assert len(sql(source, "SELECT 1 FROM pg_publication")) == 2
    told = desk.run("timeline", "--json").expect().json
    assert len(told["chains"]) == 1 and not told["chains"][0]["ended"] and told["holes"] == []


def test_a_mark_that_nobody_would_keep_is_refused(source: str, desk: Desk) -> None:
    """Without a change log a mark would be written, and lost."""
    refused = desk.run("mark", "before the storm", env={"DATABASE_URL": source}).expect(2)
    assert "no change log" in refused.err
