"""A real Dask cluster on loopback: a scheduler and worker processes, each with an environment of its own, over TLS."""

import datetime
import ipaddress
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.support.cli import ROOT
from tests.support.cluster import free_port


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files of one authority and one certificate of it."""

    ca: Path
    cert: Path
    key: Path

    @property
    def options(self) -> list[str]:
        """As Dask's programs take them."""
        return ["--tls-ca-file", str(self.ca), "--tls-cert", str(self.cert), "--tls-key", str(self.key)]

    @property
    def variables(self) -> dict[str, str]:
        """As pgkura takes them."""
        return {"PGKURA_DASK_CA": str(self.ca), "PGKURA_DASK_CERT": str(self.cert), "PGKURA_DASK_KEY": str(self.key)}


def certificates(folder: Path) -> Certificates:
    """A new authority."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pgkura test")])
    now = datetime.datetime.now(datetime.UTC)

    def sign(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
        )
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    made.ca.write_bytes(sign(issuer, authority, ca=True))
    made.cert.write_bytes(sign(subject, own, ca=False))
    made.key.write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@dataclass(slots=True)
class DaskCluster:
    """Processes of one test; `stop` ends them."""

    folder: Path
    tls: Certificates | None
    port: int = field(default_factory=free_port)
    scheduler: "subprocess.Popen[bytes] | None" = None
    workers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def address(self) -> str:
        """For --executor."""
        return f"dask://127.0.0.1:{self.port}"

    def start(self, *environments: Mapping[str, str]) -> None:
        """The scheduler, if there is none, and a worker with one thread for each environment."""
        if self.scheduler is None:
            self.scheduler = self._spawn("scheduler", ["--host", "127.0.0.1", "--port", str(self.port)], {})
        for environment in environments:
            self.start_worker(environment)

    def start_worker(self, environment: Mapping[str, str], *where: str) -> None:
        """One; `where` it listens and what it says of that, as options."""
        arguments = [
            f"{self._protocol}://127.0.0.1:{self.port}",
            "--nthreads",
            "1",
            "--no-nanny",
            "--memory-limit",
            "0",
        ]
        self.workers.append(self._spawn("worker", [*arguments, *(where or ("--host", "127.0.0.1"))], environment))

    @property
    def _protocol(self) -> str:
        return "tls" if self.tls is not None else "tcp"

    def dismiss(self) -> None:
        """End the workers, not the scheduler."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers.clear()

    def stop(self) -> None:
        """End everything."""
        self.dismiss()
        if self.scheduler is not None:
            self.scheduler.kill()
            self.scheduler.wait()

    def kill_busy(self, url: str, name: str, seconds: float = 30) -> int:
        """SIGKILL the first worker seen running a statement as `name`…; returns its pid, 0 if none was."""
        query = (
            "SELECT client_port FROM pg_stat_activity WHERE application_name LIKE %s AND state = 'active' "
            "AND query ILIKE 'COPY%%'"
        )
        deadline = time.monotonic() + seconds
        with psycopg.connect(url, autocommit=True, application_name="test") as connection:
            while time.monotonic() < deadline:
                ports = {port for (port,) in connection.execute(query.encode(), (name,)).fetchall()}
                for worker in self.workers if ports else ():
                    if worker.poll() is None and ports & _ports(worker.pid):
                        worker.kill()
                        worker.wait()
                        return worker.pid
                time.sleep(0.005)
        return 0

    def _spawn(self, what: str, arguments: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        number = len(list(self.folder.glob("*.log")))
        common = ["--protocol", self._protocol, "--no-dashboard"]
        common += self.tls.options if self.tls is not None else []
        home = self.folder / f"home-{number}"
        home.mkdir(parents=True)
        base = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        }
        with (self.folder / f"{what}-{number}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *arguments, *common],
                env=base | dict(environment),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _ports(pid: int) -> set[int]:
    try:
        return {c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.laddr}
    except psutil.Error:
        return set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadly:
    """A unit that ends its worker."""

    title: str = "the deadly table"


def die(unit: Deadly) -> None:
    """As if out of memory."""
    os._exit(9)


def double(number: int) -> int:
    """A harmless task."""
    return 2 * number
