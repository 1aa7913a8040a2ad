"""Chains of the change log without a database: messages as a server sends them, stored as a watcher stores them."""

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.shelf import Shelf

from pgkura.changes import pgoutput
from pgkura.changes.log import Log, read_chain
from pgkura.changes.segment import MARK, Segmenter, record_of
from pgkura.core.wal import EPOCH_2000, lsn_text
from pgkura.replay.resolving import bases_in, first_place
from pgkura.repository.changes import END, HEAD, START, SegmentName
from pgkura.repository.manifest import Manifest, new_id
from pgkura.repository.repository import Repository

# Positions of one transaction to the next.
STEP = 1000
SHAPE = "a" * 64


def begin(lsn: int, xid: int, time: int = 0) -> bytes:
    """A Begin."""
    return b"B" + struct.pack("!QqI", lsn, time, xid)


def commit(lsn: int, time: int = 0) -> bytes:
    """A Commit that ends 8 bytes later."""
    return b"C" + struct.pack("!BQQq", 0, lsn, lsn + 8, time)


def relation(oid: int = 1) -> bytes:
    """public.ledger (n int key, note text)."""
    columns = b"\1n\0" + struct.pack("!Ii", 23, -1) + b"\0note\0" + struct.pack("!Ii", 25, -1)
    return b"R" + struct.pack("!I", oid) + b"public\0ledger\0d" + struct.pack("!H", 2) + columns


def insert(n: int, note: bytes, oid: int = 1) -> bytes:
    """One row."""
    values = b"".join(b"t" + struct.pack("!I", len(v)) + v for v in (b"%d" % n, note))
    return b"I" + struct.pack("!I", oid) + b"N" + struct.pack("!H", 2) + values


def marked(lsn: int, name: str) -> bytes:
    """A transactional message that names the moment."""
    content = name.encode()
    return b"M" + struct.pack("!BQ", 1, lsn) + MARK.encode() + b"\0" + struct.pack("!I", len(content)) + content


@dataclass(slots=True)
class Made:
    """A chain in the making. Transaction n inserts ledger row n, has number 1000 + n, and commits in second n.

    `at`: of transaction 0.
    """

    repo: Repository
    system: str = "1"
    database: str = "shop"
    noise: int = 200
    part: int = 0
    at: datetime = field(default_factory=lambda: datetime(2026, 11, 1, tzinfo=UTC))
    id: str = ""
    done: int = 0
    position: int = STEP
    segments: list[SegmentName] = field(default_factory=list)
    _told: bool = False
    _top: tuple[int, int] = (0, 0)
    _segmenter: Segmenter | None = None

    def __post_init__(self) -> None:
        self.id = new_id(self.at, max(self.repo.chain_ids(), default=None))
        put = self.repo.put_chain_record
        head = {"system": self.system, "database": self.database, "server_version_num": 180000, "slot": "pgkura_0"}
        put(self.id, HEAD, {**head, "created": self._stamp(0), "host": self.repo.host_id})
        put(self.id, START, {"position": lsn_text(STEP), "timeline": 1, "began": self._stamp(0)})
        put(self.id, f"cover-{SHAPE}", {"tables": [["public", "ledger", "key", ""]], "settled": 0})
        self._segmenter = Segmenter(STEP, lambda packed: self.repo.put_part(self.id, packed))

    def _stamp(self, n: int) -> str:
        return f"{self.at + timedelta(seconds=n):%Y-%m-%dT%H:%M:%SZ}"

    def time(self, n: int) -> int:
        """Of transaction n's commit, in microseconds since 1970."""
        return int((self.at + timedelta(seconds=n)).timestamp()) * 1_000_000

    def add(self, segments: int, *, transactions: int = 1, mark: str = "") -> None:
        """So many more segments of so many transactions each."""
        for _ in range(segments):
            for _ in range(transactions):
                self._transaction(mark)
                mark = ""
            self._store()

    def _transaction(self, mark: str) -> None:
        segmenter, n = self._segmenter, self.done + 1
        assert segmenter is not None
        lsn, time = STEP * (n + 1), self.time(n) - EPOCH_2000
        segmenter.take(lsn, begin(lsn + 500, 1000 + n, time))
        if not self._told:
            segmenter.take(0, relation())
            self._told = True
        dice = random.Random(n)
        segmenter.take(lsn, insert(n, dice.randbytes(self.noise // 2).hex().encode()))
        if mark:
            segmenter.take(lsn, marked(lsn, mark))
        segmenter.take(lsn + 500, commit(lsn + 500, time))
        self.done = n

    def _store(self) -> None:
        segmenter = self._segmenter
        assert segmenter is not None
        if self.part and self.done % self.part == 0:
            segmenter._end_part()
        cut = segmenter.cut()
        sealed = self.repo.seal_messages(cut.rest) if cut.rest else b""
        record = record_of(cut, chain=self.id, before=self._top, rest_bytes=len(sealed))
        self._top = (record["top_xid"], record["top_time"])
        record["poll"] = self.look()
        record["sequences"] = [["public", "ledger_n_seq", self.done]]
        for m in cut.tally.marks:
            told = {"name": m.name, "lsn": lsn_text(m.lsn), "end": lsn_text(m.end), "time": m.time, "xid": m.xid}
            self.repo.put_chain_record(self.id, f"mark-{m.end:016X}", told)
        name = SegmentName(cut.tally.start, cut.tally.end)
        self.repo.put_segment(self.id, name, record, sealed)
        self.segments.append(name)
        self.position = cut.tally.end

    def look(self) -> Mapping[str, Any]:
        """At the source, after the last transaction."""
        n = self.done
        return {
            "position": lsn_text(STEP * (n + 1) + 600),
            "visible": self.visible(n),
            "time": self.time(n) + 500_000,
            "rows": SHAPE,
            "definitions": SHAPE,
        }

    def visible(self, n: int) -> str:
        """A snapshot that sees everything up to transaction n."""
        return f"{1001 + n}:{1001 + n}:"

    def end(self, reason: str = "its slot is gone") -> None:
        """Nothing follows."""
        ended = {"reason": reason, "position": lsn_text(self.position), "ended": self._stamp(self.done)}
        self.repo.put_chain_record(self.id, END, ended)

    def base(self, n: int) -> dict[str, str]:
        """What a manifest says of the log that was taken after transaction n."""
        return {"chain": self.id, "rows": SHAPE, "definitions": SHAPE, "after": lsn_text(STEP * (n + 1) + 600)}

    def as_base(self, manifest: Manifest, n: int) -> Manifest:
        """The same manifest, of a snapshot that was taken after transaction n."""
        return replace(
            manifest,
            system_identifier=self.system,
            database=self.database,
            snapshot=self.visible(n),
            log=self.base(n),
        )


def the_log(repo: Repository, chain: str) -> Log:
    """A chain opened anew."""
    facts = read_chain(repo, chain)
    assert facts is not None
    return Log(repo, facts)


def numbers(log: Log, first: int = 0) -> list[int]:
    """Ledger rows of all transactions from a place on, in the order of the log."""
    found = []
    for payload in log.messages(first, len(log.names) - 1):
        if payload[0] == pgoutput.INSERT:
            change = pgoutput.change(payload)
            assert change.new is not None and isinstance(change.new[0], bytes)
            found.append(int(change.new[0]))
    return found


def add_base(
    shelf: Shelf, made: Made, n: int, *, ago: timedelta = timedelta(0), rows: str = SHAPE, days: int = 0
) -> str:
    """A snapshot that was taken after transaction n; `rows`: its shape; `days`: how long the store shall keep it."""
    snapshot = shelf.add({"ledger": b"%d\n" % n}, ago=ago, database=made.database)
    repo = shelf.host()
    manifest = made.as_base(repo.exact_manifest(snapshot), n)
    assert manifest.log is not None
    expires = f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" if days else ""
    manifest = replace(manifest, log={**manifest.log, "rows": rows}, expires=expires)
    shelf.storage.put(f"snapshots/{snapshot}", repo.seal_manifest(manifest))
    return snapshot


def reached(repo: Repository, chain: str, snapshot: str) -> list[int]:
    """Ledger rows that a restore from this base to the newest moment would apply, in order; [] if it is no base."""
    facts = read_chain(repo, chain)
    if facts is None:
        return []
    log = Log(repo, facts)
    for base in bases_in(log, [repo.exact_manifest(snapshot)]):
        first = first_place(log, base, len(log.names) - 1)
        found = numbers(log, first)
        return [n for n in found if not base.visible.sees(1000 + n)]
    return []
