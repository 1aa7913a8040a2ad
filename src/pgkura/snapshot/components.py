"""The parts of a snapshot that are not rows: stored as chunks, fingerprinted, equal ones stored once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pgkura.core.errors import FormatTooNew, RepositoryNotFound, Tampered, WrongKey
from pgkura.core.refs import ChunkRef
from pgkura.repository.manifest import Component, Manifest
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyNotFound

# How far back to look for the same database's last snapshot.
LOOK_BACK = 50
PART_BYTES = 4 * 1024 * 1024
# Only the chunk list grows with the rows; beyond this it is stored in parts.
LONG = "chunks"
COMPONENT_BYTES = 8 * 1024 * 1024


def previous_manifest(repo: Repository, database: str, system_identifier: str) -> Manifest | None:
    """The newest snapshot of this database in this epoch, if it can be read; a damaged one only costs its reuse."""
    for snapshot_id in reversed(repo.manifest_ids()[-LOOK_BACK:]):
        try:
            found = repo.manifest(snapshot_id)
        except (Tampered, FormatTooNew, WrongKey, RepositoryNotFound, KeyNotFound):
            continue
        if (found.database, found.system_identifier, found.epoch) == (database, system_identifier, repo.epoch):
            return found
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Components as the manifest wants them, and the chunks that are new in the repository."""

    components: Mapping[str, Component]
    new: tuple[ChunkRef, ...]


def store_components(repo: Repository, contents: Mapping[str, Iterable[bytes]]) -> Stored:
    """Store each under its name; an empty one has a fingerprint and no bytes."""
    writer = repo.pack_writer()
    fingerprints: dict[str, str] = {}
    for name, pieces in contents.items():
        hasher = repo.mac_hasher()
        size = number = 0
        for piece in _filled(pieces):
            if not size:
                writer.begin((name, number))
            hasher.update(piece)
            writer.write(piece)
            size += len(piece)
            if size >= COMPONENT_BYTES and name == LONG:
                writer.end(0)
                size, number = 0, number + 1
        if size:
            writer.end(0)
        fingerprints[name] = hasher.hexdigest()
    writer.flush()
    refs: dict[str, list[ChunkRef]] = {}
    new: list[ChunkRef] = []
    for (name, _), ref, is_new in sorted(writer.drain(), key=lambda item: item[0]):
        refs.setdefault(name, []).append(ref)
        if is_new:
            new.append(ref)
    components = {}
    for name, fingerprint in fingerprints.items():
        found = refs.get(name, [])
        components[name] = Component(fingerprint=fingerprint, ref=next(iter(found), None), more=tuple(found[1:]))
    return Stored(components=components, new=tuple(new))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A long text stored in parts, for hosts to read; those of them that are new in the repository."""

    refs: tuple[ChunkRef, ...] = ()
    new: tuple[ChunkRef, ...] = ()


def store_parts(repo: Repository, pieces: Iterable[bytes]) -> Parts:
    """Store a text of any length in chunks of a few MiB."""
    writer = repo.pack_writer(for_hosts=True)
    size = number = 0
    for piece in _filled(pieces):
        if not size:
            writer.begin(number)
        writer.write(piece)
        size += len(piece)
        if size >= PART_BYTES:
            writer.end(0)
            size, number = 0, number + 1
    if size:
        writer.end(0)
    writer.flush()
    done = sorted(writer.drain(), key=lambda item: int(item[0]))
    return Parts(refs=tuple(ref for _, ref, _ in done), new=tuple(ref for _, ref, is_new in done if is_new))


def _filled(pieces: Iterable[bytes]) -> Iterator[bytes]:
    return (piece for piece in pieces if piece)


def reusable_archive(
    previous: Manifest | None, kinds: Mapping[str, Component], pg_dump_version: str
) -> Component | None:
    """The previous archive, when every history kind and the program that wrote it are the same."""
    if previous is None or previous.pg_dump_version != pg_dump_version:
        return None
    same = all(
        name in previous.components and previous.components[name].fingerprint == component.fingerprint
        for name, component in kinds.items()
    )
    return previous.components.get("archive") if same else None
