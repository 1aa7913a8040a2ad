"""`init`: a new repository and its two key files; or a new host key, or newer scripts, for one that is there."""

import socket
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pgkura.core.errors import PgkuraError, RepositoryNotFound, WrongKey
from pgkura.operations.keyfiles import KeyFile
from pgkura.operations.keys import add_host
from pgkura.repository.admin import Root
from pgkura.repository.creating import clear_half_made, create, half_made, is_there, refuse_existing, unused_keys
from pgkura.repository.keyrecords import epoch_key
from pgkura.repository.keyring import open_keyring
from pgkura.repository.keys import HostKey, Identity, NewKeys, new_keys
from pgkura.repository.trust import open_trust
from pgkura.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialised:
    """What was made and where. `made`: a repository, the rest of one that a killed run left, or a host key only."""

    repository: str
    repository_id: str
    made: Literal["repository", "rest", "host key"] = "repository"
    identity: Path | None
    host_key: Path

    def as_json(self) -> dict[str, Any]:
        """The `--json` result."""
        return {
            "result": "ok",
            "made": self.made,
            "repository": self.repository,
            "repository_id": self.repository_id,
            "identity": str(self.identity or ""),
            "host_key": str(self.host_key),
        }


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two files of one run."""

    identity: KeyFile
    host_key: KeyFile
    files: tuple[KeyFile, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", (self.identity, self.host_key))


def initialise(storage: Storage, identity: Path, host_key: Path, *, now: datetime) -> Initialised:
    """Keys wait beside their places, the repository is written, its head last, then the keys get their names.

    A run that was killed is finished by the next one: before the head nothing of it is in use and all is made anew;
    after it the waiting keys are the repository's.
    Raises RepositoryExists, UsageError (a key file is in the way), StoreError.
    """
    pair = _Pair(KeyFile(identity, storage.url), KeyFile(host_key, storage.url))
    if is_there(storage):
        if not any(f.waiting.exists() for f in pair.files):
            refuse_existing(storage)
        return _finished(storage, pair)
    left = half_made(storage)
    keys = _unused(storage, pair) if left else None
    # That it is theirs is known by the epoch's file only, which therefore stays.
    standing = epoch_key(keys.host.epoch) if keys else ""
    if keys is None:
        for file in pair.files:
            file.refuse_taken()
        keys = new_keys(now=now)
        pair.identity.wait(keys.identity_text)
        pair.host_key.wait(keys.host_key_text)
    try:
        clear_half_made(storage, [key for key in left if key != standing])
        create(storage, keys, host_name=socket.gethostname(), standing=standing)
    except BaseException:
        _forget_unless_made(storage, pair)
        raise
    for file in pair.files:
        file.keep()
    return _initialised(storage, keys.repository_id, pair, "rest" if left else "repository")


def cut_short(storage: Storage, *places: Path | None) -> bool:
    """Whether a key of an earlier run for this repository still waits beside one of these places."""
    return any(KeyFile(place, storage.url).waiting.exists() for place in places if place is not None)


def _initialised(storage: Storage, repository_id: str, pair: _Pair, made: Literal["repository", "rest"]) -> Initialised:
    return Initialised(
        repository=storage.url,
        repository_id=repository_id,
        made=made,
        identity=pair.identity.path,
        host_key=pair.host_key.path,
    )


def _forget_unless_made(storage: Storage, pair: _Pair) -> None:
    """A refused run leaves no secrets lying about, unless a repository may depend on them."""
    try:
        made = is_there(storage)
    except PgkuraError:
        return
    if not made:
        for file in pair.files:
            file.forget()


def _finished(storage: Storage, pair: _Pair) -> Initialised:
    """A run was killed between the head and its last key file."""
    try:
        identity, host = Identity.parse(pair.identity.read()), HostKey.parse(pair.host_key.read())
        keyring = open_keyring(storage, identity, host)
    except WrongKey:
        refuse_existing(storage)  # what waits is of another run: the repository is somebody's, and stays so
        raise
    for file in pair.files:
        file.keep()
    return _initialised(storage, keyring.repository_id, pair, "rest")


def _unused(storage: Storage, pair: _Pair) -> NewKeys | None:
    """Keys under their final names whose half-made repository this is: nothing else can depend on them."""
    try:
        if not all(f.path.exists() for f in pair.files):
            return None
        identity, host = Identity.parse(pair.identity.path.read_text()), HostKey.parse(pair.host_key.path.read_text())
    except (WrongKey, OSError, UnicodeDecodeError):
        return None
    return unused_keys(storage, identity, host)


def new_host(storage: Storage, identity: Identity, host_key: Path) -> Initialised:
    """A host key for this machine, signed in by the root: the old one was lost, or this machine is a new one.

    Raises WrongKey for another identity than the root's, UsageError when a key lies there already.
    """
    file = KeyFile(host_key, storage.url)
    file.refuse_taken()
    root = Root.open(storage, identity)
    if not _known(storage, file):
        file.forget()
        names = {h.name for h in root.trust.active}
        here = socket.gethostname()
        free = next(n for n in (here, *(f"{here} ({i})" for i in range(2, len(names) + 3))) if n not in names)
        add_host(storage, identity, free[:64], file.waiting)
    file.keep()
    return Initialised(
        repository=storage.url,
        repository_id=root.trust.repository_id,
        made="host key",
        identity=None,
        host_key=host_key,
    )


def _known(storage: Storage, file: KeyFile) -> bool:
    """Whether a killed run's waiting host key is one that the repository knows."""
    if not file.waiting.exists():
        return False
    try:
        open_keyring(storage, None, HostKey.parse(file.waiting.read_text()))
    except (WrongKey, OSError, UnicodeDecodeError):
        return False
    return True


def refresh_scripts(storage: Storage, identity: Identity) -> tuple[str, ...]:
    """RESTORE.md and restore.sh as this program ships them; the names of those that were different."""
    if not is_there(storage):
        open_trust(storage, identity, None)
        raise RepositoryNotFound(f"no repository at {storage.url}")
    return Root.open(storage, identity).refresh_scripts()
