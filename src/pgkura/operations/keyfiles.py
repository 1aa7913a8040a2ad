"""Key files on disk: durable, 0600, never over an existing one.

A new key waits under a name of its own until the repository knows it, and only then gets the name that everybody reads.
So a file under the final name may always be in use and is never touched; one that waits is in use by nobody, unless a
run was killed between the two.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pgkura.core.errors import UsageError, WrongKey


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


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One key file that `init` makes for the repository at `store`."""

    path: Path
    store: str

    @property
    def waiting(self) -> Path:
        """Where it waits; of its own for each repository, so that no run takes another one's."""
        return self.path.with_name(f"{self.path.name}.init-{hashlib.sha256(self.store.encode()).hexdigest()[:12]}")

    def refuse_taken(self) -> None:
        """Raises UsageError where a key lies already."""
        if self.path.exists() or self.path.is_symlink():
            raise UsageError(
                f"{self.path} exists already",
                detail="`init` never overwrites a key: a backup may depend on it",
                hint="set PGKURA_IDENTITY and PGKURA_HOST_KEY to other paths, or move the old files away",
            )

    def wait(self, text: str) -> None:
        """Write it, in the place of one that a killed run left waiting."""
        self.forget()
        write_secret(self.waiting, text)

    def forget(self) -> None:
        """No key waits any more."""
        try:
            self.waiting.unlink(missing_ok=True)
        except OSError as error:
            raise WrongKey(f"cannot remove {self.waiting}", detail=error.strerror or str(error)) from error

    def read(self) -> str:
        """What waits, or what a killed run had time to put in its place; '' where there is nothing."""
        for place in (self.waiting, self.path):
            try:
                return place.read_text()
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise WrongKey(f"cannot read {place}", detail=str(error)) from error
        return ""

    def keep(self) -> None:
        """Give the waiting key its name. Raises UsageError when somebody else took that in the meantime."""
        if not self.waiting.exists():
            return
        try:
            os.link(self.waiting, self.path)
        except FileExistsError:
            if self.path.read_bytes() != self.waiting.read_bytes():
                self.refuse_taken()
        except OSError:  # a file system without hard links
            write_secret(self.path, self.waiting.read_text())
        _sync(self.path.parent)
        self.forget()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
