"""How one large table is loaded: by one connection with frozen rows, by one in transactions of 64 MiB, by several at
once. Then its indexes, and the proof of its rows, which costs more where their order is another one."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.bench import Bench
from benchmarks.measure import interleaved
from benchmarks.results import Figure, Run, Wrong, compared

from pgkura.core.names import QualifiedName
from pgkura.core.stop import Stop
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.postgres.session import Session
from pgkura.repository.keys import Identity
from pgkura.repository.lists import TableData
from pgkura.repository.repository import Repository
from pgkura.repository.rowsums import new_key
from pgkura.restore.load import copy_chunks
from pgkura.restore.loads import Load
from pgkura.storage.opening import open_storage
from pgkura.verify.checks import Part, TableCheck
from pgkura.verify.tables import Reader, compare_table

TABLE = QualifiedName("lms", "lesson_events")
FROZEN, GROUPS = "TRUNCATE, COPY FREEZE, 1 connection", "COPY by 64 MiB, 1 connection"
SEVERAL = {2: "COPY by 64 MiB, 2 connections", 4: "COPY by 64 MiB, 4 connections"}
PARTS = ("load", "indexes", "proof")


def figure(bench: Bench) -> Figure:
    """Load, indexes, proof: wall and CPU of each."""
    source = bench.server.source(bench.scale, bench.note)
    ours = bench.ours("one-table")
    ours.backup(bench.server.url(source), full=True)
    repo = Repository.open(
        open_storage(str(ours.folder)), identity=Identity.parse(ours.desk.identity.read_text(encoding="utf-8"))
    )
    manifest = repo.manifest("latest")
    (data,) = (one for one in repo.chunk_list(manifest) if one.name == TABLE.sql)
    columns = bench.server.value(
        source,
        "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute "
        f"WHERE attrelid = '{TABLE.sql}'::regclass AND attnum > 0",
    )
    assert isinstance(columns, list)
    trial = _Trial(bench, source, repo, manifest.epoch, data, tuple(columns))
    contestants: dict[str, Callable[[int], Run]] = {
        FROZEN: partial(trial.run, FROZEN, 0),
        GROUPS: partial(trial.run, GROUPS, 1),
    }
    contestants |= {name: partial(trial.run, name, count) for count, name in SEVERAL.items()}
    runs = interleaved(contestants, bench.rounds, bench.note)
    verdicts = [
        compared(f"{part}: {what}", runs, name, FROZEN, lambda r, key=f"{part}_{what}": r.more[key])  # type: ignore[misc]
        for name in (GROUPS, *SEVERAL.values())
        for part in PARTS
        for what in ("wall", "cpu")
    ]
    return Figure(
        name="one_table",
        title="One large table",
        data={"rows": data.rows, "bytes as COPY": data.bytes},
        runs=runs,
        verdicts=verdicts,
        checked=("every load was compared equal with the snapshot",),
        notes=("the table has three indexes, made one after the other; CPU of verdicts is of client and server",),
    )


class _Trial:
    """One table into an empty database, in several ways."""

    def __init__(
        self, bench: Bench, source: str, repo: Repository, epoch: int, data: TableData, columns: tuple[str, ...]
    ) -> None:
        self._bench = bench
        self._source = source
        self._repo = repo
        self._epoch = epoch
        self._data = data
        self._load = Load(data=data, facts=None, target=TABLE, columns=columns, managed=False)

    def run(self, name: str, connections: int, number: int) -> Run:
        """`connections` 0: one, frozen, in one transaction."""
        bench = self._bench
        more: dict[str, float] = {}
        with bench.database("one_table", self._source) as database:
            url = bench.server.url(database)
            bench.server.execute(database, f"TRUNCATE {TABLE.sql}", *_without_indexes(bench, database), "CHECKPOINT")
            with self._measured(more, "load"):
                if connections == 0:
                    self._frozen(url)
                else:
                    self._grouped(url, connections)
            with self._measured(more, "indexes"), _session(url) as session:
                for sql in _indexes(bench, self._source):
                    session.execute(sql)
            with self._measured(more, "proof"), _session(url) as session:
                in_order = self._prove(session)
            more["in_order"] = float(in_order)
            if connections < 2 and not in_order:
                raise Wrong(f"{name}: rows in another order")
        return Run(
            contestant=name,
            round=number,
            wall=sum(more[f"{part}_wall"] for part in PARTS),
            client_cpu=sum(more[f"{part}_client"] for part in PARTS),
            server_cpu=sum(more[f"{part}_server"] for part in PARTS),
            more=more,
        )

    @contextmanager
    def _measured(self, more: dict[str, float], part: str) -> Iterator[None]:
        wall, client, server = time.monotonic(), _own_cpu(), self._bench.server.cpu()
        yield
        more[f"{part}_wall"] = time.monotonic() - wall
        more[f"{part}_client"] = _own_cpu() - client
        more[f"{part}_server"] = self._bench.server.cpu() - server
        more[f"{part}_cpu"] = more[f"{part}_client"] + more[f"{part}_server"]

    def _frozen(self, url: str) -> None:
        with _session(url) as session:
            session.begin(isolation="read committed", read_only=False)
            session.execute(f"TRUNCATE ONLY {TABLE.sql}")
            copy_chunks(session, self._repo, self._load, Stop(), freeze=True)
            session.commit()

    def _grouped(self, url: str, connections: int) -> None:
        waiting = deque(replace(self._load, data=part.data) for part in self._load.parts())
        lock = threading.Lock()

        def work() -> None:
            with _session(url) as session:
                while True:
                    with lock:
                        if not waiting:
                            return
                        part = waiting.popleft()
                    self._part(session, part)

        with ThreadPoolExecutor(connections) as pool:
            for done in [pool.submit(work) for _ in range(connections)]:
                done.result()

    def _part(self, session: Session, part: Load) -> None:
        session.begin(isolation="read committed", read_only=False)
        copy_chunks(session, self._repo, part, Stop(), freeze=False)
        session.commit()

    def _prove(self, session: Session) -> bool:
        check = TableCheck(
            name=TABLE.sql,
            relations=(TABLE,),
            columns=self._load.columns,
            parts=(Part(layers=self._data.layers),),
            rows=self._data.rows,
            bytes=self._data.bytes,
            binary=self._data.binary,
        )
        reader = Reader(repo=self._repo, epoch=self._epoch, key=new_key(), stop=Stop(), received=lambda count: None)
        session.begin()
        result = compare_table(session, reader, check)
        if result.finding is not None:
            raise Wrong(result.finding.reason)
        return result.in_order


def _session(url: str) -> Session:
    session = connect(Endpoint.parse(url), application_name="benchmark")
    session.script("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'")
    return session


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system


def _indexes(bench: Bench, database: str) -> list[str]:
    return _strings(
        bench.server.value(
            database,
            "SELECT array_agg(pg_get_indexdef(indexrelid) ORDER BY indexrelid::regclass::text) FROM pg_index "
            f"WHERE indrelid = '{TABLE.sql}'::regclass",
        )
    )


def _without_indexes(bench: Bench, database: str) -> list[str]:
    constraints = _strings(
        bench.server.value(
            database,
            f"SELECT array_agg(format('ALTER TABLE {TABLE.sql} DROP CONSTRAINT %I', conname)) FROM pg_constraint "
            f"WHERE conrelid = '{TABLE.sql}'::regclass AND contype = 'p'",
        )
    )
    others = _strings(
        bench.server.value(
            database,
            "SELECT array_agg(format('DROP INDEX %s', indexrelid::regclass)) FROM pg_index "
            f"WHERE indrelid = '{TABLE.sql}'::regclass AND NOT indisprimary",
        )
    )
    return [*constraints, *others]


def _strings(value: Any) -> list[str]:
    return list(value or ())
