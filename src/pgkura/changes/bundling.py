"""Make bundles: read segments, write their sealed messages together, then one record. Takes nothing away.

Whatever step a kill comes after, every segment is still where it was: bodies that no bundle names are orphans, and a
bundle counts only when it is there. Two who do it at once write bundles beside each other, and readers take either.
"""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pgkura.changes.log import decode
from pgkura.changes.spans import FAN, Group, cover, plan_bundles
from pgkura.core.errors import Interrupted, PgkuraError, PlanOutdated, StoreError, Tampered
from pgkura.core.progress import Progress, Silent
from pgkura.core.stop import Stop
from pgkura.repository.bundles import BundleName, Entry, Run, name_of
from pgkura.repository.changes import CHANGES, END, START, PartRef, SegmentName
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyExists, KeyNotFound, Storage

# Sealed messages of one body; one that is half as long goes into a larger bundle as it is.
BODY_BYTES = 8 * 1024 * 1024
Signed = tuple[str, dict[str, Any], bytes]


@dataclass(slots=True, kw_only=True)
class Bundled:
    """What was made. `left`: a group's first file → why it is left as it is."""

    bundles: int = 0
    segments: int = 0
    bytes: int = 0
    left: dict[str, str] = field(default_factory=dict)


def groups_of(repo: Repository, chain: str, *, ended: bool | None = None, fan: int = FAN) -> list[Group]:
    """What can be bundled now. `ended`: nothing follows; None = as its records say."""
    start = repo.chain_record(chain, START)
    if start is None or repo.chain_gone(chain):
        return []
    over = repo.chain_record(chain, END) is not None if ended is None else ended
    return plan_bundles(cover(repo.chain_start(chain, start), repo.runs(chain)), ended=over, fan=fan)


def bundle_groups(
    repo: Repository, chain: str, groups: Sequence[Group], progress: Progress, stop: Stop, *, at_once: int = 2
) -> Bundled:
    """One after the other; one that cannot be made is named, and the next is tried. Raises Interrupted, StoreError.

    `at_once`: segments that are read at the same time; memory holds so many of at most 4 MiB.
    """
    done = Bundled()
    for group in groups:
        stop.check()
        try:
            made = _Maker(repo, chain, stop, at_once)
            if made.make(group.runs) is not None:
                done.bundles += 1
                done.segments += group.segments
                done.bytes += made.bytes
        except KeyNotFound:
            done.left[group.runs[0].key(chain)] = "somebody else bundled or removed it"
        except (Interrupted, StoreError):
            raise
        except PgkuraError as error:
            done.left[group.runs[0].key(chain)] = error.reason
        progress.advance(group.segments)
    return done


class _Maker:
    """One bundle."""

    def __init__(self, repo: Repository, chain: str, stop: Stop, at_once: int) -> None:
        self._repo, self._chain, self._stop, self._at_once = repo, chain, stop, at_once
        self._entries: list[Entry] = []
        self._hosts: set[str] = set()
        self._pieces: list[bytes] = []
        self._waiting: list[tuple[Entry, int]] = []
        self._size = 0
        self._made: list[PartRef] = []
        self.bytes = 0

    def make(self, runs: Sequence[Run]) -> BundleName | None:
        """None where somebody else made the same one. Raises Tampered, KeyNotFound, PlanOutdated, StoreError."""
        try:
            with ThreadPoolExecutor(self._at_once, thread_name_prefix="pgkura-read") as pool:
                for run, read in self._ahead(pool, runs):
                    self._stop.check()
                    if isinstance(run, BundleName):
                        self._take_bundle(run)
                    elif read is not None:
                        self._take_segment(run, *read.result())
            self._end_body()
            self._look()
        except BaseException:
            self._take_back()
            raise
        return self._commit()

    def _ahead(self, pool: ThreadPoolExecutor, runs: Sequence[Run]) -> Iterator[tuple[Run, "Future[Signed] | None"]]:
        """Segments are asked for before it is their turn; bundles are not."""
        waiting: deque[tuple[Run, Future[Signed] | None]] = deque()
        for run in runs:
            read = pool.submit(self._repo.signed_segment, self._chain, run) if isinstance(run, SegmentName) else None
            waiting.append((run, read))
            if len(waiting) > self._at_once:
                yield waiting.popleft()
        yield from waiting

    def _take_segment(self, name: SegmentName, signer: str, record: dict[str, Any], sealed: bytes) -> None:
        decode(record, name, self._chain, name.key(self._chain))
        if len(sealed) != record["rest"]["bytes"]:
            raise Tampered(f"{name.key(self._chain)} contradicts itself", detail="it is cut short")
        self._hosts.add(signer)
        self._add(Entry.of(name, record, sealed), sealed)

    def _take_bundle(self, name: BundleName) -> None:
        bundle = self._repo.bundle(self._chain, name)
        self._hosts |= {bundle.head.signer, *bundle.head.hosts}
        known: tuple[PartRef | None, bytes] = (None, b"")
        for entry in bundle.entries:
            if entry.body is None or entry.body.bytes >= BODY_BYTES // 2:
                self._end_body()
                self._entries.append(entry)
                continue
            if known[0] != entry.body:
                known = (entry.body, self._repo.body(self._chain, entry.body))
            self._add(entry, known[1][entry.offset : entry.offset + entry.size])

    def _add(self, entry: Entry, sealed: bytes) -> None:
        if not sealed:
            self._entries.append(entry)
            return
        self._waiting.append((entry, self._size))
        self._entries.append(entry)
        self._pieces.append(sealed)
        self._size += len(sealed)
        if self._size >= BODY_BYTES:
            self._end_body()

    def _end_body(self) -> None:
        """What waits becomes a body, and its entries say so."""
        if not self._pieces:
            return
        ref = self._repo.put_body(self._chain, self._pieces)
        self._made.append(ref)
        self.bytes += ref.bytes
        placed = {id(entry): entry.placed(ref, offset) for entry, offset in self._waiting}
        self._entries = [placed.get(id(e), e) for e in self._entries]
        self._pieces, self._waiting, self._size = [], [], 0

    def _commit(self) -> BundleName | None:
        """From here on bodies are taken back only if a bundle is there that does not name them: an error may hide that
        ours was stored."""
        name = name_of(self._entries)
        try:
            # Of a revoked host only what counts was read: from here on it is our word.
            self._repo.put_bundle(self._chain, self._entries, self._hosts - self._repo.revoked_hosts)
        except KeyExists:
            if set(self._repo.bundle_head(self._chain, name).bodies).isdisjoint(self._made):
                self._take_back()
                return None
        try:
            self._look()
        except PlanOutdated:
            with suppress(StoreError):
                self._repo.drop_bundle(self._chain, name)
            raise
        return name

    def _look(self) -> None:
        """A machine that stood still for the whole grace time may find that its bodies were taken for orphans."""
        if not all(self._repo.has_body(self._chain, ref) for ref in self._made):
            raise PlanOutdated("a bundle's body was removed before the bundle was there", hint="run it again")

    def _take_back(self) -> None:
        """Bodies that no bundle names, as far as we may."""
        for ref in self._made:
            with suppress(StoreError):
                self._repo.storage.delete(f"{CHANGES}{self._chain}/bodies/{ref.id}")
        self._made = []


def can_delete(storage: Storage) -> bool:
    """Whether this credential takes files away: tried on one of its own."""
    key = f"probe/{secrets.token_hex(8)}"
    try:
        storage.create(key, b"")
        storage.delete(key)
        storage.get(key)
    except KeyNotFound:
        return True
    except StoreError:
        return False
    return False


class Bundler:
    """Beside a watcher, in a thread of its own: now and then its segments become bundles. A failure costs nothing."""

    def __init__(self, repo: Repository, wanted: bool | None, progress: Progress) -> None:
        self._repo, self._wanted, self._progress = repo, wanted, progress
        self._stop = Stop()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pgkura-bundle")
        self._running: Future[None] | None = None
        self._stored = FAN  # of runs before, who knows
        self._told: set[str] = set()
        self._notes: deque[str] = deque()

    def stored(self, chain: str) -> None:
        """One more segment is there."""
        self._stored += 1
        while self._notes:
            self._progress.note(self._notes.popleft())
        if self._wanted is False or self._stored < FAN or (self._running is not None and not self._running.done()):
            return
        self._stored = 0
        self._running = self._pool.submit(self._run, chain)

    def _run(self, chain: str) -> None:
        try:
            if self._wanted is None:
                self._wanted = can_delete(self._repo.storage)
            if not self._wanted:
                return
            done = bundle_groups(self._repo, chain, groups_of(self._repo, chain), Silent(), self._stop)
            for file, why in done.left.items():
                self._tell(f"{file} was not bundled: {why}")
        except Interrupted:
            return
        except PgkuraError as error:
            self._tell(f"segments were not bundled: {error.msg}")

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._notes.append(what)

    def close(self, *, patiently: bool = False) -> None:
        """`patiently`: what was begun is ended."""
        if not patiently:
            self._stop.request()
        self._pool.shutdown(wait=True)
