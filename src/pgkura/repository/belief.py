"""Which files of revoked hosts are still believed: those that the root counted when it revoked them, byte for byte."""

import hashlib
from collections.abc import Mapping

from pgkura.core.errors import Tampered
from pgkura.repository.keyrecords import Revocation
from pgkura.storage.base import KeyNotFound, Storage, Stored

_HEADER = 256


class Belief:
    """Costs nothing while no host is revoked; then one look at each file that no revocation counts as good."""

    def __init__(self, storage: Storage, revoked: Mapping[str, Revocation]) -> None:
        self._storage = storage
        self._revoked = revoked
        self._good = {key for revocation in revoked.values() for key in revocation.good}
        self._writers: dict[str, str] = {}

    def check(self, signer: str, key: str, data: bytes) -> None:
        """Raises Tampered for a file of a revoked host that is none of its good ones."""
        revoked = self._revoked.get(signer)
        if revoked is not None and revoked.good.get(key) != hashlib.sha256(data).hexdigest():
            raise Tampered(
                f"{key} was written by a revoked host",
                detail=f"host {signer} was revoked {revoked.created}, and this is none of its files of before",
                hint="it is believed by nobody; delete it with a credential that may",
            )

    def believed(self, prefix: str) -> list[Stored]:
        """Files below `prefix`, by key, without those that a revoked host wrote after its revocation."""
        found = sorted(self._storage.list(prefix), key=lambda s: s.key)
        if not self._revoked:
            return found
        return [s for s in found if s.key in self._good or self._writer(s.key) not in self._revoked]

    @property
    def warnings(self) -> list[str]:
        """The files that were left out so far."""
        return [
            f"{key} is ignored: host {writer}, which wrote it, was revoked {self._revoked[writer].created}"
            for key, writer in sorted(self._writers.items())
            if writer in self._revoked
        ]

    def _writer(self, key: str) -> str:
        if key not in self._writers:
            try:
                self._writers[key] = signer_of(self._storage.get(key))
            except KeyNotFound:
                return ""
        return self._writers[key]


def signer_of(data: bytes) -> str:
    """Who a file says has signed it, '' when it is no signed file. Proves nothing."""
    words = data[:_HEADER].partition(b"\n")[0].split(b" ")
    return words[2].decode("ascii", "replace") if len(words) == 4 else ""
