"""`init`: a new repository and its two key files."""

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pgkura.core.errors import UsageError, WrongKey
from pgkura.repository.creating import create, refuse_existing
from pgkura.repository.keys import new_keys
from pgkura.storage.base import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialised:
    """What was made and where."""

    repository: str
    repository_id: str
    identity: Path
    host_key: Path

    def as_json(self) -> dict[str, Any]:
        """The `--json` result."""
        return {
            "result": "ok",
            "repository": self.repository,
            "repository_id": self.repository_id,
            "identity": str(self.identity),
            "host_key": str(self.host_key),
        }


def initialise(storage: Storage, identity: Path, host_key: Path, *, now: datetime) -> Initialised:
    """Write both key files first (0600, never over an existing file), then the repository.

    In this order a crash leaves unused key files, never a repository that nobody can open.
    Raises RepositoryExists, UsageError (a key file is in the way), StoreError.
    """
    refuse_existing(storage)
    for path in (identity, host_key):
        if path.exists():
            raise UsageError(
                f"{path} exists already",
                detail="`init` never overwrites a key: a backup may depend on it",
                hint="set PGKURA_IDENTITY and PGKURA_HOST_KEY to other paths, or move the old files away",
            )
    keys = new_keys(now=now)
    write_secret(identity, keys.identity_text)
    try:
        write_secret(host_key, keys.host_key_text)
        create(storage, keys, host_name=socket.gethostname())
    except BaseException:
        # Nothing was backed up with these keys; leaving them would only block the next attempt.
        identity.unlink(missing_ok=True)
        host_key.unlink(missing_ok=True)
        raise
    return Initialised(repository=storage.url, repository_id=keys.repository_id, identity=identity, host_key=host_key)


def write_secret(path: Path, text: str) -> None:
    """A new key file, 0600, durable, never over an existing one. Raises WrongKey."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WrongKey(f"cannot write the key file {path}", detail=error.strerror or str(error)) from error
