"""Lets a client program without TLS reach a server that wants it: a socket in a private folder, TLS spoken by us.

Protocol: PostgreSQL documentation, 55.2.10 and 55.7 (SSLRequest 80877103, GSSENCRequest 80877104).
"""

import select
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pgkura.core.errors import DatabaseError
from pgkura.postgres.endpoint import Endpoint

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_ENCRYPTION_REQUESTS = (_SSL_REQUEST, struct.pack("!ii", 8, 80877104))
_SASL = struct.pack("!i", 10)
_PIECE = 65536
_TIMEOUT = 20.0


@contextmanager
def client_environment(endpoint: Endpoint, *, has_tls: bool) -> Iterator[dict[str, str]]:
    """PG* variables for a child program; through a relay when it cannot speak TLS itself and the server needs it."""
    environment = endpoint.environment()
    if has_tls or not needs_tls(endpoint):
        yield environment
        return
    with Relay(endpoint) as relay:
        for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGHOSTADDR", "PGCHANNELBINDING"):
            environment.pop(name, None)
        yield environment | {"PGHOST": str(relay.folder), "PGPORT": str(relay.port)}


def needs_tls(endpoint: Endpoint) -> bool:
    """Whether the connection is TLS by what the URL asks for."""
    return endpoint.parameters.get("sslmode", "") in ("require", "verify-ca", "verify-full")


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """As libpq would: `require` encrypts, `verify-ca` checks the chain, `verify-full` the name too."""
    mode = endpoint.parameters.get("sslmode", "require")
    root = endpoint.parameters.get("sslrootcert", "")
    context = ssl.create_default_context(cafile=root if root and root != "system" else None)
    context.check_hostname = mode == "verify-full"
    if mode == "require" and not root:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = endpoint.parameters.get("sslcert", "")
    if certificate:
        context.load_cert_chain(certificate, endpoint.parameters.get("sslkey") or None)
    return context


class Relay:
    """Listens on a unix socket in a 0700 folder; each client gets a TLS connection of its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._context = tls_context(endpoint)
        self.port = endpoint.port
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> "Relay":
        self._temporary = tempfile.TemporaryDirectory(prefix="pgkura-")
        self.folder = Path(self._temporary.name)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = self.folder / f".s.PGSQL.{self.port}"
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._accept, daemon=True, name="pgkura-relay")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._temporary.cleanup()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True, name="pgkura-relay-client").start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                first = _first_packet(client)
                server = connect_tls(self._endpoint, self._context)
            except (OSError, DatabaseError) as error:
                with suppress(OSError):
                    client.sendall(_fatal(f"relay: {error}"))
                return
            with server, self._tracked(client, server):
                server.sendall(first)
                with suppress(OSError):
                    _introduce(client, server)
                    _pump(client, server)

    @contextmanager
    def _tracked(self, *sockets: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.update(sockets)
        try:
            yield
        finally:
            with self._lock:
                self._open.difference_update(sockets)


def connect_tls(endpoint: Endpoint, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A TLS connection to the server, before its start-up packet. Raises DatabaseError, OSError."""
    address = endpoint.parameters.get("hostaddr") or endpoint.host
    raw = socket.create_connection((address, endpoint.port), timeout=_TIMEOUT)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        raw.sendall(_SSL_REQUEST)
        if raw.recv(1) != b"S":
            raise DatabaseError("the server has no TLS", hint="see sslmode in the URL")
        wrapped = context.wrap_socket(raw, server_hostname=endpoint.host)
    except BaseException:
        raw.close()
        raise
    wrapped.settimeout(None)
    return wrapped


def _first_packet(client: socket.socket) -> bytes:
    """The start-up or cancel packet, after refusing the client's own requests for encryption."""
    while True:
        head = _exactly(client, 4)
        (length,) = struct.unpack("!i", head)
        if not 8 <= length <= 10000:
            raise OSError("not a PostgreSQL client")
        packet = head + _exactly(client, length - 4)
        if packet not in _ENCRYPTION_REQUESTS:
            return packet
        client.sendall(b"N")


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise OSError("the client left")
        data += piece
    return data


def _introduce(client: socket.socket, server: ssl.SSLSocket) -> None:
    """Pass the server's first messages on, without the channel binding that our client could not do.

    A libpq without TLS refuses a server that offers SCRAM-SHA-256-PLUS (PostgreSQL documentation, 55.3). The client
    then says that it knows no channel binding, which is true, and the exchange stays between the two of them.
    """
    while True:
        kind = _exactly(server, 1)
        (length,) = struct.unpack("!i", head := _exactly(server, 4))
        body = _exactly(server, length - 4)
        if kind == b"R" and body[:4] == _SASL:
            names = [n for n in body[4:].split(b"\0") if n and not n.endswith(b"-PLUS")]
            body = _SASL + b"".join(n + b"\0" for n in names) + b"\0"
            head = struct.pack("!i", len(body) + 4)
        client.sendall(kind + head + body)
        if kind != b"v":
            return


def _pump(client: socket.socket, server: ssl.SSLSocket) -> None:
    """Both directions in one thread: a TLS connection may not be read and written by two threads at once."""
    with suppress(OSError):
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if client in ready:
                piece = client.recv(_PIECE)
                if not piece:
                    return
                server.sendall(piece)
            if server in ready:
                while True:
                    piece = server.recv(_PIECE)
                    if not piece:
                        return
                    client.sendall(piece)
                    if not server.pending():
                        break


def _fatal(message: str) -> bytes:
    """An ErrorResponse that the client can show."""
    body = b"SFATAL\0C08006\0M" + message.encode("utf-8", "replace").replace(b"\0", b" ") + b"\0\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body
