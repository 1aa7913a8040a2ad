"""Which files of revoked hosts are still believed: those that the root counted when it revoked them, byte for byte.

A bundle passes on what other hosts wrote: it counts only while it counts for each of them.
"""

import hashlib
from collections.abc import Collection, Mapping

from pgkura.core.errors import Tampered, Unbelieved
from pgkura.repository.container import signer_of
from pgkura.repository.keyrecords import COPY_HINT, Revocation, revoked_key
from pgkura.storage.base import KeyNotFound, Storage, Stored

_HEADER = 256
_HOSTS = 4096
_BUNDLES = "/bundles/"


class Belief:
    """Costs nothing while no host is revoked; then one look at each file that no revocation counts as good.

    `doubtful`: hosts whose revocation is damaged. They were revoked, and which of their files are good is not known.
    """

    def __init__(
        self, storage: Storage, revoked: Mapping[str, Revocation], doubtful: Collection[str] = frozenset()
    ) -> None:
        self._storage = storage
        self._revoked = revoked
        self._doubtful = doubtful
        self._good = {key for revocation in revoked.values() for key in revocation.good}
        self._writers: dict[str, tuple[str, ...]] = {}

    @property
    def revoked(self) -> frozenset[str]:
        """Hosts."""
        return frozenset(self._revoked)

    def check(self, signer: str, key: str, data: bytes) -> None:
        """Raises Tampered for a file of a revoked host that is none of its good ones; Unbelieved for a doubtful one."""
        if not self._revoked and not self._doubtful:
            return
        for host in dict.fromkeys((signer, *hosts_of(data))):
            if host in self._doubtful:
                raise Unbelieved(
                    f"{key} cannot be believed",
                    detail=f"{revoked_key(host)}, which says which files of a revoked host are good, is damaged",
                    hint=COPY_HINT,
                )
            revoked = self._revoked.get(host)
            if revoked is not None and revoked.good.get(key) != hashlib.sha256(data).hexdigest():
                raise Tampered(
                    f"{key} was written by a revoked host",
                    detail=f"host {host} was revoked {revoked.created}, and this is none of its files of before",
                    hint="it is believed by nobody; delete it with a credential that may",
                )

    def believed(self, prefix: str) -> list[Stored]:
        """Files below `prefix`, by key, without those that a revoked host wrote after its revocation."""
        found = sorted(self._storage.list(prefix), key=lambda s: s.key)
        if not self._revoked:
            return found
        return [s for s in found if self._surely_good(s.key) or not self._distrusted(s.key)]

    @property
    def warnings(self) -> list[str]:
        """The files that were left out so far."""
        return [
            f"{key} is ignored: host {host}, which wrote it, was revoked {self._revoked[host].created}"
            for key in sorted(self._writers)
            if (host := self._distrusted(key))
        ]

    def _surely_good(self, key: str) -> bool:
        """Without a look at the file: one that several hosts may have written needs that."""
        return key in self._good and _BUNDLES not in key

    def _distrusted(self, key: str) -> str:
        """The first of its writers who is revoked, and whose file of before it is not."""
        if key not in self._writers:
            try:
                self._writers[key] = hosts_of(self._storage.get(key))
            except KeyNotFound:
                return ""
        return next((h for h in self._writers[key] if h in self._revoked and key not in self._revoked[h].good), "")


def hosts_of(data: bytes) -> tuple[str, ...]:
    """Whose word a file says it is: its signer's, and of a bundle that of all whose segments are in it."""
    head, _, body = data.partition(b"\n") if data[:_HEADER].count(b"\n") else (b"", b"", b"")
    signer = signer_of(data)
    if head.split(b" ")[1:2] != [b"bundle"]:
        return (signer,)
    passed_on = body[:_HOSTS].partition(b"\n")[0].decode("ascii", "replace").split(",")
    return (signer, *filter(None, passed_on))
