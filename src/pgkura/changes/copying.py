"""A change log at a second place, byte for byte, without the identity.

Of a chain first what tells of it, then its files as a reader takes them, in their order: parts and bodies before what
names them. So whatever is there is a log that ends earlier, and a copy that was cut short goes on where it was. What
the copy holds already in bundles of its own is not brought again.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from pgkura.changes.spans import cover, covered, replaced
from pgkura.core.errors import PgkuraError, StoreError, Tampered
from pgkura.core.progress import Progress
from pgkura.core.stop import Stop
from pgkura.repository.bundles import CUT, GONE, BundleName, Run
from pgkura.repository.changes import CHAINS, CHANGES, END, HEAD, START, PartRef
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyExists, KeyNotFound, Storage


@dataclass(slots=True, kw_only=True)
class CopiedLog:
    """What was done. `problems`: file → why it is not in the copy; what comes after it is not there either."""

    chains: int = 0
    files: int = 0
    present: int = 0
    bytes: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, int]:
        """`changes` of `copy --json`."""
        return {
            "chains": self.chains,
            "files_copied": self.files,
            "files_present": self.present,
            "bytes_copied": self.bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A segment's or bundle's file, opened and found good; the files that it needs."""

    data: bytes
    bodies: tuple[PartRef, ...]
    parts: tuple[PartRef, ...]


class LogCopier:
    """One run. `check`: what the copy has is read back and compared; `workers`: files that are read at once."""

    def __init__(
        self,
        source: Repository,
        target: Storage,
        progress: Progress,
        stop: Stop,
        *,
        check: bool = False,
        storage_class: str = "",
        workers: int = 4,
    ) -> None:
        self._source, self._target = source, source.at(target)
        self._progress, self._stop = progress, stop
        self._check, self._class, self._workers = check, storage_class, workers
        self.done = CopiedLog()

    def copy(self, chains: Iterable[str]) -> None:
        """Each that is there and does not go. Raises what the target raises."""
        known = set(self._source.chain_ids())
        for chain in chains:
            self._stop.check()
            if chain not in known:
                continue
            try:
                if self._source.chain_gone(chain):
                    continue
                self._chain(chain)
            except KeyNotFound:
                self.done.notes.append(f"change log {chain} was pruned while it was to be copied: run it again")
            except Tampered as error:
                self.done.problems[f"{CHAINS}{chain}"] = error.reason

    def _chain(self, chain: str) -> None:
        source, target = self._source, self._target
        names = source.chain_names(chain, "")
        late = {END, GONE} | {n for n in names if n.startswith(CUT)}
        for name in sorted(set(names) - late, key=lambda n: (n != HEAD, n == START, n)):
            self._record(chain, name)
        self.done.chains += 1
        start = source.chain_record(chain, START)
        if start is None:
            return
        begin, runs = source.chain_start(chain, start), target.runs(chain)
        if covered(target.chain_start(chain, start), runs) < begin and (cut := source.chain_cut(chain)) is not None:
            self._record(chain, cut.name)
        own = target.chain_start(chain, start)
        wanted = [run for run in cover(begin, source.runs(chain)) if run.end > own]
        if self._runs(chain, wanted, runs) and END in names:
            self._record(chain, END)

    def _record(self, chain: str, name: str) -> None:
        key = f"{CHAINS}{chain}/{name}"
        try:
            data = self._source.storage.get(key)
            self._source.open_record("chain", key, data)
        except KeyNotFound:
            return
        except PgkuraError as error:
            self.done.problems[key] = error.reason
            return
        self._put(key, data)

    def _runs(self, chain: str, wanted: Sequence[Run], there: Sequence[Run]) -> bool:
        """Whether all are there in the end. What does not open ends it: behind a gap nothing can be read."""
        known = set(there)
        held = replaced(wanted, [run for run in there if isinstance(run, BundleName)]) | known
        needed = [run for run in wanted if run not in held or (self._check and run in known)]
        self.done.present += len(wanted) - len(needed)
        self._progress.stage(f"copying change log {chain}", total=len(needed), unit="files")
        lying = {i: s.size for p in ("parts", "bodies") for i, s in self._target.loose_files(chain, p).items()}
        with ThreadPoolExecutor(self._workers) as pool:
            for run, read in self._ahead(pool, chain, needed):
                self._stop.check()
                try:
                    found = read.result()
                    for place, refs in (("parts", found.parts), ("bodies", found.bodies)):
                        for ref in refs:
                            self._file(chain, place, ref, lying)
                except KeyNotFound:
                    raise
                except (Tampered, StoreError) as error:
                    self.done.problems[run.key(chain)] = f"{error.reason}; what comes after it is not copied"
                    return False
                self._put(run.key(chain), found.data)
                self._progress.advance(1)
        return True

    def _ahead(
        self, pool: ThreadPoolExecutor, chain: str, runs: Sequence[Run]
    ) -> Iterator[tuple[Run, "Future[_Read]"]]:
        """In order, a few of them read before it is their turn."""
        waiting: deque[tuple[Run, Future[_Read]]] = deque()
        try:
            for run in runs:
                waiting.append((run, pool.submit(self._read, chain, run)))
                if len(waiting) > self._workers:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()

    def _read(self, chain: str, run: Run) -> _Read:
        data = self._source.storage.get(run.key(chain))
        if isinstance(run, BundleName):
            head = self._source.bundle_head(chain, run, data)
            return _Read(data=data, bodies=head.bodies, parts=head.parts)
        record = self._source.signed_segment(chain, run, data)[1]
        parts = (PartRef(id=p["id"], bytes=p["bytes"], sha256=p["sha256"]) for p in record["parts"])
        return _Read(data=data, bodies=(), parts=tuple(parts))

    def _file(self, chain: str, place: str, ref: PartRef, lying: dict[str, int]) -> None:
        """A part or a body."""
        key = f"{CHANGES}{chain}/{place}/{ref.id}"
        if lying.get(ref.id) == ref.bytes and not (self._check and not _is(self._target.storage.get(key), ref)):
            self.done.present += 1
            return
        data = self._source.storage.get(key)
        if not _is(data, ref):
            raise Tampered(f"{key} is damaged", detail="its bytes are not those that were stored")
        if ref.id in lying:
            self._target.storage.put(key, data, storage_class=self._class)
            self.done.notes.append(f"{key} was not that of the source: put right")
        else:
            self._create(key, data, self._class)
        lying[ref.id] = ref.bytes
        self.done.files += 1
        self.done.bytes += len(data)

    def _put(self, key: str, data: bytes) -> None:
        """A signed file; one that is there in other bytes is put right, for its name says what is in it."""
        if self._create(key, data, ""):
            self.done.files += 1
            self.done.bytes += len(data)
        elif self._target.storage.get(key) != data:
            self._target.storage.put(key, data)
            self.done.notes.append(f"{key} was not that of the source: put right")
            self.done.files += 1
        else:
            self.done.present += 1

    def _create(self, key: str, data: bytes, storage_class: str) -> bool:
        try:
            self._target.storage.create(key, data, storage_class=storage_class)
        except KeyExists:
            return False
        return True


def _is(data: bytes, ref: PartRef) -> bool:
    return len(data) == ref.bytes and hashlib.sha256(data).hexdigest() == ref.sha256
