"""The steps of `prune`, each of which may be the last: tombstone, manifests, references, packs, index, objects.

Whatever step a kill comes after, every manifest that is there is whole, and the next prune goes on.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pgkura.core.errors import PgkuraError, PlanOutdated, StoreError
from pgkura.core.progress import Progress
from pgkura.core.refs import ChunkRef
from pgkura.core.stop import Stop
from pgkura.repository.claims import SNAPSHOTS
from pgkura.repository.compaction import Compaction
from pgkura.repository.doomed import Doomed, find_doomed, finished
from pgkura.repository.keeping import STATE, slices
from pgkura.repository.packs import object_key
from pgkura.repository.references import REFERENCES
from pgkura.repository.repacking import Repacked, Repacker
from pgkura.repository.repository import Repository
from pgkura.repository.shelf import ChunkShelf
from pgkura.repository.survey import Survey, Surveyor, store_now
from pgkura.repository.tombstones import Phase, Tombstone
from pgkura.storage.base import KeyNotFound

# Files that belong to one snapshot, beside its manifest; removed with it.
PER_SNAPSHOT = (STATE, REFERENCES)
_LOOK_AGAIN_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Pruned:
    """What was done. `refused`: files that the store would not delete, with its reason."""

    snapshots: list[str] = field(default_factory=list)
    marked: int = 0
    bytes_marked: int = 0
    deleted: int = 0
    bytes_deleted: int = 0
    spared: int = 0
    index_files: int = 0
    repacked: Repacked = field(default_factory=Repacked)
    refused: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)


class Pruner:
    """One run. Needs a key that signs; opens no data."""

    def __init__(self, repo: Repository, surveyor: Surveyor, progress: Progress, stop: Stop) -> None:
        self._repo = repo
        self._surveyor = surveyor
        self._progress = progress
        self._stop = stop
        self.done = Pruned()

    def remove(self, snapshots: Iterable[str], doomed: Doomed, *, grace: int) -> None:
        """Write the tombstone, then take away manifests, then what belongs to them, then claims of nobody."""
        removed = tuple(sorted(snapshots))
        if removed or doomed.marked:
            self._repo.append_tombstone(
                Tombstone(
                    phase=Phase.MARKED,
                    created=_now(),
                    grace=grace,
                    snapshots=removed,
                    objects=tuple(sorted(doomed.marked)),
                )
            )
        self.done.marked = len(doomed.marked)
        self.done.bytes_marked = sum(doomed.sizes[i] for i in doomed.marked)
        self._progress.stage("removing snapshots", total=len(removed), unit="snapshots")
        for snapshot_id in removed:
            if self._delete(SNAPSHOTS + snapshot_id):
                self.done.snapshots.append(snapshot_id)
            self._progress.advance(1)
        for snapshot_id in (*self.done.snapshots, *doomed.abandoned):
            for prefix in PER_SNAPSHOT:
                self._delete(prefix + snapshot_id)

    def repack(self, plan: Compaction, *, storage_class: str, grace: int) -> None:
        """Pack anew what is needed of sparse packs; these are marked then, as whatever nobody needs."""
        if not plan.snapshots:
            return
        self.done.repacked = Repacker(self._repo, self._progress, self._stop, storage_class).run(plan)
        self._surveyor.forget()
        survey = self._surveyor.look()
        doomed = find_doomed(survey, frozenset(), now=store_now(self._repo.storage), grace=grace)
        if doomed.marked:
            objects = tuple(sorted(doomed.marked))
            self._repo.append_tombstone(Tombstone(phase=Phase.MARKED, created=_now(), grace=grace, objects=objects))
            self.done.marked += len(objects)
            self.done.bytes_marked += sum(doomed.sizes[i] for i in objects)

    def shorten_index(self, *, grace: int) -> None:
        """Index files without the objects that nobody needs: the new file first, then the old ones go."""
        survey = self._surveyor.look()
        doomed = find_doomed(survey, frozenset(), now=store_now(self._repo.storage), grace=grace)
        dead = doomed.marked | doomed.waiting | doomed.due
        if not dead:
            return
        live, elsewhere = ChunkShelf(), ChunkShelf()
        old: list[str] = []
        keys = self._repo.index_keys()
        self._progress.stage("shortening the index", total=len(keys), unit="files")
        for key in keys:
            refs = self._index(key)
            if any(ref.object.id in dead for ref in refs):
                old.append(key)
                live.put((r, None) for r in refs if r.object.id not in dead)
            else:
                elsewhere.put((r, None) for r in refs)
            self._progress.advance(1)
        if not old:
            return
        for some in slices(ref for ref in live.all() if ref not in elsewhere):
            self._repo.append_index(some)
        live.close()
        elsewhere.close()
        for key in old:
            self.done.index_files += self._delete(key)

    def _index(self, key: str) -> list[ChunkRef]:
        try:
            return list(self._repo.index(key))
        except KeyNotFound:
            return []
        except PgkuraError as error:
            self.done.blocked[key] = f"left as it is: {error.reason}"
            return []

    def sweep(self, *, grace: int) -> None:
        """Delete the objects whose grace time is over, then the tombstones that have done their work."""
        storage = self._repo.storage
        survey = self._surveyor.look()
        now = store_now(storage)
        doomed = find_doomed(survey, frozenset(), now=now, grace=grace)
        self.done.blocked.update(doomed.blocked)
        if not doomed.due:
            self._let_go(finished(survey, doomed.over, (), now=now))
            return
        own = self._repo.append_tombstone(
            Tombstone(phase=Phase.CONDEMNED, created=_now(), grace=grace, objects=tuple(sorted(doomed.due)))
        )
        # Claims made before it was written are seen now; later ones see it.
        survey = self._surveyor.look()
        now = store_now(storage)
        if blocked := find_doomed(survey, frozenset(), now=now, grace=grace).blocked:
            self.done.blocked.update(blocked)
            self._let_go((own,))
            return
        deleted = self._delete_due(own, survey, doomed.due)
        self._let_go((*finished(survey, doomed.over, deleted, now=now), own))

    def _let_go(self, tombstones: Iterable[str]) -> None:
        for key in tombstones:
            self._delete(key)

    def _delete_due(self, own: str, survey: Survey, due: frozenset[str]) -> set[str]:
        """Those that nobody needs by the look after the tombstone `own` was written; which ones are gone."""
        sizes: dict[str, int] = {}
        for object_id in sorted(due):
            if survey.needed(object_id):
                self.done.spared += 1
            elif (lying := survey.lying(object_id)) is not None:
                sizes[object_id] = lying.size
        self._progress.stage("deleting objects", total=sum(sizes.values()), unit="bytes")
        deleted: set[str] = set()
        looked = time.time()
        for object_id, size in sizes.items():
            if time.time() - looked > _LOOK_AGAIN_SECONDS:
                self._still_condemned(own)
                looked = time.time()
            self._stop.check()
            if self._delete(object_key(object_id)):
                deleted.add(object_id)
                self.done.deleted += 1
                self.done.bytes_deleted += size
            self._progress.advance(size)
        return deleted

    def _still_condemned(self, own: str) -> None:
        """A machine that stood still for a day must not go on deleting: others took it for dead."""
        if not any(s.key == own for s in self._repo.storage.list(own)):
            raise PlanOutdated("this prune was overtaken by another one", hint="run it again")

    def _delete(self, key: str) -> bool:
        """Whether it is gone; a refusal is kept by name."""
        try:
            self._repo.storage.delete(key)
        except StoreError as error:
            next(iter(self._repo.storage.list(key)), None)  # a store that is not there at all ends the run here
            self.done.refused[key] = error.detail or error.msg
            return False
        return True


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
