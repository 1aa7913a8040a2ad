"""A hostile tenant's database under every verb, run by a superuser: no code of the tenant's runs with those rights."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import compare, hostile
from tests.support.cli import Desk
from tests.support.servers import needs, server, versions

CHOSEN = sorted({v for v in versions() if v == 15} | {versions()[-1]})


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh desk with a repository."""
    made = Desk(tmp_path)
    made.run("init").expect()
    return made


@pytest.fixture
def canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Programs run here: a command out of a dump would leave its canary."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob(hostile.CANARY)), "a command out of the dump ran on this machine"


def clean(url: str, step: str) -> None:
    """Nothing ran as superuser during `step`, by the server's own evidence."""
    ran = hostile.ran_as(url)
    assert not ran, f"{step}: " + "; ".join(f"{r.what} as {r.current_user} (session {r.session_user})" for r in ran)


@pytest.mark.parametrize("event_trigger", [False, True], ids=["plain", "event trigger"])
@pytest.mark.parametrize("version", CHOSEN)
def test_reading_runs_nothing(version: int, event_trigger: bool, desk: Desk, canaries: Path) -> None:
    """doctor, backup, diff and verify as superuser."""
    home = server(version)
    name = f"hostile_read_{version}_{event_trigger:d}"
    home.create_database(name)
    source = hostile.fill(home, name, event_trigger=event_trigger)
    env = {"DATABASE_URL": source}
    desk.run("doctor", env=env).expect()
    clean(source, "doctor")
    backup = desk.run("backup", "--json", env=env).expect().json
    clean(source, "backup")
    assert backup["result"] == "ok" and backup["rows"] > 0
    desk.run("diff", "latest", "database", env=env).expect()
    clean(source, "diff")
    verified = desk.run("verify", "latest", "--against", source, "--json")
    clean(source, "verify --against")
    assert verified.code in (0, 3), verified.err
    assert verified.json["proof"]["equal"] or verified.json["proof"]["differences"]


@pytest.mark.parametrize("version", CHOSEN)
def test_restoring_runs_nothing(version: int, desk: Desk, canaries: Path) -> None:
    """Into a new database of a second server; what cannot be loaded without trusting its code is named."""
    others = [v for v in versions() if v > version] or [version]
    home, second = server(version), server(others[-1])
    name = f"hostile_restore_{version}"
    home.create_database(name)
    source = hostile.fill(home, name)
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    target = second.create_database(f"{name}_back")
    done = desk.run("restore", "latest", "--to", target, "--json")
    if second is not home:
        clean_target(second.url())
    clean(source, "restore, on the source")
    assert done.code in (0, 3), done.err
    found = done.json
    assert (found["result"] == "ok") == (done.code == 0)
    assert found["result"] == "ok" or found["skipped"], "incomplete, and nothing named"
    if found["result"] == "ok":
        compare.assert_same(source, target, sections=("rows", "sequences", "large objects"))


def clean_target(url: str) -> None:
    """The same on a server where the tenant's role may not be known."""
    clean(url, "restore, on the target")


def test_dry_run_and_export_run_nothing(desk: Desk, canaries: Path, tmp_path: Path) -> None:
    """A plan and an export only read; the export's own file is loaded as the tenant, never as a superuser."""
    needs("a server", bool(versions()))
    home = server(versions()[-1])
    home.create_database("hostile_plan")
    source = hostile.fill(home, "hostile_plan")
    desk.run("backup", env={"DATABASE_URL": source}).expect()
    target = home.create_database("hostile_plan_back")
    desk.run("restore", "latest", "--to", target, "--dry-run").expect()
    desk.run("export", "latest", str(tmp_path / "out")).expect()
    desk.run("verify").expect()
    desk.run("show", "latest").expect()
    desk.run("history", "functions").expect()
    clean(source, "plan and export")
