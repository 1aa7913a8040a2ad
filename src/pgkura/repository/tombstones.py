"""What `prune` is about to take away, written down before it does: `tombstones/<signer>-<counter>-<random>`.

A *marked* object is unreferenced: it is not reused any more, and waits for the grace time. A *condemned* one is about
to be deleted: a backup that needs it must not become a snapshot. Format: docs/formats/repository.md, "Tombstones".
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pgkura.core.errors import Tampered
from pgkura.repository.manifest import valid_id
from pgkura.repository.references import list_lines
from pgkura.storage.base import KeyNotFound, Storage

TOMBSTONES = "tombstones/"


class Phase(StrEnum):
    """How far the named objects are."""

    MARKED = "marked"
    CONDEMNED = "condemned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """One list.

    created    by the writer's clock, for people; the grace time counts from the store's own time of the file
    grace      seconds that marked objects wait
    snapshots  ids whose manifests are removed
    objects    ids of objects that no snapshot needed when this was written
    """

    phase: Phase
    created: str
    grace: int
    snapshots: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()


def write_tombstone(tombstone: Tombstone) -> bytes:
    """The list."""
    lines = [
        "pgkura-tombstone\t1\n",
        f"phase\t{tombstone.phase}\n",
        f"created\t{tombstone.created}\n",
        f"grace\t{tombstone.grace}\n",
        *(f"snapshot\t{s}\n" for s in sorted(tombstone.snapshots)),
        *(f"object\t{o}\n" for o in sorted(tombstone.objects)),
    ]
    return "".join(lines).encode()


def read_tombstone(payload: bytes, what: str) -> Tombstone:
    """The inverse. Raises Tampered, FormatTooNew."""
    single: dict[str, str] = {}
    snapshots: list[str] = []
    objects: list[str] = []
    try:
        for word, value in list_lines(payload, "pgkura-tombstone", what):
            if word == "snapshot":
                snapshots.append(value)
            elif word == "object":
                objects.append(value)
            else:
                single[word] = value
        made = Tombstone(
            phase=Phase(single["phase"]),
            created=single["created"],
            grace=int(single["grace"]),
            snapshots=tuple(snapshots),
            objects=tuple(objects),
        )
    except (ValueError, KeyError) as error:
        raise Tampered(f"{what} is damaged", detail="a line is not as the format says") from error
    if not all(valid_id(s) for s in made.snapshots) or not all(_object_id(o) for o in made.objects) or made.grace < 0:
        raise Tampered(f"{what} is damaged", detail="a name in it is none")
    return made


def _object_id(text: str) -> bool:
    return len(text) == 32 and all(c in "0123456789abcdef" for c in text)


def objects_in(tombstones: Iterable[Tombstone], phase: Phase | None = None) -> frozenset[str]:
    """Ids of all objects in them, of one phase or of both."""
    return frozenset(o for t in tombstones if phase in (None, t.phase) for o in t.objects)


class Opener(Protocol):
    """A repository, as far as tombstones need one."""

    storage: Storage

    def tombstone(self, key: str) -> Tombstone: ...


def open_tombstones(repo: Opener) -> dict[str, Tombstone]:
    """Those that open, by key. One that is damaged counts for nobody: no prune deletes on its word either."""
    found: dict[str, Tombstone] = {}
    for key in sorted(s.key for s in repo.storage.list(TOMBSTONES)):
        with suppress(Tampered, KeyNotFound):
            found[key] = repo.tombstone(key)
    return found
