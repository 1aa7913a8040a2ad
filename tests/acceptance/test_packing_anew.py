"""Packing anew by the command line: smaller, green, still incremental, and out again by every way."""

import shutil
from pathlib import Path

import psycopg
from tests.support import compare
from tests.support.cli import Desk, command
from tests.support.psql import client
from tests.support.servers import needs, newest


def stored(desk: Desk) -> int:
    """Bytes of data."""
    return sum(p.stat().st_size for p in desk.repository.glob("data/*/*"))


def test_packs_become_fewer(tmp_path: Path) -> None:
    """Most of a day's tables are dropped; what is left moves, and nobody sees a difference but the store."""
    home = newest()
    source = home.create_database("compact_source")
    desk = Desk(tmp_path)
    env = {"DATABASE_URL": source}
    desk.run("init").expect()
    with psycopg.connect(source, autocommit=True) as connection:
        for n in range(60):
            connection.execute(f"CREATE TABLE t{n} AS SELECT g, gen_random_uuid() a, g::text b "
                               "FROM generate_series(1, 4000) g")  # fmt: skip
        desk.run("backup", env=env).expect()
        connection.execute("DELETE FROM t0 WHERE g % 100 = 7")
        connection.execute("UPDATE t1 SET b = 'x' WHERE g % 1000 = 7")
        for n in range(60):
            if n % 5 > 1:
                connection.execute(f"DROP TABLE t{n}")
    desk.run("backup", env=env).expect()
    words = ("prune", "--keep-last", "1", "--grace", "0")
    host = Desk(tmp_path)
    del host.environment["PGKURA_IDENTITY"]
    host.environment["HOME"] = str(tmp_path / "nobody")
    host.run(*words, "--repack-below", "0.5", "--yes").expect(12)
    assert "identity" in host.run(*words, "--dry-run", "--json").expect().json["notes"][0]
    assert "packs are packed anew" not in desk.run(*words, "--dry-run", "--no-repack").expect().out
    assert "packs are packed anew" in desk.run(*words, "--dry-run").expect().out
    plan = desk.run(*words, "--dry-run", "--json").expect().json["repack"]
    assert plan["packs"] and plan["bytes_freed"] > 2 * 2**20 > 0 < plan["requests"]["put"]
    before = stored(desk)
    done = desk.run(*words, "--yes", "--json").expect().json
    assert (done["packs_repacked"], done["bytes_copied"]) == (plan["packs"], plan["bytes_copied"])
    assert done["snapshots_repointed"] == 1 and before - stored(desk) > plan["bytes_freed"]
    desk.run("verify", "--json").expect()
    assert host.run("verify", "--json").expect().json["proof"]["orphans"] == 0
    again = desk.run(*words, "--dry-run", "--json").expect().json
    assert again["repack"]["packs"] == 0 == again["objects_to_mark"] and again["repack"]["snapshots"] == []

    target = home.create_database("compact_target")
    assert desk.run("restore", "latest", "--to", target, "--json").expect().json["proof"]["equal"] is True
    compare.assert_same(source, target)
    made = host.run("backup", "--json", env=env).expect().json
    assert made["result"] == "ok" and made["bytes_read"] < 2**20 and made["chunks_unchanged"] >= made["chunks"] - 2
    target = home.create_database("compact_next")
    assert desk.run("restore", "latest", "--to", target, "--json").expect().json["proof"]["equal"] is True

    needs("age and zstd", bool(shutil.which("age") and shutil.which("zstd")))
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("psql", "pg_restore"):
        (folder / name).write_text(f'#!/bin/sh\nexec {client(name, home.version)} "$@"\n')
        (folder / name).chmod(0o755)
    target = home.create_database("compact_script")
    script = ["bash", str(desk.repository / "restore.sh"), str(desk.identity), target]
    command(script, {"PATH": f"{folder}:{desk.environment['PATH']}", "HOME": str(tmp_path)}).expect()
    compare.assert_same(source, target)
