"""How a backup makes sure that `prune` leaves it what it needs: claim, look, write the manifest, look again.

`prune` condemns objects in writing before it looks at the claims a last time, and backups claim before they look at
what is condemned. Whichever came second sees the other (docs/decisions/0005). No clock takes part.
"""

from collections.abc import Mapping
from contextlib import suppress

from pgkura.core.errors import DataGone, PlanOutdated, StoreError
from pgkura.core.refs import ObjectRef
from pgkura.repository.packs import object_id, object_key
from pgkura.repository.references import REFERENCES
from pgkura.repository.spool import ObjectMap
from pgkura.repository.tombstones import Opener, Phase, objects_in, open_tombstones
from pgkura.storage.base import KeyNotFound, Storage

SNAPSHOTS = "snapshots/"
_AGAIN = "run it again: what is missing is stored anew"


def commit_claimed(repo: Opener, snapshot_id: str, manifest: bytes, objects: Mapping[str, ObjectRef]) -> None:
    """Write the manifest of a snapshot whose references file lies in the store already."""
    refuse_taken(repo, objects)
    repo.storage.create(SNAPSHOTS + snapshot_id, manifest)
    confirm_claim(repo.storage, snapshot_id, SNAPSHOTS + snapshot_id)


def refuse_taken(repo: Opener, objects: Mapping[str, ObjectRef]) -> None:
    """The look between claim and manifest. Raises DataGone when a prune takes away what is claimed."""
    refuse_condemned(objects, objects_in(open_tombstones(repo).values(), Phase.CONDEMNED))
    refuse_missing(repo.storage, objects)


def replace_claimed(repo: Opener, snapshot_id: str, was: bytes, manifest: bytes) -> bool:
    """Write another manifest in place of `was`, after a look at what it needs, as its references say.

    False, and nothing is left of it, where somebody removes the snapshot or has changed it. Raises PlanOutdated.
    """
    key = SNAPSHOTS + snapshot_id
    if _removed(repo, snapshot_id) or _stored(repo.storage, key) != was:
        return False
    repo.storage.put(key, manifest)
    # A prune that takes the snapshot away has said so before; one that has done so has taken its references too.
    if _removed(repo, snapshot_id):
        with suppress(StoreError):
            repo.storage.delete(key)
        return False
    confirm_claim(repo.storage, snapshot_id, key)
    return True


def _removed(repo: Opener, snapshot_id: str) -> bool:
    return any(snapshot_id in t.snapshots for t in open_tombstones(repo).values())


def _stored(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.get(key)
    except KeyNotFound:
        return None


def refuse_condemned(objects: Mapping[str, ObjectRef], condemned: frozenset[str]) -> None:
    """Raises DataGone when something is needed that is about to be deleted."""
    if taken := sorted(i for i in condemned if i in objects):
        raise DataGone(
            "a prune is deleting data that this snapshot needs",
            detail=f"{len(taken)} objects, among them {object_key(taken[0])}; the snapshot does not exist",
            hint=_AGAIN,
        )


def refuse_missing(storage: Storage, objects: Mapping[str, ObjectRef]) -> None:
    """Raises DataGone when something that is needed does not lie there in its size."""
    there = ObjectMap()
    for stored in storage.list("data/"):
        needed = objects.get(object_id(stored.key))
        if needed is not None and needed.cipher_bytes == stored.size:
            there.add(needed)
    if len(there) < len(objects):
        gone = [object_key(i) for i in sorted(objects) if i not in there]
        raise DataGone(
            "data that this snapshot needs is no longer in the store",
            detail=f"{len(gone)} objects, among them {gone[0]}; the snapshot does not exist",
            hint=_AGAIN,
        )


def confirm_claim(storage: Storage, snapshot_id: str, manifest_key: str) -> None:
    """After the manifest was written: a prune must not have taken the claim for an abandoned one.

    That needs a writer which stood still for the whole grace time between claim and manifest.
    """
    key = REFERENCES + snapshot_id
    if any(s.key == key for s in storage.list(key)):
        return
    with suppress(StoreError):
        storage.delete(manifest_key)
    raise PlanOutdated(
        f"snapshot {snapshot_id} was overtaken by a prune",
        detail="this machine stood still for so long that the snapshot was taken for an abandoned one",
        hint="run it again",
    )
