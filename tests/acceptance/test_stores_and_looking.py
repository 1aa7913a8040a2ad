"""On S3 and on a full disk; and the verbs that only look: show, history, diff, doctor, completion."""

import json
import shutil
from pathlib import Path

import psycopg
import pytest
from tests.support import compare, nasty, stores
from tests.support.cli import Desk
from tests.support.servers import newest


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk, no repository yet."""
    return Desk(tmp_path)


@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_round_trip_through_s3(kind: str, desk: Desk) -> None:
    """The same product on a bucket; row data in the storage class that was asked for."""
    server = stores.s3(kind)
    desk.environment |= server.environment | {"PGKURA_REPOSITORY": server.new_prefix()}
    home = newest()
    source = home.create_database("s3_source")
    nasty.fill(home, "s3_source")
    desk.run("init").expect()
    backup = desk.run("backup", "--json", "--storage-class", "GLACIER_IR", env={"DATABASE_URL": source}).expect().json
    assert backup["result"] == "ok"
    if kind == "moto":
        url = desk.environment["PGKURA_REPOSITORY"]
        assert {server.storage_class(url, key) for key in server.keys(url, "data/")} >= {"GLACIER_IR"}
        assert {server.storage_class(url, key) for key in server.keys(url, "index/")} == {"STANDARD"}
    target = home.create_database("s3_target")
    restored = desk.run("restore", "latest", "--to", target, "--json").expect().json
    assert restored["proof"]["equal"] is True
    compare.assert_same(source, target)
    desk.run("verify").expect()


def test_full_disk_loses_nothing(desk: Desk, tmp_path: Path) -> None:
    """Exit 13 with the reason; the earlier snapshot still verifies; with room again the next backup is whole."""
    folder = stores.tiny_folder(tmp_path, megabytes=3)
    desk.environment["PGKURA_REPOSITORY"] = str(folder / "repository")
    home = newest()
    url = home.create_database("full_disk")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int, noise text)")
        connection.execute("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 1000) n")
    desk.run("init").expect()
    first = desk.run("backup", "--json", env={"DATABASE_URL": url}).expect().json["snapshot"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO t SELECT n, md5(n::text) || md5((-n)::text) FROM generate_series(1, 200000) n")
    refused = desk.run("backup", env={"DATABASE_URL": url}).expect(13)
    assert "no space left" in refused.err and "next:" in refused.err
    assert [s["id"] for s in desk.run("snapshots", "--json").expect().json["snapshots"]] == [first]
    desk.run("verify", first).expect()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM t WHERE id > 1000")
    for orphan in (folder / "repository" / "data").glob("*/*"):
        if orphan.stat().st_size > 500_000:
            orphan.unlink()
    desk.run("backup", env={"DATABASE_URL": url}).expect()


def test_history_diff_and_show(desk: Desk) -> None:
    """A new version only when a kind changed; the difference as DDL; a live database on either side."""
    home = newest()
    url = home.create_database("looking")
    env = {"DATABASE_URL": url}
    change(url, "CREATE TABLE lessons (id int PRIMARY KEY)", "ALTER TABLE lessons ENABLE ROW LEVEL SECURITY")
    desk.run("init").expect()
    ids = [desk.run("backup", "--json", env=env).expect().json["snapshot"]]
    change(url, "INSERT INTO lessons VALUES (1)")
    ids.append(desk.run("backup", "--json", env=env).expect().json["snapshot"])
    change(
        url, "CREATE POLICY everybody ON lessons USING (true)", "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1"
    )
    ids.append(desk.run("backup", "--json", env=env).expect().json["snapshot"])

    def versions(kind: str) -> list[str]:
        return [v["snapshot"] for v in desk.run("history", kind, "--json").expect().json["versions"]]

    assert versions("schema") == [ids[0]]
    assert versions("rls") == [ids[0], ids[2]] and versions("functions") == [ids[0], ids[2]]
    changes = desk.run("diff", ids[1], ids[2], "--json").expect().json["changes"]
    assert {(c["change"], c["component"]) for c in changes} == {("added", "rls"), ("added", "functions")}
    text = desk.run("diff", ids[1], ids[2]).expect().out
    assert "CREATE POLICY everybody" in text and "CREATE FUNCTION public.f()" in text
    assert desk.run("diff", ids[0], ids[1], "--json").expect().json["changes"] == []
    change(url, "DROP FUNCTION f()")
    live = desk.run("diff", "latest", "database", "--json", env=env).expect().json["changes"]
    assert [(c["change"], c["component"]) for c in live] == [("removed", "functions")]
    shown = desk.run("show", ids[1], "--json").expect().json
    assert shown["tables"] == [{"table": '"public"."lessons"', "rows": 1, "bytes": 2}]
    sealed = desk.run("show", ids[1], "--json", env={"PGKURA_IDENTITY": str(desk.folder / "nowhere")}).expect().json
    assert sealed["tables"] == [] and sealed["counts"]["rows"] == 1


def test_doctor_says_what_rights_forbid(desk: Desk) -> None:
    """Whole as superuser; as a plain role the unreadable is named with what to change, exit 3."""
    home = newest()
    filled = nasty.fill(home, "examined", role="owner")
    desk.run("init").expect()
    well = desk.run("doctor", "--json", env={"DATABASE_URL": filled.url}).expect().json
    assert {c["state"] for c in well["checks"]} <= {"ok", "note"}
    told = desk.run("doctor", "--json", env={"DATABASE_URL": filled.owner_url}).expect(3).json
    warned = [c for c in told["checks"] if c["state"] == "warn"]
    assert warned and all(c["found"] and c["change"] for c in warned)


def test_shell_completion_knows_the_verbs(desk: Desk) -> None:
    """What a shell asks when TAB is pressed after `pgkura re`."""
    asked = {"_PGKURA_COMPLETE": "complete_bash", "COMP_WORDS": "pgkura re", "COMP_CWORD": "1"}
    words = desk.run(env=asked | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}).out.split()
    assert {"restore", "release"} <= set(words)


def change(url: str, *statements: str) -> None:
    """Run statements as the superuser."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_restore_from_a_store_that_may_only_be_read(desk: Desk, tmp_path: Path) -> None:
    """The restore is not undone by a journal that cannot be written: the proof is saved and named."""
    home = newest()
    url = home.create_database("read_only_source")
    change(url, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    desk.run("init").expect()
    desk.run("backup", env={"DATABASE_URL": url}).expect()
    target = home.create_database("read_only_target")
    journal = desk.repository / "journal"
    shutil.rmtree(journal)
    journal.write_text("in the way, for root too")
    done = desk.run("restore", "latest", "--to", target, cwd=tmp_path).expect()
    saved = list(tmp_path.glob("pgkura-proof-*.json"))
    assert len(saved) == 1 and saved[0].name in done.err
    assert json.loads(saved[0].read_text())["equal"] is True
