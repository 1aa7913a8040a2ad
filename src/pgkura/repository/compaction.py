"""Which packs are worth being packed anew: those of which the snapshots that stay need little.

What a snapshot needs of a pack is said by its chunk list, which opens for the identity alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pgkura.core.errors import FormatTooNew, Tampered, WrongKey
from pgkura.core.progress import Progress
from pgkura.core.refs import ChunkRef
from pgkura.repository.locks import locked_on
from pgkura.repository.manifest import Manifest
from pgkura.repository.moving import CHUNKS, STATES, places_in
from pgkura.repository.packs import PACK_BYTES
from pgkura.repository.repository import Repository
from pgkura.repository.shelf import ChunkShelf
from pgkura.repository.spool import ObjectMap
from pgkura.repository.survey import Survey
from pgkura.storage.base import KeyNotFound

# Packs of which less is still needed are packed anew, unless told otherwise.
SHARE = 0.5
# Re-pointing a snapshot takes some ten requests: not for less than this.
LEAST_BYTES = 1024 * 1024
# A pack's envelope is no waste: the new one has one too.
ENVELOPE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """A pack: its size in the store, and the bytes of the frames that are still needed."""

    id: str
    size: int
    live: int
    modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What will be done.

    packs      in the order in which they were written: what was read together lies together
    snapshots  whose lists name them, oldest first
    loose      those of them (and others) whose references name more than is needed: a run was killed between
    lists      bytes of these lists, which are written anew too
    places     of each pack, the chunks that are needed; None when none is packed anew
    untouched  file → why what it needs is left as it is
    """

    packs: tuple[Sparse, ...] = ()
    snapshots: tuple[str, ...] = ()
    loose: frozenset[str] = frozenset()
    lists: int = 0
    places: ChunkShelf | None = None
    untouched: Mapping[str, str]

    @property
    def live(self) -> int:
        """Bytes that are copied."""
        return sum(p.live for p in self.packs)

    @property
    def freed(self) -> int:
        """Bytes that go once nobody needs the old packs."""
        return sum(p.size for p in self.packs) - self.live

    @property
    def requests(self) -> dict[str, int]:
        """About how many requests it takes, by kind."""
        packs = -(-self.live // PACK_BYTES) + len(self.snapshots)
        # Of a snapshot: manifest, references twice, state, index.
        return {
            "get": len(self.packs) + packs + 6 * len(self.snapshots),
            "put": packs + 5 * len(self.snapshots),
            "delete": len(self.packs),
        }


NOTHING = Compaction(untouched={})


def choose(packs: Iterable[Sparse], share: float) -> list[Sparse]:
    """Pure: those with less than this share still needed."""
    found = (p for p in packs if p.live < share * (p.size - ENVELOPE))
    return sorted(found, key=lambda p: (p.modified, p.id))


def plan_compaction(
    repo: Repository,
    survey: Survey,
    kept: Iterable[str],
    *,
    share: float,
    least: int = LEAST_BYTES,
    now: datetime,
    progress: Progress,
) -> Compaction:
    """Reads every chunk list of the snapshots that stay. Raises StoreError."""
    kept = sorted(kept)
    removing = {s for _, t in survey.tombstones for s in t.snapshots}
    untouched: dict[str, str] = {}
    shelf = ChunkShelf()
    lists: dict[str, int] = {}
    loose: set[str] = set()
    progress.stage("reading what is needed", total=len(kept), unit="snapshots")
    for snapshot_id in kept:
        manifest = survey.manifests[snapshot_id]
        why = "another prune removes it" if snapshot_id in removing else ""
        if not why and locked_on(manifest, now):
            why = f"it is locked until {manifest.expires}"
        named = ObjectMap()
        if not why:
            lists[snapshot_id], why = _collect(repo, manifest, shelf, named)
        if why:
            untouched[snapshot_id] = why
            lists.pop(snapshot_id, None)
        elif not all(i in named for i in survey.of(snapshot_id)):
            loose.add(snapshot_id)
        progress.advance(1)
    others = (*survey.claims, *untouched)
    # Packs that somebody else may rely on stay.
    packs = [p for p in choose(_packs(shelf, survey), share) if not survey.names(others, p.id)]
    naming = {s for s in lists if any(survey.names((s,), p.id) for p in packs)}
    found = Compaction(
        packs=tuple(packs),
        snapshots=tuple(s for s in lists if s in loose or s in naming),
        loose=frozenset(loose),
        lists=sum(lists[s] for s in naming),
        places=shelf,
        untouched=untouched,
    )
    if packs and found.freed >= max(least, found.lists):
        return found
    shelf.close()
    return Compaction(snapshots=tuple(sorted(loose)), loose=frozenset(loose), untouched=untouched)


def _packs(shelf: ChunkShelf, survey: Survey) -> Iterator[Sparse]:
    for object_id, live in shelf.live():
        stored = survey.lying(object_id)
        if stored is not None:
            yield Sparse(id=object_id, size=stored.size, live=live, modified=stored.modified)


def _collect(repo: Repository, manifest: Manifest, shelf: ChunkShelf, named: ObjectMap) -> tuple[int, str]:
    """Put all that a snapshot needs on the shelf: bytes of its lists; and why it could not be read, or ''."""
    parts = manifest.components["chunks"].refs
    try:
        state = _state_parts(repo, manifest.id)
        for refs in (
            (ref for c in manifest.components.values() for ref in c.refs),
            places_in(_text(repo, parts), CHUNKS),
            state,
            places_in(_text(repo, state), STATES) if state else (),
        ):
            shelf.put(_noted(refs, named))
    except (Tampered, WrongKey, FormatTooNew, KeyNotFound) as error:
        return 0, error.reason
    return sum(ref.stored for ref in (*parts, *state)), ""


def _noted(refs: Iterable[ChunkRef], named: ObjectMap) -> Iterator[tuple[ChunkRef, None]]:
    for ref in refs:
        named.add(ref.object)
        yield ref, None


def _state_parts(repo: Repository, snapshot_id: str) -> list[ChunkRef]:
    try:
        return repo.state_parts(snapshot_id)
    except KeyNotFound:
        return []


def _text(repo: Repository, parts: Iterable[ChunkRef]) -> Iterator[bytes]:
    return (piece for ref in parts for piece in repo.read_chunk(ref))
