"""Poolers between the product and a test server: a real PgBouncer, and the manners of Supavisor on the wire."""

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.cluster import Cluster, free_port
from tests.support.servers import PASSWORD, Server, needs

_PIECE = 65536


@contextmanager
def pgbouncer(home: Server, *, mode: str, users: tuple[str, ...] = ("postgres",), size: int = 15) -> Iterator[int]:
    """A PgBouncer in front of a server, in `session`, `transaction` or `statement` mode; its port."""
    program = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
    needs("pgbouncer", program is not None)
    assert program is not None
    folder = Path(tempfile.mkdtemp(prefix="kura-bouncer-"))
    folder.chmod(0o755)
    port = free_port()
    (folder / "users").write_text("".join(f'"{u}" "{PASSWORD}"\n' for u in users))
    (folder / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={home.cluster.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {folder}/users\npool_mode = {mode}\n"
        f"default_pool_size = {size}\nmax_client_conn = 100\nquery_wait_timeout = 5\n"
    )
    argv = [program, "-q", *(["-u", "nobody"] if os.geteuid() == 0 else []), str(folder / "ini")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
    try:
        _wait_for(port, process, folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(100):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"pgbouncer does not listen: {log.read_text()}")


class Supavisor:
    """Speaks to clients as Supavisor's session mode does (its client_handler.ex and db_handler.ex, August 2026).

    Users are `role.project`; only user, database and application name of the start-up packet reach the server, the
    name with "Supavisor - " in front; the backend key data is the pooler's own, small and rising; cancel requests are
    translated; `max_clients` clients at most (`pool_size` of the project).
    """

    def __init__(self, cluster: Cluster, *, max_clients: int = 15) -> None:
        self._target = ("127.0.0.1", cluster.port)
        self._max_clients = max_clients
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._keys: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self.clients = 0
        self.most = 0
        self.cancelled = 0
        self._next = 1000
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Supavisor":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            packet = _packet(client)
            while packet[:4] in (struct.pack("!i", 80877103), struct.pack("!i", 80877104)):
                client.sendall(b"N")
                packet = _packet(client)
            if packet[:4] == struct.pack("!i", 80877102):
                self._cancel(packet[4:])
                return
            with self._lock:
                self.clients += 1
                self.most = max(self.most, self.clients)
                full = self.clients > self._max_clients
            try:
                if full:
                    client.sendall(_error("MaxClientsInSessionMode: max clients reached"))
                else:
                    self._session(client, packet)
            finally:
                with self._lock:
                    self.clients -= 1

    def _session(self, client: socket.socket, packet: bytes) -> None:
        words = packet[4:].rstrip(b"\0").split(b"\0")
        given = dict(zip(words[::2], words[1::2], strict=False))
        role, dot, _project = given[b"user"].partition(b".")
        if not dot:
            client.sendall(_error("Tenant or user not found"))
            return
        known = {b"user": role, b"database": given.get(b"database", role), b"application_name": b"Supavisor"}
        known[b"application_name"] = b"Supavisor - " + given.get(b"application_name", b"")
        body = struct.pack("!i", 196608) + b"".join(k + b"\0" + v + b"\0" for k, v in known.items()) + b"\0"
        with socket.create_connection(self._target) as server:
            server.sendall(struct.pack("!i", len(body) + 4) + body)
            forward = threading.Thread(target=_copy, args=(client, server), daemon=True)
            forward.start()
            self._greet(client, server)
            _copy(server, client)
            forward.join(5)

    def _greet(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            kind = _exactly(server, 1)
            head = _exactly(server, 4)
            body = _exactly(server, struct.unpack("!i", head)[0] - 4)
            if kind == b"K":
                with self._lock:
                    self._next += 1
                    own = struct.pack("!i", self._next) + os.urandom(4)
                    self._keys[own] = body
                body = own
            client.sendall(kind + head + body)
            if kind in (b"Z", b"E"):
                return

    def _cancel(self, key: bytes) -> None:
        with self._lock:
            real = self._keys.get(key)
            self.cancelled += real is not None
        if real is not None:
            with socket.create_connection(self._target) as server:
                server.sendall(struct.pack("!ii", 16, 80877102) + real)
                server.recv(1)


def _packet(sock: socket.socket) -> bytes:
    """A start-up packet without its length."""
    return _exactly(sock, struct.unpack("!i", _exactly(sock, 4))[0] - 4)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise OSError("closed")
        data += piece
    return data


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _error(message: str) -> bytes:
    body = b"SFATAL\0VFATAL\0CXX000\0M" + message.encode() + b"\0\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body
