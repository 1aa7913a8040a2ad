"""`--executor`: who does the work. Workers elsewhere are asked for by address, and only over mutual TLS."""

import ipaddress
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pgkura.core.access import Access, shareable
from pgkura.core.errors import UsageError
from pgkura.work.pools import Crew, Kind

_LOCAL: Mapping[str, Kind] = {"auto": "auto", "threads": "threads", "processes": "processes"}
_SCHEMES = frozenset({"dask", "tls", "tcp"})
_PORT = 8786
_FILES = ("PGKURA_DASK_CA", "PGKURA_DASK_CERT", "PGKURA_DASK_KEY")
_HINT = "use auto, threads, processes or dask://host:8786"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of one certificate authority: both sides show a certificate of it, and refuse others."""

    ca: str
    cert: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A checked `--executor`. `scheduler` is `tls://host:port` or, on loopback only, `tcp://host:port`; '' = local."""

    kind: Kind = "auto"
    scheduler: str = ""
    tls: Tls | None = None

    @contextmanager
    def open(self, access: Access) -> Iterator[Crew]:
        """The workers, asked before anything begins whether they can open what `access` names."""
        if not self.scheduler:
            yield Crew(kind=self.kind)
            return
        shareable(access)
        try:
            from pgkura.app import dask_cluster
        except ImportError as error:
            raise UsageError(
                "--executor dask:// needs the package `distributed`",
                detail=str(error),
                hint="pip install 'pgkura[dask]' here, on the scheduler and on all workers",
            ) from error
        with dask_cluster.open_cluster(self.scheduler, self.tls, access) as executor:
            yield Crew(given=executor)

    def check(self, access: Access) -> None:
        """Raises UsageError where workers elsewhere could not do anything with these references."""
        if self.scheduler:
            shareable(access)


def choose(word: str, environment: Mapping[str, str] | None = None) -> Choice:
    """Raises UsageError; connects to nothing."""
    env = os.environ if environment is None else environment
    if word in _LOCAL:
        return Choice(kind=_LOCAL[word])
    parts = urlsplit(word)
    try:
        port = parts.port or _PORT
    except ValueError:
        raise UsageError(f"--executor {word!r} has a port that is no port", hint=_HINT) from None
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path not in ("", "/") or "@" in parts.netloc:
        raise UsageError(f"--executor {word!r} names no kind of worker", hint=_HINT)
    tls = _tls(env)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if tls is not None and parts.scheme != "tcp":
        return Choice(scheduler=f"tls://{host}:{port}", tls=tls)
    if parts.scheme == "tls" or not is_loopback(parts.hostname):
        raise UsageError(
            f"no TLS files for the scheduler at {host}:{port}",
            detail="whoever can speak to a scheduler runs code on its workers, which hold keys and passwords; "
            "off this machine both sides must show certificates",
            hint=f"set {', '.join(_FILES)} to the files of one private authority (and use dask:// or tls://)",
        )
    return Choice(scheduler=f"tcp://{host}:{port}")


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, by its text alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(env: Mapping[str, str]) -> Tls | None:
    paths = [env.get(name, "") for name in _FILES]
    if not any(paths):
        return None
    for name, path in zip(_FILES, paths, strict=True):
        if not path or not Path(path).is_file():
            raise UsageError(
                f"{name} {f'names no file: {path}' if path else 'is missing'}",
                hint=f"{', '.join(_FILES)} belong together",
            )
    return Tls(ca=paths[0], cert=paths[1], key=paths[2])
