"""Packs anew what is still needed of sparse packs, and lets each snapshot name the new places.

Order: new packs, index; then for each snapshot its new lists, index, references (of both places), a look at what was
taken meanwhile, state, manifest, references (of the new places). The old packs are touched by nobody here: once no
snapshot names them they are garbage like any other, and stay for the grace time. Whatever step a kill comes after,
every manifest is whole (docs/decisions/0013).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pgkura.core.errors import FormatTooNew, PlanOutdated, Tampered, WrongKey
from pgkura.core.progress import Progress
from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.core.stop import Stop
from pgkura.repository import manifest as manifests_format
from pgkura.repository.claims import SNAPSHOTS, refuse_taken, replace_claimed
from pgkura.repository.compaction import Compaction
from pgkura.repository.manifest import Component, Manifest
from pgkura.repository.moving import CHUNKS, STATES, Form, Moves, places_in, repointed
from pgkura.repository.packs import PACK_BYTES, object_key
from pgkura.repository.references import REFERENCES, needed_objects
from pgkura.repository.repository import Repository
from pgkura.repository.sealer import Owner
from pgkura.repository.spool import ObjectMap
from pgkura.repository.survey import computed_references
from pgkura.storage.base import KeyNotFound

# As backups do: a longer list is stored in parts.
LIST_BYTES = 8 * 1024 * 1024
STATE_BYTES = 4 * 1024 * 1024
_TRIES = 5
_CHANGED = "another prune changed it meanwhile"


@dataclass(slots=True, kw_only=True)
class Repacked:
    """What was done. `left`: file or snapshot → why it is as it was."""

    packs: int = 0
    packs_written: int = 0
    bytes_copied: int = 0
    snapshots: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


class Repacker:
    """One run. Needs the identity and a host key."""

    def __init__(self, repo: Repository, progress: Progress, stop: Stop, storage_class: str = "") -> None:
        self._repo = repo
        self._sealer = repo.sealer()
        self._progress = progress
        self._stop = stop
        self._storage_class = storage_class
        self._moves = Moves()
        self._waiting: dict[Owner, list[tuple[ChunkRef, bytes]]] = {}
        self.done = Repacked()

    def run(self, plan: Compaction) -> Repacked:
        """Raises StoreError; damage is named in the result and left where it is."""
        self._progress.stage("packing anew", total=plan.live, unit="bytes")
        for pack in plan.packs:
            self._stop.check()
            self._copy(pack.id, plan)
            self._progress.advance(pack.live)
        for owner in list(self._waiting):
            self._flush(owner)
        self._repo.store_index(self._moves.all())
        self._progress.stage("re-pointing snapshots", total=len(plan.snapshots), unit="snapshots")
        for snapshot_id in plan.snapshots:
            self._stop.check()
            self._try(snapshot_id, loose=snapshot_id in plan.loose)
            self._progress.advance(1)
        self._moves.close()
        return self.done

    # --- packs

    def _copy(self, object_id: str, plan: Compaction) -> None:
        """The frames that are needed, as they are. A pack with anything wrong in it is left whole."""
        if plan.places is None:
            return
        refs = [layer.chunk for layer in plan.places.of(object_id)]
        try:
            opened = self._sealer.open(refs[0].object)
            frames = [(ref, self._sealer.frame(opened, ref)) for ref in refs]
        except (Tampered, WrongKey) as error:
            self.done.left[object_key(object_id)] = error.reason
            return
        waiting = self._waiting.setdefault(opened.owner, [])
        waiting += frames
        self.done.packs += 1
        if sum(len(frame) for _, frame in waiting) >= PACK_BYTES:
            self._flush(opened.owner)

    def _flush(self, owner: Owner) -> None:
        """One new pack."""
        frames = self._waiting.pop(owner)
        made = self._sealer.store([f for _, f in frames], owner, "" if owner.hosts else self._storage_class)
        self.done.packs_written += 1
        self.done.bytes_copied += sum(len(f) for _, f in frames)
        self._moves.add(_placed(frames, made))

    # --- snapshots

    def _try(self, snapshot_id: str, *, loose: bool) -> None:
        try:
            why = self._repoint(snapshot_id, loose=loose)
        except KeyNotFound:
            why = "it was removed meanwhile"
        except PlanOutdated:
            why = "another prune took away meanwhile what was packed for it; the next run packs it"
        except (Tampered, WrongKey, FormatTooNew) as error:
            why = error.reason
        if why:
            self.done.left[SNAPSHOTS + snapshot_id] = why
        else:
            self.done.snapshots.append(snapshot_id)

    def _repoint(self, snapshot_id: str, *, loose: bool) -> str:
        """Why the snapshot is as it was, or ''. `loose`: also where nothing of it moved."""
        repo, key = self._repo, SNAPSHOTS + snapshot_id
        was = repo.storage.get(key)
        old = manifests_format.decode(repo.open_record("manifest", key, was)[1], key)
        named = _Named(was=needed_objects(old, ()), now=ObjectMap())
        state = self._state(old, named)
        new, made = self._manifest(old, named, always=loose or state is not None)
        if new == old:
            return ""
        named.name_now(ref for c in new.components.values() for ref in c.refs)
        repo.store_index([*made, *(() if state is None else state)])
        if repo.storage.get(key) != was:
            return _CHANGED
        self._name(snapshot_id, named.both())
        try:
            refuse_taken(repo, named.both())
        except PlanOutdated:
            self._mend(snapshot_id, b"", None, ObjectMap())
            raise
        if state is not None:
            repo.put_state(snapshot_id, state)
        sealed = repo.seal_manifest(new)
        if not replace_claimed(repo, snapshot_id, was, sealed):
            return self._mend(snapshot_id, b"", None, ObjectMap()) or _CHANGED
        self._name(snapshot_id, named.now)
        return self._mend(snapshot_id, sealed, state, named.now)

    def _name(self, snapshot_id: str, objects: ObjectMap) -> None:
        repo = self._repo
        repo.storage.put(REFERENCES + snapshot_id, repo.seal_references(snapshot_id, objects))

    def _mend(self, snapshot_id: str, sealed: bytes, state: list[ChunkRef] | None, objects: ObjectMap) -> str:
        """Somebody who did the same at the same time may have written manifest or state after us: name what theirs
        need.

        Every prune finds a manifest whose references name less, and deletes nothing; this mends it at once.
        """
        repo = self._repo
        for _ in range(_TRIES):
            found = repo.storage.get(SNAPSHOTS + snapshot_id)
            parts = None if state is None else repo.state_parts(snapshot_id)
            if (found, parts) == (sealed, state):
                return ""
            sealed, state = found, parts
            for ref in computed_references(repo, repo.exact_manifest(snapshot_id)).values():
                objects.add(ref)
            self._name(snapshot_id, objects)
        return "others change it again and again meanwhile"

    def _manifest(self, old: Manifest, named: "_Named", *, always: bool) -> tuple[Manifest, list[ChunkRef]]:
        """With the places of now, and the chunks that are new with it.

        `always`: with a list of its own even if nothing in it moved, by which references of another run are told.
        """
        components = {
            name: c if c.ref is None else replace(c, ref=self._moves.now(c.ref), more=self._now(c.more))
            for name, c in old.components.items()
        }
        parts = old.components["chunks"].refs
        made: list[ChunkRef] = []
        if self._names_moved(parts, CHUNKS, named) or (always and parts):
            hasher = self._repo.mac_hasher()
            lines = _hashed(repointed(self._text(parts), CHUNKS, self._moves), hasher)
            made = self._store(lines, Owner(epoch=old.epoch, hosts=False), LIST_BYTES)
            components["chunks"] = Component(fingerprint=hasher.hexdigest(), ref=made[0], more=tuple(made[1:]))
        return replace(old, components=components), made

    def _state(self, old: Manifest, named: "_Named") -> list[ChunkRef] | None:
        """The parts of its state with the places of now; None where it has none, or is as it was."""
        try:
            parts = self._repo.state_parts(old.id)
        except KeyNotFound:
            return None
        if self._names_moved(parts, STATES, named):
            lines = repointed(self._text(parts), STATES, self._moves)
            now = self._store(lines, Owner(epoch=old.epoch, hosts=True), STATE_BYTES)
        else:
            now = list(self._now(parts))
        named.name_was(parts)
        named.name_now(now)
        return None if now == parts else now

    def _now(self, refs: Iterable[ChunkRef]) -> tuple[ChunkRef, ...]:
        return tuple(map(self._moves.now, refs))

    def _text(self, parts: Iterable[ChunkRef]) -> Iterator[bytes]:
        return (piece for ref in parts for piece in self._repo.read_chunk(ref))

    def _names_moved(self, parts: Sequence[ChunkRef], form: Form, named: "_Named") -> bool:
        """Whether a list names anything that moved."""
        moved = False
        if parts:
            for ref in places_in(self._text(parts), form):
                now = self._moves.now(ref)
                named.name_was((ref,))
                named.name_now((now,))
                moved = moved or now is not ref
        return moved

    def _store(self, pieces: Iterable[bytes], owner: Owner, part: int) -> list[ChunkRef]:
        """A text in chunks of about so many bytes, packed apart."""
        writer = self._sealer.writer(owner)
        number = 0
        for piece in pieces:
            if number == 0 or writer.length >= part:
                if number:
                    writer.end(0)
                writer.begin(number)
                number += 1
            writer.write(piece)
        writer.end(0)
        writer.flush()
        return [ref for _, ref, _ in sorted(writer.drain(), key=lambda item: int(item[0]))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """The objects that a snapshot needs as it is, and as it will be."""

    was: ObjectMap
    now: ObjectMap

    def name_was(self, refs: Iterable[ChunkRef]) -> None:
        """More of those."""
        for ref in refs:
            self.was.add(ref.object)

    def name_now(self, refs: Iterable[ChunkRef]) -> None:
        """More of these."""
        for ref in refs:
            self.now.add(ref.object)

    def both(self) -> ObjectMap:
        """All of them."""
        found = ObjectMap()
        for objects in (self.was, self.now):
            for ref in objects.ascending():
                found.add(ref)
        return found


def _placed(frames: Sequence[tuple[ChunkRef, bytes]], made: ObjectRef) -> Iterator[tuple[ChunkRef, ChunkRef]]:
    offset = 0
    for was, frame in frames:
        yield was, replace(was, object=made, offset=offset)
        offset += len(frame)


def _hashed(pieces: Iterable[bytes], hasher: Any) -> Iterator[bytes]:
    for piece in pieces:
        hasher.update(piece)
        yield piece
