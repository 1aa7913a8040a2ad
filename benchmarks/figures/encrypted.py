"""A full backup where the server's connections are encrypted, as hosted ones are, against pg_dump the same way."""

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.measure import interleaved, size
from benchmarks.peers import Dump
from benchmarks.results import Figure, Run, Wrong, compared
from tests.support.certificates import make_certificate

OURS = "pgkura backup --full (sealed), over TLS"
PLAIN = "pgkura backup --full (sealed), not encrypted"
_TLS = "?sslmode=require"


def figure(bench: Bench) -> Figure:
    """Wall and CPU."""
    source = bench.server.source(bench.scale, bench.note)
    with _encrypting(bench):
        bench.server.warm(source)
        facts = bench.server.facts(source)
        url = bench.server.url(source)
        contestants = {
            OURS: partial(_ours, bench, url + _TLS, OURS),
            PLAIN: partial(_ours, bench, url + "?sslmode=disable", PLAIN),
        }
        # The newer pg_dump at level 1, if it was built with TLS at all.
        dumps = (peers.GZIP, peers.GZIP_1, *(one for one in peers.newer()[:1] if one.reaches(url + _TLS)))
        contestants |= {_name(one): partial(_dump, bench, url + _TLS, facts["tables"], one) for one in dumps}
        runs = interleaved(contestants, bench.rounds, bench.note, again=bench.again)
    best = [_name(one) for one in dumps[1:]]
    return Figure(
        name="encrypted",
        title="Full backup over an encrypted connection",
        data=facts,
        runs=runs,
        verdicts=(
            compared("wall, against the default", runs, OURS, _name(peers.GZIP), lambda r: r.wall),
            compared("wall, against the best", runs, OURS, best, lambda r: r.wall),
            compared("CPU of client and server, against the best", runs, OURS, best, lambda r: r.cpu),
            compared("wall, against ours that is not encrypted", runs, OURS, PLAIN, lambda r: r.wall),
            compared("CPU, against ours that is not encrypted", runs, OURS, PLAIN, lambda r: r.cpu),
        ),
        checked=(
            f"our last snapshots were compared equal with the database; every dump names {facts['tables']} tables",
        ),
        notes=("the server's own certificate, sslmode=require, what cipher both sides choose by themselves",),
    )


@contextmanager
def _encrypting(bench: Bench) -> Iterator[None]:
    """The server restarted with a certificate; it comes back as it was."""
    certificate, key = make_certificate(bench.fresh("certificate"), "benchmark")
    certificate.parent.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(key, pwd.getpwnam("nobody").pw_uid, -1)
    bench.server.stop()
    try:
        bench.server.start({"ssl": "on", "ssl_cert_file": f"'{certificate}'", "ssl_key_file": f"'{key}'"})
        yield
    finally:
        bench.server.stop()
        bench.server.start()


def _name(one: Dump) -> str:
    return f"{one.name}, over TLS"


def _ours(bench: Bench, url: str, name: str, number: int) -> Run:
    repository = bench.ours("encrypted-ours")
    told = repository.backup(url, full=True)
    if number == bench.rounds:
        repository.prove(url)
    return told.cost.run(name, number, size=repository.size, received=told.json["bytes_read"])


def _dump(bench: Bench, url: str, tables: object, one: Dump, number: int) -> Run:
    to = bench.folder / "encrypted-dump"
    shutil.rmtree(to, ignore_errors=True)
    cost = one.run(url, to, bench.server.cpu)
    if one.entries(to) != tables:
        raise Wrong(f"{one.name} holds {one.entries(to)} tables, the database {tables}")
    made = cost.run(_name(one), number, size=size(to))
    shutil.rmtree(to)
    return made
