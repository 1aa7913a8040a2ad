"""A server that wants TLS, reached by the driver and, for a pg_dump that cannot speak it, through the relay."""

import os
import pwd
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.support import compare
from tests.support.certificates import make_certificate
from tests.support.cli import Desk
from tests.support.cluster import Cluster, start_cluster
from tests.support.servers import PASSWORD, binaries, needs, server

from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.several import Several
from pgkura.programs.pgtools import find_client

VERSION = 18


@dataclass(frozen=True)
class Secure:
    """A TLS-only server, its CA, and a CA that did not sign it."""

    cluster: Cluster
    ca: Path
    stranger: Path

    def url(self, options: str) -> str:
        """With connection options."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.cluster.port}/postgres?{options}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """Started with a certificate for 127.0.0.1; pg_hba lets nobody in without TLS."""
    home = binaries(VERSION)
    needs(f"PostgreSQL {VERSION} with TLS", home is not None and "pixeltable" not in str(home))
    assert home is not None
    folder = tmp_path_factory.mktemp("tls")
    for parent in (folder, *folder.parents):
        if parent.owner() == Path("/tmp").owner() and parent != Path("/tmp") and str(parent).startswith("/tmp"):
            parent.chmod(0o755)
    certificate, key = make_certificate(folder, "server")
    stranger, _ = make_certificate(folder, "stranger")
    if os.geteuid() == 0:
        os.chown(key, pwd.getpwnam("nobody").pw_uid, -1)
    settings = {"ssl": "on", "ssl_cert_file": f"'{certificate}'", "ssl_key_file": f"'{key}'", "wal_level": "logical"}
    cluster = start_cluster(home, superuser="postgres", password=PASSWORD, settings=settings)
    hba = cluster.folder / "data" / "pg_hba.conf"
    hba.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    with psycopg.connect(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{cluster.port}/postgres", autocommit=True) as c:
        c.execute("SELECT pg_reload_conf()")
        c.execute("CREATE TABLE t (id int PRIMARY KEY, note text)")
        c.execute("INSERT INTO t SELECT n, repeat('x', n % 100) FROM generate_series(1, 5000) n")
    yield Secure(cluster, certificate, stranger)
    cluster.stop()


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_backup_over_tls_with_a_client_that_has_none(mode: str, secure: Secure, tmp_path: Path) -> None:
    """The wheel's pg_dump has no TLS: the relay speaks it, verifying as the URL says."""
    assert not find_client("pg_dump", VERSION).has_tls
    options = f"sslmode={mode}" + (f"&sslrootcert={secure.ca}" if mode == "verify-full" else "")
    desk = Desk(tmp_path)
    desk.run("init").expect()
    backup = desk.run("backup", "--json", env={"DATABASE_URL": secure.url(options)}).expect().json
    assert backup["result"] == "ok" and backup["rows"] == 5000
    target = server(VERSION).create_database("from_tls")
    desk.run("restore", "latest", "--to", target).expect()
    compare.assert_same(secure.url("sslmode=require"), target, sections=["rows", "sequences"])


def test_rows_of_every_size_over_tls(secure: Secure) -> None:
    """One row alone, whose end may be decrypted with what came before it and shows in no socket; many, and back."""
    with connect(Endpoint.parse(secure.url("sslmode=require")), application_name="sizes") as session:
        assert session._connection.pgconn.ssl_in_use
        for size in [n * 8192 + more for n in (0, 1, 2, 3, 4, 31, 64, 129, 400) for more in (1, 7, 4093, 8187, 8190)]:
            began = time.monotonic()
            (batch,) = session.copy_out(f"COPY (SELECT repeat('x', {size})) TO STDOUT (FORMAT binary)", binary=True)
            assert bytes(batch.data) == b"\0\1" + size.to_bytes(4, "big") + b"x" * size
            assert time.monotonic() - began < 30, "it waited for what was there"
        session.execute("CREATE TEMPORARY TABLE back (a text)")
        mixed = "COPY (SELECT repeat('y', (i * 7919) % 90000) FROM generate_series(1, 900) i) TO STDOUT"
        rows = list(session.copy_out(mixed))
        with session.copy_in("COPY back FROM STDIN") as copy:
            for batch in rows:
                copy.write(bytes(batch.data))
        told = session.one("SELECT count(*), sum(length(a)) FROM back")
        assert told == (900, sum(i * 7919 % 90000 for i in range(1, 901)))
        statements = [f"COPY (SELECT i FROM generate_series(1, {n}) i) TO STDOUT" for n in (3, 0, 100_000, 1)]
        with Several(session, statements) as several:
            counts = [sum(b.rows for b in several.copy_out(statement)) for statement in statements]
        assert counts == [3, 0, 100_000, 1]


@pytest.mark.parametrize(
    ("options", "word"),
    [("sslmode=disable", "pg_hba"), ("sslmode=verify-full&sslrootcert={stranger}", "certificate")],
)
def test_refused_connections_say_why(options: str, word: str, secure: Secure, tmp_path: Path) -> None:
    """No TLS, or a certificate that nobody vouches for."""
    desk = Desk(tmp_path)
    desk.run("init").expect()
    url = secure.url(options.format(stranger=secure.stranger))
    refused = desk.run("backup", env={"DATABASE_URL": url}).expect(14)
    assert word in refused.err and PASSWORD not in refused.err and "Traceback" not in refused.err


def test_a_server_without_tls_is_not_spoken_to(tmp_path: Path) -> None:
    """sslmode=require means it."""
    desk = Desk(tmp_path)
    desk.run("init").expect()
    refused = desk.run("backup", env={"DATABASE_URL": server(15).url() + "?sslmode=require"}).expect(14)
    assert "TLS" in refused.err
