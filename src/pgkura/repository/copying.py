"""The same repository at a second place, byte for byte, without the identity: only what is whole is copied.

Order: keys and head, objects, index, references and manifests, journal. A copy that was cut short goes on where it was.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from pgkura.core.errors import PgkuraError, RepositoryExists, Tampered
from pgkura.core.progress import Progress
from pgkura.core.refs import ObjectRef
from pgkura.core.stop import Stop
from pgkura.repository import manifest as manifests_format
from pgkura.repository.claims import SNAPSHOTS, commit_claimed, refuse_taken, replace_claimed
from pgkura.repository.ground import Ground, Lying
from pgkura.repository.journal import JOURNAL
from pgkura.repository.keeping import INDEX, STATE, named_once, slices
from pgkura.repository.keycopying import KEYS, CopiedKeys, KeyCopy
from pgkura.repository.packs import object_id, object_key
from pgkura.repository.references import REFERENCES
from pgkura.repository.repository import Repository
from pgkura.repository.scripts import NAMES
from pgkura.repository.shelf import ChunkShelf
from pgkura.repository.spool import ObjectMap
from pgkura.repository.survey import references_of
from pgkura.repository.trust import REPOSITORY_KEY
from pgkura.storage.base import KeyExists, KeyNotFound, Storage


@dataclass(slots=True, kw_only=True)
class Copied:
    """What was done. `problems`: file or snapshot → why it is not in the copy, or not whole there."""

    snapshots: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    objects: int = 0
    objects_present: int = 0
    bytes: int = 0
    records: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """One to be copied: its files as they are, and what it needs."""

    id: str
    manifest: bytes
    references: bytes
    state: bytes | None
    objects: Mapping[str, ObjectRef]


def prepare_copy(source: Repository, target: Storage) -> CopiedKeys:
    """Make `target` a copy with the same keys, or see that it is one, and take what changed in `keys/` there.

    Raises RepositoryExists for anything else, UsageError where keys were changed at both.
    """
    head = source.storage.get(REPOSITORY_KEY)
    try:
        there = target.get(REPOSITORY_KEY)
    except KeyNotFound:
        there = None
        _refuse_foreign(source.storage, target)
    if there not in (None, head):
        raise RepositoryExists(
            f"{target.url} is another repository",
            detail="a copy bears the same id and the same root key",
            hint="choose an empty place for the copy",
        )
    keys = KeyCopy(repository_id=source.repository_id, root=source.root, source=source.storage, target=target).copy()
    if there is None:
        with suppress(KeyExists):  # by another copy at the same time, which wrote the same
            target.create(REPOSITORY_KEY, head)
    return keys


def _refuse_foreign(source: Storage, target: Storage) -> None:
    """A place without a head is empty, or holds the beginning of this very copy."""
    for stored in target.list(""):
        if stored.key.startswith("probe/"):
            continue
        if stored.key in NAMES or stored.key.startswith(KEYS):
            with suppress(KeyNotFound):
                if source.get(stored.key) == target.get(stored.key):
                    continue
        raise RepositoryExists(
            f"{target.url} is not empty",
            detail=f"it holds {stored.key}, and is no copy of this repository",
            hint="choose an empty folder or prefix: nothing of yours shall be mixed with backups",
        )


def _exists(storage: Storage, key: str) -> bool:
    return any(s.key == key for s in storage.list(key))


class Copier:
    """One run. `check`: files of the copy that have the right size are read back and hashed too."""

    def __init__(
        self,
        source: Repository,
        target: Storage,
        progress: Progress,
        stop: Stop,
        *,
        check: bool,
        storage_class: str = "",
    ) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._stop = stop
        self._check = check
        self._storage_class = storage_class
        self.done = Copied()

    def copy(self, ids: Sequence[str], *, workers: int) -> None:
        """Objects, index, then each snapshot whose objects are all there. Raises what the target raises."""
        self._progress.stage("reading snapshots", total=len(ids), unit="snapshots")
        needed = ObjectMap()
        readable = [i for i in ids if self._note(i, needed)]
        bad = self._copy_objects(needed, workers)
        self._copy_index()
        there = {s.key.removeprefix(SNAPSHOTS): s.size for s in self._target.list(SNAPSHOTS)}
        # Read once more instead of held: of hundreds of snapshots, the lists would fill the memory.
        for snapshot in filter(None, map(self._read, readable)):
            self._stop.check()
            later = ObjectMap()  # packed anew at the source since
            for ref in snapshot.objects.values():
                if ref.id not in needed:
                    later.add(ref)
            if later:
                bad |= self._copy_objects(later, workers)
            if lost := [i for i in sorted(bad) if i in snapshot.objects]:
                self._fail(snapshot.id, f"{len(lost)} of its files are not whole, among them {object_key(lost[0])}")
            elif snapshot.id in there:
                self._compare(snapshot)
            else:
                if snapshot.state is not None:
                    self._target.put(STATE + snapshot.id, snapshot.state)
                self._target.put(REFERENCES + snapshot.id, snapshot.references)
                commit_claimed(self._source.at(self._target), snapshot.id, snapshot.manifest, snapshot.objects)
                self.done.snapshots.append(snapshot.id)

    def _note(self, snapshot_id: str, needed: ObjectMap) -> bool:
        """Whether it can be copied; what it needs is added."""
        self._progress.advance(1)
        snapshot = self._read(snapshot_id)
        for ref in () if snapshot is None else snapshot.objects.values():
            needed.add(ref)
        return snapshot is not None

    def _fail(self, snapshot_id: str, why: str) -> None:
        self.done.failed.append(snapshot_id)
        self.done.problems[SNAPSHOTS + snapshot_id] = why

    def _read(self, snapshot_id: str) -> _Snapshot | None:
        """Every signature checked; None for one that cannot be copied."""
        key = SNAPSHOTS + snapshot_id
        source = self._source
        try:
            raw = source.storage.get(key)
            manifest = manifests_format.decode(source.open_record("manifest", key, raw)[1], key)
            if manifest.id != snapshot_id:
                raise Tampered(f"{key} is the manifest of another snapshot")
            objects = references_of(source, manifest)
        except KeyNotFound:
            self.done.notes.append(f"snapshot {snapshot_id} was removed while it was to be copied")
            return None
        except PgkuraError as error:
            self._fail(snapshot_id, error.reason)
            return None
        return _Snapshot(
            id=snapshot_id,
            manifest=raw,
            references=self._references(snapshot_id, objects),
            state=self._state(snapshot_id),
            objects=objects,
        )

    def _state(self, snapshot_id: str) -> bytes | None:
        """What it left for the next backup, if it did; a damaged one is named, and costs that backup a full reading."""
        key = STATE + snapshot_id
        try:
            raw = self._source.storage.get(key)
            self._source.open_record("state", key, raw)
        except KeyNotFound:
            return None
        except PgkuraError as error:
            self.done.problems[key] = error.reason
            return None
        return raw

    def _references(self, snapshot_id: str, objects: Mapping[str, ObjectRef]) -> bytes:
        """The source's file as it is; where there is none, or a damaged one, a new one."""
        key = REFERENCES + snapshot_id
        try:
            raw = self._source.storage.get(key)
            self._source.open_record("references", key, raw)
        except (KeyNotFound, Tampered):
            return self._source.seal_references(snapshot_id, objects)
        return raw

    def _compare(self, snapshot: _Snapshot) -> None:
        """A snapshot that the copy has already: its files are those of the source, or put right."""
        named: Mapping[str, ObjectRef] = {}
        with suppress(PgkuraError):
            named = self._source.at(self._target).references(snapshot.id)
        wrong = {} if _equal(named, snapshot.objects) else {REFERENCES + snapshot.id: snapshot.references}
        there = self._target.get(SNAPSHOTS + snapshot.id)
        other = there != snapshot.manifest  # damaged, or the source was packed anew since
        if snapshot.state is not None and (other or not _exists(self._target, STATE + snapshot.id)):
            wrong[STATE + snapshot.id] = snapshot.state
        for key, data in wrong.items():
            self._target.put(key, data)
            self.done.notes.append(f"{key} was not that of the source: put right")
        if other:
            # Between the two, references do not name what the manifest needs: every prune sees that and waits.
            copy = self._source.at(self._target)
            refuse_taken(copy, snapshot.objects)
            if not replace_claimed(copy, snapshot.id, there, snapshot.manifest):
                self._fail(snapshot.id, "a prune of the copy removes it at this moment")
                return
            self.done.notes.append(f"{SNAPSHOTS}{snapshot.id} was not that of the source: put right")
        self.done.present.append(snapshot.id)

    # --- objects

    def _copy_objects(self, needed: ObjectMap, workers: int) -> set[str]:
        """Ids of those that could not be copied; each is named."""
        ground = Ground()
        look = ground.look((i, s) for s in self._target.list("data/") if (i := object_id(s.key)))
        self._progress.stage("copying objects", total=sum(o.cipher_bytes for o in needed.ascending()), unit="bytes")
        bad: set[str] = set()
        with ThreadPoolExecutor(workers) as pool:
            for ref, why in self._outcomes(pool, needed.ascending(), lambda i: ground.lying(look, i), 2 * workers):
                if why:
                    bad.add(ref.id)
                    self.done.problems[object_key(ref.id)] = why
                self._progress.advance(ref.cipher_bytes)
        return bad

    def _outcomes(
        self, pool: ThreadPoolExecutor, refs: Iterable[ObjectRef], there: Callable[[str], Lying | None], ahead: int
    ) -> Iterator[tuple[ObjectRef, str]]:
        """In order, with a few under way: memory holds no more than those."""
        waiting: deque[tuple[ObjectRef, Future[tuple[bool, str]]]] = deque()
        try:
            for ref in refs:
                self._stop.check()
                lying = there(ref.id)
                waiting.append((ref, pool.submit(self._copy_object, ref, None if lying is None else lying.size)))
                if len(waiting) >= ahead:
                    yield self._outcome(*waiting.popleft())
            while waiting:
                yield self._outcome(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _outcome(self, ref: ObjectRef, future: "Future[tuple[bool, str]]") -> tuple[ObjectRef, str]:
        copied, why = future.result()
        if copied:
            self.done.objects += 1
            self.done.bytes += ref.cipher_bytes
        elif not why:
            self.done.objects_present += 1
        return ref, why

    def _copy_object(self, ref: ObjectRef, there: int | None) -> tuple[bool, str]:
        """(copied, why not). Runs in a thread."""
        key = object_key(ref.id)
        if there == ref.cipher_bytes and (not self._check or _is(self._target.get(key), ref)):
            return False, ""
        try:
            data = self._source.storage.get(key)
        except KeyNotFound:
            return False, "it is missing"
        except PgkuraError as error:
            return False, error.reason
        if not _is(data, ref):
            return False, "its bytes are not those that were stored"
        if there is None:
            try:
                self._target.create(key, data, storage_class=self._storage_class)
            except KeyExists:  # another copy at the same time
                return False, ""
        else:
            self._target.put(key, data, storage_class=self._storage_class)
        return True, ""

    # --- records

    def _copy_index(self) -> None:
        """Index files as they are. A name that a file of the copy's own has: what is missing is added."""
        wanted = ChunkShelf()
        renamed = 0
        for key, data in self._records(INDEX, "index"):
            if self._add(key, data):
                wanted.put((ref, None) for ref in self._source.index(key))
                renamed += 1
        if renamed:
            copy = self._source.at(self._target)
            there = ChunkShelf()
            for key in copy.index_keys():
                there.put((ref, None) for ref in copy.index(key))
            for some in slices(ref for ref in wanted.all() if ref not in there):
                copy.append_index(some)
            there.close()
        wanted.close()

    def copy_journal(self) -> None:
        """Journal records; where the copy has one of its own under the same name, that one stays and is told."""
        for key, data in self._records(JOURNAL, "journal"):
            if self._add(key, data):
                self.done.notes.append(f"{key} is a record of the copy's own; the source's was not copied")

    def _records(self, prefix: str, kind: str) -> Iterator[tuple[str, bytes]]:
        """Those that may not be in the copy (with `check`: all of them), signatures checked."""
        there = {s.key: s.size for s in self._target.list(prefix)}
        listed = sorted(self._source.storage.list(prefix), key=lambda s: s.key)
        self._progress.stage(f"copying {kind}", total=len(listed), unit="files")
        for stored in listed:
            self._progress.advance(1)
            if there.get(stored.key) == stored.size and named_once(stored.key) and not self._check:
                continue
            try:
                data = self._source.storage.get(stored.key)
                self._source.open_record(kind, stored.key, data)
            except KeyNotFound:
                continue  # a prune replaced it
            except PgkuraError as error:
                self.done.problems[stored.key] = error.reason
                continue
            yield stored.key, data

    def _add(self, key: str, data: bytes) -> bool:
        """Whether the name is taken by a file of the copy's own. Damage is put right."""
        try:
            self._target.create(key, data)
        except KeyExists:
            if self._target.get(key) == data:
                return False
            if not named_once(key):
                return True
            self._target.put(key, data)
            self.done.notes.append(f"{key} was not that of the source: put right")
        self.done.records += 1
        return False


def _equal(one: Mapping[str, ObjectRef], other: Mapping[str, ObjectRef]) -> bool:
    return len(one) == len(other) and all(other.get(i) == ref for i, ref in one.items())


def _is(data: bytes, ref: ObjectRef) -> bool:
    return len(data) == ref.cipher_bytes and hashlib.sha256(data).hexdigest() == ref.sha256
