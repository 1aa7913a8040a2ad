"""Beside a watcher that lives for months: what the root changes in `keys/` meanwhile counts for it too."""

import time
from collections.abc import Callable

from pgkura.repository.repository import Repository


class Rekeying:
    """Looks now and then, also across connections."""

    def __init__(self, repo: Repository, every: float, note: Callable[[str], None]) -> None:
        self._repo, self._every, self._note = repo, every, note
        self._looked = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for a look."""
        return time.monotonic() - self._looked >= self._every

    def look(self) -> None:
        """Take over what changed. Raises WrongKey where this host was revoked, Tampered, StoreError.

        A look that fails is due again at once: who cannot see what was changed must not go on with what was.
        """
        epoch = self._repo.epoch
        self._repo.renew_keys()
        self._looked = time.monotonic()
        if self._repo.epoch != epoch:
            self._note(f"epoch {self._repo.epoch} has begun: what comes now is sealed to it")
