"""The whole product from the outside: init, backup, loss, restore, proof; equal by an independent comparison too."""

import shutil
from pathlib import Path

import pytest
from tests.support import compare, nasty
from tests.support.cli import ROOT, Desk, command
from tests.support.servers import server, versions

BACKUP_KEYS = {
    "result", "snapshot", "tables", "rows", "bytes_read", "bytes_stored", "chunks", "chunks_unchanged", "seconds",
    "peak_memory_bytes", "skipped",
}  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.mark.parametrize("version", versions())
def test_nasty_database_comes_back_equal(version: int, desk: Desk) -> None:
    """Superuser, every object kind, same version: our proof and pg_dump against pg_dump agree."""
    home = server(version)
    source = home.create_database(f"nasty_{version}")
    nasty.fill(home, source.rsplit("/", 1)[1])
    backup = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json
    assert set(backup) >= BACKUP_KEYS
    assert backup["result"] == "ok", backup["skipped"]
    assert backup["rows"] > 0 and backup["chunks"] > 0 and backup["peak_memory_bytes"] > 0

    target = home.create_database(f"nasty_{version}_back")
    restored = desk.run("restore", "latest", "--to", target, "--json").expect().json
    assert restored["result"] == "ok" and restored["proof"]["equal"] is True, restored
    assert restored["rows"] == backup["rows"]
    compare.assert_same(source, target)

    verified = desk.run("verify", "--json").expect().json
    assert verified["result"] == "ok"


def test_second_backup_reuses_unchanged_chunks(desk: Desk) -> None:
    """Nothing changed: every chunk is a reference, hardly anything is stored."""
    home = server(versions()[-1])
    source = home.create_database("twice")
    nasty.fill(home, "twice")
    first = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json
    second = desk.run("backup", "--json", env={"DATABASE_URL": source}).expect().json
    assert second["rows"] == first["rows"]
    assert second["chunks_unchanged"] == second["chunks"] == first["chunks"]
    assert second["bytes_stored"] < first["bytes_stored"]
    assert len(desk.run("snapshots", "--json").expect().json["snapshots"]) == 2


def test_restore_refuses_a_full_target_and_touches_nothing(desk: Desk) -> None:
    """A target with objects is refused by exit code 18 until the user says otherwise."""
    home = server(versions()[-1])
    source = home.create_database("full_source")
    nasty.fill(home, "full_source")
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    before = compare.schema_dump(source)
    refused = desk.run("restore", "latest", "--to", source, "--yes").expect(18)
    assert "not empty" in refused.err
    assert compare.schema_dump(source) == before


def test_dry_run_touches_nothing_and_names_the_target(desk: Desk) -> None:
    """DRY_RUN=true and --dry-run show the plan; a misspelt DRY_RUN is a usage error."""
    home = server(versions()[-1])
    source = home.create_database("dry_source")
    nasty.fill(home, "dry_source")
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    target = home.create_database("dry_target")
    before = compare.schema_dump(target)
    for environment in ({"DRY_RUN": "true"}, {"DRY_RUN": "1"}, {"DRY_RUN": "YES"}):
        shown = desk.run("restore", env=environment | {"DATABASE_URL": target}).expect()
        assert "dry_target" in shown.out and "sequences" in shown.out.lower()
    assert compare.schema_dump(target) == before
    desk.run("restore", env={"DRY_RUN": "ture", "DATABASE_URL": target}).expect(2)
    assert compare.schema_dump(target) == before


def test_the_plans_own_command_lines(desk: Desk) -> None:
    """comprehensive-backup.sh and comprehensive-restore.sh DIR are the same product."""
    home = server(versions()[-1])
    source = home.create_database("plan_source")
    nasty.fill(home, "plan_source")
    target = home.create_database("plan_target")
    scripts = ROOT / "scripts" / "backup"
    command([str(scripts / "comprehensive-backup.sh")], desk.environment | {"DATABASE_URL": source}).expect()
    without = {k: v for k, v in desk.environment.items() if k not in ("PGKURA_REPOSITORY", "PGKURA_HOST_KEY")}
    restore = [str(scripts / "comprehensive-restore.sh"), str(desk.repository)]
    command(restore, without | {"DATABASE_URL": target, "DRY_RUN": "true"}).expect()
    command(restore, without | {"DATABASE_URL": target}).expect()
    compare.assert_same(source, target)


def test_url_and_identity_are_enough(desk: Desk, tmp_path: Path) -> None:
    """After the backup host is gone, a new machine with the repository and the identity restores."""
    home = server(versions()[-1])
    source = home.create_database("alone_source")
    nasty.fill(home, "alone_source")
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    elsewhere = Desk(tmp_path / "laptop")
    shutil.copytree(desk.repository, elsewhere.repository)
    elsewhere.identity.parent.mkdir()
    shutil.copy(desk.identity, elsewhere.identity)
    target = home.create_database("alone_target")
    elsewhere.run("restore", "latest", "--to", target).expect()
    compare.assert_same(source, target)
