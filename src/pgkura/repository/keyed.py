"""The keys that a repository was opened with: what they allow, and how a change of `keys/` becomes known to them."""

from collections.abc import Callable
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pgkura.core.errors import WrongKey
from pgkura.repository.belief import Belief
from pgkura.repository.container import ROOT
from pgkura.repository.keyring import Keyring
from pgkura.storage.base import Storage


class Keyed:
    """A part of Repository."""

    storage: Storage
    _keys: Keyring
    _belief: Belief
    _open_again: Callable[[], Keyring] | None = None
    _seen: frozenset[tuple[str, int, float]] | None = None

    def renew_keys(self) -> bool:
        """Whether `keys/` may have changed since the last look: then what it says now counts from here on.

        For those who live long. One request where nothing changed. Raises what opening raises: WrongKey for a host
        that was revoked, Tampered where it is not sure any more which epoch is the newest.
        """
        seen = frozenset((s.key, s.size, s.modified) for s in self.storage.list("keys/"))
        if self._open_again is None or seen == self._seen:
            return False
        keys = self._open_again()
        keys.refuse_writing()
        self._keys, self._belief = keys, Belief(self.storage, keys.revoked, keys.doubtful)
        self._seen = seen
        return True

    @property
    def repository_id(self) -> str:
        """32 hex digits."""
        return self._keys.repository_id

    @property
    def root(self) -> Ed25519PublicKey:
        """Whose word counts in `keys/`."""
        return self._keys.signers[ROOT]

    @property
    def can_read_data(self) -> bool:
        """Whether the identity is at hand."""
        return self._keys.reads_data

    @property
    def can_write(self) -> bool:
        """Whether a host key is at hand."""
        return self._keys.signer not in (ROOT, "")

    @property
    def can_sign(self) -> bool:
        """Whether records can be added: a person who is neither host nor root cannot."""
        return self._keys.private is not None

    @property
    def host_id(self) -> str:
        """Who signs here: a host id, "root" with the root's identity alone, '' with a person's alone."""
        return self._keys.signer

    def need_host(self) -> None:
        """Raises WrongKey without a host key, Tampered as `refuse_writing`."""
        self._keys.refuse_writing()
        if not self.can_write:
            raise WrongKey("making a backup needs the host key", hint="set PGKURA_HOST_KEY")

    def refuse_writing(self) -> None:
        """Raises Tampered where files of `keys/` say no more for whom to write."""
        self._keys.refuse_writing()

    def need_identity(self, purpose: str) -> None:
        """Raises WrongKey without the identity."""
        if not self.can_read_data:
            raise WrongKey(f"{purpose} needs the identity", hint="set PGKURA_IDENTITY to the identity file")

    @property
    def epoch(self) -> int:
        """The epoch of new data."""
        return self._keys.newest.number

    @property
    def broken_keys(self) -> tuple[tuple[str, str], ...]:
        """Files of `keys/` that could not be used, and why."""
        return self._keys.broken

    def mac(self, data: bytes) -> str:
        """Fingerprint of a component's text: keyed the same in all epochs, so that histories go on."""
        return blake3(data, key=self._keys.prints).hexdigest()

    def mac_hasher(self) -> Any:
        """An incremental `mac` with update() and hexdigest()."""
        return blake3(key=self._keys.prints)

    def chunk_hasher(self, epoch: int) -> Any:
        """An incremental hasher of chunk MACs of an epoch. Raises WrongKey for one that is not known here."""
        return blake3(key=self._keys.mac_key(epoch))

    def row_key(self, epoch: int, draw: str) -> bytes:
        """A key for sums of rows (rowsums.py), from what was drawn for them: behind the bytes that a MAC shows."""
        return bytes(blake3(b"pgkura row sums\0" + draw.encode(), key=self._keys.mac_key(epoch)).digest(32, seek=64))
