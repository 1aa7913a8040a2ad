"""Whom to trust in one repository: its root, the hosts that the root signed in, and those that it revoked."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pgkura.core.errors import FormatTooNew, RepositoryNotFound, Tampered, WrongKey
from pgkura.repository import canonical
from pgkura.repository.container import MAGIC, ROOT, open_signature
from pgkura.repository.keyrecords import COPY_HINT, HOSTS, REVOKED, HostRecord, Revocation
from pgkura.repository.keys import HostKey, Identity, public_from_hex
from pgkura.storage.base import KeyNotFound, Storage

REPOSITORY_KEY = "pgkura-repository"
FORMAT = 1
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A repository's identity and the hosts that its root signed in. `doubtful`: those whose revocation is damaged."""

    repository_id: str
    root_hex: str
    created: str
    root: Ed25519PublicKey
    hosts: Mapping[str, HostRecord]
    revoked: Mapping[str, Revocation]
    doubtful: frozenset[str] = frozenset()

    def open(self, kind: str, key: str, data: bytes) -> bytes:
        """The body of a file that the root signed."""
        return open_signature(data, kind, self.repository_id, key, {ROOT: self.root})[1]

    @property
    def active(self) -> list[HostRecord]:
        """Hosts that are not revoked."""
        return [h for h in self.hosts.values() if h.host_id not in self.revoked and h.host_id not in self.doubtful]


def open_trust(
    storage: Storage, identity: Identity | None, host: HostKey | None, broken: dict[str, str] | None = None
) -> Trust:
    """Read and check `pgkura-repository`, the hosts and the revocations.

    With `broken`, a damaged file of a host or a revocation goes there, and costs only what that host signed.

    Raises RepositoryNotFound, WrongKey (a key of another repository), Tampered, FormatTooNew.
    """
    head = _head(storage)
    repository_id, root_hex = _claimed(head)
    _same_repository(repository_id, root_hex, identity, host)
    root = public_from_hex(root_hex)
    open_signature(head, "repository", repository_id, REPOSITORY_KEY, {ROOT: root})
    body: dict[str, Any] = canonical.decode(head.partition(b"\n")[2], REPOSITORY_KEY)

    def whole(kind: str, prefix: str, decode: Callable[[bytes, str], _R]) -> Iterator[_R]:
        for key in sorted(s.key for s in storage.list(prefix)):
            try:
                yield decode(open_signature(storage.get(key), kind, repository_id, key, {ROOT: root})[1], key)
            except Tampered as error:
                if broken is None:
                    raise Tampered(error.msg, detail=error.detail, hint=COPY_HINT) from error
                broken[key] = error.reason

    hosts = {h.host_id: h for h in whole("host", HOSTS, HostRecord.decode)}
    revoked = {r.host_id: r for r in whole("revoked", REVOKED, Revocation.decode)}
    return Trust(
        repository_id=repository_id,
        root_hex=root_hex,
        created=str(body["created"]),
        root=root,
        hosts=hosts,
        revoked=revoked,
        doubtful=frozenset(k.removeprefix(REVOKED) for k in broken or () if k.startswith(REVOKED)),
    )


def _head(storage: Storage) -> bytes:
    try:
        return storage.get(REPOSITORY_KEY)
    except KeyNotFound as error:
        raise RepositoryNotFound(
            f"no repository at {storage.url}",
            detail=f"there is no {REPOSITORY_KEY}",
            hint="check PGKURA_REPOSITORY; `pgkura init` makes a new one",
        ) from error


def _claimed(head: bytes) -> tuple[str, str]:
    """(repository id, root public key) as the file claims; believed only when a key at hand agrees."""
    first, newline, rest = head.partition(b"\n")
    magic = first.split(b" ")[0]
    if magic != MAGIC and magic.startswith(b"pgkura") and magic.removeprefix(b"pgkura").isdigit():
        raise FormatTooNew(
            f"the repository has format {magic.removeprefix(b'pgkura').decode()}; this program reads format 1",
            hint="use a newer pgkura",
        )
    body = canonical.decode(rest, REPOSITORY_KEY) if newline else None
    if not isinstance(body, dict):
        raise Tampered(f"{REPOSITORY_KEY} is damaged", detail="no record")
    if isinstance(body.get("format"), int) and body["format"] > FORMAT:
        raise FormatTooNew(f"the repository has format {body['format']}", hint="use a newer pgkura")
    try:
        public_from_hex(body["root"])
        return str(body["repository"]), str(body["root"])
    except (KeyError, ValueError, TypeError) as error:
        raise Tampered(f"{REPOSITORY_KEY} is damaged", detail="it names no root key") from error


def _same_repository(repository_id: str, root: str, identity: Identity | None, host: HostKey | None) -> None:
    hint = "check PGKURA_REPOSITORY and the key: they do not belong together (or the store was replaced by somebody)"
    if identity is not None and not identity.is_root(root):
        if not identity.root_hex:
            raise WrongKey(
                "this identity is not the root's, and does not say which repository it may read",
                detail=f"here: {repository_id}",
                hint="a person's identity file needs the comment lines that `pgkura people add` prints "
                "(`# repository: …` and `# root: …`): they say whose signatures to trust",
            )
        if (identity.root_hex, identity.repository) != (root, repository_id):
            raise WrongKey("this identity belongs to another repository", detail=f"here: {repository_id}", hint=hint)
    if host is not None and (host.root_public, host.repository_id) != (root, repository_id):
        raise WrongKey(
            "this host key belongs to another repository",
            detail=f"{host.repository_id}, here: {repository_id}",
            hint=hint,
        )
