"""Real S3 servers for tests, one of each per session: moto (conditional create, Object Lock) and `rclone serve s3`."""

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from tests.support.servers import needs

BUCKET = "kura-tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server, the environment that reaches it, and a bucket."""

    kind: str
    endpoint: str
    environment: dict[str, str]

    def new_prefix(self) -> str:
        """A URL nobody has used."""
        return f"s3://{BUCKET}/{uuid4().hex[:12]}"

    def storage_class(self, url: str, key: str) -> str:
        """Asked through another library than the product's."""
        prefix = url.removeprefix(f"s3://{BUCKET}/")
        head = self._client().head_object(Bucket=BUCKET, Key=f"{prefix}/{key}")
        return str(head.get("StorageClass", "STANDARD"))

    def keys(self, url: str, prefix: str) -> list[str]:
        """Listed through another library than the product's."""
        home = url.removeprefix(f"s3://{BUCKET}/")
        found = self._client().list_objects_v2(Bucket=BUCKET, Prefix=f"{home}/{prefix}")
        return [str(o["Key"]).removeprefix(f"{home}/") for o in found["Contents"]]

    def make_bucket(self) -> None:
        """The bucket of all tests."""
        self._client().create_bucket(Bucket=BUCKET)

    def new_bucket(self, *, locks: bool = False, versions: bool = False) -> str:
        """A bucket of its own, with Object Lock (which brings versions) or with versions alone; its URL."""
        bucket = f"kura-{uuid4().hex[:12]}"
        self._client().create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locks)
        if versions:
            self._client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return f"s3://{bucket}/home"

    def client(self, service: str = "s3") -> Any:
        """Another library than obstore, for looking and for doing harm."""
        return self._client(service)

    def _client(self, service: str = "s3") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )


_running: dict[str, S3Server] = {}


def s3(kind: str) -> S3Server:
    """The session's server of this kind."""
    if kind not in _running:
        _running[kind] = _start_moto() if kind == "moto" else _start_rclone()
        _running[kind].make_bucket()
    return _running[kind]


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(endpoint: str, key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }


def _start_moto() -> S3Server:
    port = _port()
    server = Path(sys.executable).parent / "moto_server"
    needs("moto", server.exists())
    _spawn([str(server), "-H", "127.0.0.1", "-p", str(port)], f"http://127.0.0.1:{port}/")
    endpoint = f"http://127.0.0.1:{port}"
    return S3Server(kind="moto", endpoint=endpoint, environment=_environment(endpoint, "moto", "moto-secret"))


def _start_rclone() -> S3Server:
    port = _port()
    program = Path(sys.executable).parent / "rclone"
    needs("rclone", program.exists())
    folder = tempfile.mkdtemp(prefix="kura-rclone-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    endpoint = f"http://127.0.0.1:{port}"
    environment = os.environ | {"RCLONE_AUTH_KEY": '"rclone-access,rclone-secret-123"', "RCLONE_CONFIG": "/dev/null"}
    _spawn([str(program), "serve", "s3", folder, "--addr", f"127.0.0.1:{port}"], endpoint, environment)
    return S3Server(
        kind="rclone", endpoint=endpoint, environment=_environment(endpoint, "rclone-access", "rclone-secret-123")
    )


def _spawn(argv: list[str], url: str, environment: dict[str, str] | None = None) -> None:
    child = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end() -> None:
        child.kill()
        child.wait()

    atexit.register(end)
    for _ in range(200):
        if child.poll() is not None:
            raise AssertionError(f"{argv[0]} ended with {child.returncode}")
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(url, timeout=2).close()
            except urllib.error.HTTPError as error:
                error.close()
            return
        time.sleep(0.1)
    raise AssertionError(f"{argv[0]} does not answer")


def tiny_folder(tmp_path: Path, *, megabytes: int) -> Path:
    """A folder with very little room: a small tmpfs of our own (needs root)."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = shutil.which("mount")
    can = os.geteuid() == 0 and mount is not None
    done = can and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not done and os.environ.get("PGKURA_TEST_ALL") != "1":
        pytest.skip("needs root and mount, for a small file system")
    assert done, "cannot mount a small tmpfs"
    atexit.register(subprocess.run, ["umount", "-l", str(folder)], capture_output=True, check=False)
    return folder
