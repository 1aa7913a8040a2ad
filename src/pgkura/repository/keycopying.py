"""The files of `keys/` on their way to a copy: only ever forward.

The root seals some of them anew when people or hosts change, and says in `keys/superseded-…` which bytes it replaces.
A file goes over another only where that one is known to be replaced; where nobody knows, nothing is written.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pgkura.core.errors import Tampered, UsageError
from pgkura.repository.container import ROOT, open_signature
from pgkura.repository.keyrecords import EPOCHS, HOSTS, PEOPLE_KEY, REVOKED, SHARED, SUPERSEDED, decode_superseded
from pgkura.repository.scripts import NAMES, SCRIPTS_KEY, digest, listed_scripts, stored_file
from pgkura.storage.base import KeyExists, KeyNotFound, Storage

KEYS = "keys/"
# In this order: a version that others replace is known as such before it is, a generation lists no revocation that is
# not there, and a host that is known can open what it needs.
_KINDS = {
    SUPERSEDED: "superseded",
    EPOCHS: "epoch",
    PEOPLE_KEY: "people",
    REVOKED: "revoked",
    SHARED: "shared",
    HOSTS: "host",
}


class Step(Enum):
    """What is right for one file."""

    NOTHING = auto()  # both places hold the same
    PUT = auto()  # it is not there, or a version that was replaced, or damaged
    KEEP = auto()  # ours was replaced by what is there
    LOST = auto()  # ours was replaced, and what replaced it is not there any more
    DAMAGED = auto()  # ours is none that the root signed
    UNKNOWN = auto()  # both are the root's, and nothing says which came later


@dataclass(slots=True, kw_only=True)
class CopiedKeys:
    """What was not copied: for a good reason, or (`problems`: file → why) for a bad one."""

    notes: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The files of one place, and (key, SHA-256) of what was replaced as far as it knows."""

    files: Mapping[str, bytes]
    superseded: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCopy:
    """From one place to another. Opened by what the root of both signed."""

    repository_id: str
    root: Ed25519PublicKey
    source: Storage
    target: Storage

    def copy(self) -> CopiedKeys:
        """Raises UsageError, before anything is written, where it is not known which version is the later one."""
        here, there = self._read(self.source), self._read(self.target)
        steps = {key: self._decide(key, here, there) for key in sorted(here.files, key=_order)}
        if unknown := [key for key, step in steps.items() if step is Step.UNKNOWN]:
            raise UsageError(
                f"{', '.join(unknown)}: both places have a version of their own",
                detail="keys were changed at both, or by a pgkura that did not note what it replaced, so that nobody "
                "can say which version is the later one; nothing was copied",
                hint="see which place is right (`people list`, `hosts list`), delete these files at the other one "
                "alone, and copy from the right one; from then on change keys at one place, and copy from there",
            )
        done = CopiedKeys()
        for key, step in steps.items():
            if step is Step.PUT:
                self._put(key, here.files[key], known=key in there.files)
            elif step is Step.KEEP:
                done.notes.append(f"{key} is older here: the one that replaced it was left at {self.target.url}")
            elif step is Step.LOST:
                done.problems[key] = (
                    "it was replaced since, and what replaced it is not whole at the target: make the same change of "
                    "keys here, then copy again"
                )
            elif step is Step.DAMAGED:
                done.problems[key] = "it is damaged or forged, and was not copied"
        self._scripts(done)
        return done

    def _read(self, storage: Storage) -> _Place:
        files: dict[str, bytes] = {}
        for stored in storage.list(KEYS):
            with suppress(KeyNotFound):
                files[stored.key] = storage.get(stored.key)
        files.pop(SCRIPTS_KEY, None)
        told = [
            decode_superseded(body, key)
            for key, data in files.items()
            if key.startswith(SUPERSEDED) and (body := self._opened(key, data)) is not None
        ]
        return _Place(files=files, superseded=frozenset(pair for one in told for pair in one.items()))

    def _opened(self, key: str, data: bytes) -> bytes | None:
        """The body; None for what the root never signed to lie there. Of a kind that is not known here, as it is."""
        kind = next((kind for prefix, kind in _KINDS.items() if key.startswith(prefix)), "")
        if not kind:
            return data
        try:
            return open_signature(data, kind, self.repository_id, key, {ROOT: self.root})[1]
        except Tampered:
            return None

    def _decide(self, key: str, here: _Place, there: _Place) -> Step:
        ours, theirs = here.files[key], there.files.get(key)
        if ours == theirs:
            return Step.NOTHING
        if self._opened(key, ours) is None:
            return Step.DAMAGED
        whole = theirs is not None and self._opened(key, theirs) is not None
        if (key, digest(ours)) in there.superseded:
            return Step.KEEP if whole else Step.LOST
        if theirs is None or not whole or (key, digest(theirs)) in here.superseded:
            return Step.PUT
        return Step.UNKNOWN

    def _put(self, key: str, data: bytes, *, known: bool) -> None:
        if known:
            self.target.put(key, data)
            return
        with suppress(KeyExists):  # by another copy at the same time
            self.target.create(key, data)

    def _scripts(self, done: CopiedKeys) -> None:
        """The way out by hand, and the list of its versions: the longer list is the later one."""
        ours, theirs = (self._listed(storage) for storage in (self.source, self.target))
        behind = any(set(hashes) - set(ours.get(name, ())) for name, hashes in theirs.items())
        for name in (SCRIPTS_KEY, *NAMES):
            data, there = stored_file(self.source, name), stored_file(self.target, name)
            if data is None or data == there:
                continue
            if behind and there is not None:
                done.notes.append(f"{name} is older here: the one at {self.target.url} was left")
            else:
                self.target.put(name, data)

    def _listed(self, storage: Storage) -> dict[str, list[str]]:
        try:
            return listed_scripts(storage, self.repository_id, self.root)
        except (Tampered, KeyNotFound):
            return {}


def _order(key: str) -> tuple[int, str]:
    return next((i for i, prefix in enumerate(_KINDS) if key.startswith(prefix)), len(_KINDS)), key
