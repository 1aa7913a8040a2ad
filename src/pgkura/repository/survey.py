"""What lies in the store and who needs it: the ground of every deletion. Anything that does not open blocks."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pgkura.core.errors import PgkuraError, StoreError, Tampered, WrongKey
from pgkura.core.refs import ObjectRef
from pgkura.repository.claims import SNAPSHOTS
from pgkura.repository.ground import Ground, Lying
from pgkura.repository.manifest import Manifest
from pgkura.repository.packs import object_id
from pgkura.repository.references import REFERENCES, needed_objects
from pgkura.repository.repository import Repository
from pgkura.repository.tombstones import TOMBSTONES, Tombstone
from pgkura.storage.base import KeyNotFound, Storage, Stored

DATA = "data/"


@dataclass(slots=True, kw_only=True)
class Survey:
    """One reading of the store.

    manifests   those that open, by id
    needs       lists of the ground by snapshot id: of manifests, and claims of backups that are not yet snapshots
    claims      references files without a manifest: snapshot id → the store's time of the file
    lacking     manifests without a references file (made before it existed)
    computed    manifests whose needs were read from the chunk list, the references file being missing or damaged
    unreadable  file → why: whatever it needs is unknown, so nothing may be deleted for being unreferenced
    listing     the data files, in the ground
    tombstones  those that open, with their files
    """

    ground: Ground
    manifests: dict[str, Manifest] = field(default_factory=dict)
    needs: dict[str, int] = field(default_factory=dict)
    claims: dict[str, float] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    computed: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    listing: int = 0
    tombstones: list[tuple[Stored, Tombstone]] = field(default_factory=list)

    def free(self, *, without: frozenset[str] = frozenset()) -> dict[str, Lying]:
        """The objects that nobody needs, these snapshots and claims not counted."""
        return dict(self.ground.free(self.listing, self._lists(without)))

    def needed(self, object_id: str, *, without: frozenset[str] = frozenset()) -> bool:
        """Whether somebody needs it."""
        return self.ground.names(self._lists(without), object_id)

    def names(self, snapshots: Iterable[str], object_id: str) -> bool:
        """Whether one of these snapshots needs it."""
        return self.ground.names(frozenset(self.needs[s] for s in snapshots if s in self.needs), object_id)

    def of(self, snapshot_id: str) -> Iterator[str]:
        """The ids of the objects that a snapshot needs."""
        return self.ground.of(self.needs[snapshot_id])

    def lying(self, object_id: str) -> Lying | None:
        """An object of the store."""
        return self.ground.lying(self.listing, object_id)

    def _lists(self, without: frozenset[str]) -> frozenset[int]:
        return frozenset(number for s, number in self.needs.items() if s not in without)


class Surveyor:
    """Surveys again and again; what was read once is not read twice while its file stays the same."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._manifests: dict[Stored, Manifest] = {}
        self._references: dict[Stored, int] = {}
        self._computed: dict[str, int] = {}
        self._ground = Ground()

    def look(self) -> Survey:
        """Manifests, then references (a snapshot's come first), then tombstones, then data."""
        survey = Survey(ground=self._ground)
        storage = self._repo.storage
        for stored in sorted(storage.list(SNAPSHOTS), key=lambda s: s.key):
            self._read_manifest(survey, stored)
        listed = {s.key.removeprefix(REFERENCES): s for s in storage.list(REFERENCES)}
        for snapshot_id in sorted(survey.manifests.keys() | listed.keys()):
            self._read_references(survey, snapshot_id, listed.get(snapshot_id))
        for stored in sorted(storage.list(TOMBSTONES), key=lambda s: s.key):
            try:
                survey.tombstones.append((stored, self._repo.tombstone(stored.key)))
            except KeyNotFound:
                continue
            except PgkuraError as error:
                survey.unreadable[stored.key] = error.reason
        survey.listing = self._ground.look((i, s) for s in storage.list(DATA) if (i := object_id(s.key)))
        return survey

    def _read_manifest(self, survey: Survey, stored: Stored) -> None:
        snapshot_id = stored.key.removeprefix(SNAPSHOTS)
        try:
            if stored not in self._manifests:
                self._manifests[stored] = self._repo.exact_manifest(snapshot_id)
            survey.manifests[snapshot_id] = self._manifests[stored]
        except KeyNotFound:
            return  # removed by another prune in this moment
        except PgkuraError as error:
            survey.unreadable[stored.key] = error.reason

    def _read_references(self, survey: Survey, snapshot_id: str, stored: Stored | None) -> None:
        manifest = survey.manifests.get(snapshot_id)
        key = REFERENCES + snapshot_id
        if manifest is None and SNAPSHOTS + snapshot_id not in survey.unreadable and stored is not None:
            survey.claims[snapshot_id] = stored.modified
        try:
            if stored is None:
                survey.needs[snapshot_id] = self._ground.keep(self._repo.references(snapshot_id))
            else:
                if stored not in self._references:
                    self._references[stored] = self._ground.keep(self._repo.references(snapshot_id))
                survey.needs[snapshot_id] = self._references[stored]
            if manifest is None or self._covers(survey, manifest):
                return
            why = "it does not name what its manifest needs"
        except KeyNotFound:
            if manifest is None:
                return
            if next(iter(self._repo.storage.list(SNAPSHOTS + snapshot_id)), None) is None:
                del survey.manifests[snapshot_id]  # removed by another prune in this moment
                return
            survey.lacking.append(snapshot_id)
            why = "it was made by a pgkura that wrote none"
        except PgkuraError as error:
            why = error.reason
        if manifest is not None and self._repo.can_read_data:
            try:
                survey.needs[snapshot_id] = self._compute(survey.manifests[snapshot_id])
                survey.computed.append(snapshot_id)
                return
            except PgkuraError as error:
                why = error.reason
        survey.unreadable[key] = why

    def _covers(self, survey: Survey, manifest: Manifest) -> bool:
        """Whether the references name what the manifest itself names, read once more: a run that packs anew may just
        have written both. Every such run gives the manifest objects of its own, so that others' references are seen.
        """
        for again in (False, True):
            if again:
                try:
                    survey.manifests[manifest.id] = manifest = self._repo.exact_manifest(manifest.id)
                    survey.needs[manifest.id] = self._ground.keep(self._repo.references(manifest.id))
                except PgkuraError:
                    return False
            named = (ref.object.id for c in manifest.components.values() for ref in c.refs)
            if all(survey.names((manifest.id,), i) for i in named):
                return True
        return False

    def forget(self) -> None:
        """What was written anew may have the size and the second of what was read."""
        self._manifests.clear()
        self._references.clear()
        self._computed.clear()

    def _compute(self, manifest: Manifest) -> int:
        """From the chunk list, which needs the identity."""
        if manifest.id not in self._computed:
            self._computed[manifest.id] = self._ground.keep(computed_references(self._repo, manifest))
        return self._computed[manifest.id]


def computed_references(repo: Repository, manifest: Manifest) -> Mapping[str, ObjectRef]:
    """What the chunk list says that a snapshot needs. Raises WrongKey without the identity, Tampered."""
    needed = needed_objects(manifest, (ref for table in repo.chunk_list(manifest) for ref in table.refs()))
    with suppress(PgkuraError):  # a lost state costs the next backup one full reading
        for ref in repo.state_objects(manifest.id).values():
            needed.add(ref)
    return needed


def references_of(repo: Repository, manifest: Manifest) -> Mapping[str, ObjectRef]:
    """By the references file, or (older snapshots) by the chunk list. Raises WrongKey, Tampered."""
    try:
        return repo.references(manifest.id)
    except KeyNotFound:
        if not repo.can_read_data:
            raise need_identity_once(manifest.id) from None
    except Tampered:
        if not repo.can_read_data:
            raise
    return computed_references(repo, manifest)


def need_identity_once(snapshot_id: str) -> WrongKey:
    """For snapshots of before the references file."""
    return WrongKey(
        f"what snapshot {snapshot_id} needs is known to the identity alone",
        detail=f"it was made by a pgkura that wrote no {REFERENCES}{snapshot_id}",
        hint="run this once with the identity and the host key: the missing files are then written",
    )


def store_now(storage: Storage) -> float:
    """The time by the store's own clock: that of a file just written. Raises StoreError."""
    key = f"probe/{secrets.token_hex(8)}"
    storage.put(key, b"")
    try:
        return max((s.modified for s in storage.list(key)), default=0.0)
    finally:
        with suppress(StoreError):
            storage.delete(key)
