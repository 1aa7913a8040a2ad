"""What the keys at hand allow in one repository: whom to trust, what opens, who signs. Read from `keys/` once."""

from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pgkura.core.errors import FormatTooNew, RepositoryNotFound, Tampered, WrongKey
from pgkura.repository import canonical
from pgkura.repository.container import MAGIC, ROOT, open_signature
from pgkura.repository.keys import HostKey, Identity, chunk_mac_key, public_from_hex, public_hex
from pgkura.repository.seal import unseal
from pgkura.storage.base import KeyNotFound, Storage

REPOSITORY_KEY = "pgkura-repository"
FORMAT = 1


def epoch_key(number: int) -> str:
    """Where an epoch's sealed identity lies."""
    return f"keys/epoch-{number:04d}"


def host_file(host_id: str) -> str:
    """Where a host's signed public keys lie."""
    return f"keys/host-{host_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Trust and keys of an opened repository.

    signers     host id (or "root") → public key, each signed in by the root
    secrets     age secrets that open the index class (epoch secret, or the host's operations key)
    data        the epoch secret, '' without the identity
    recipients  who can open new records of the index class
    """

    repository_id: str
    created: str
    signers: dict[str, Ed25519PublicKey]
    secrets: tuple[str, ...] = field(repr=False)
    data: str = field(repr=False)
    mac_key: bytes = field(repr=False)
    recipients: tuple[str, ...]
    signer: str
    private: Ed25519PrivateKey = field(repr=False)


def open_keyring(storage: Storage, identity: Identity | None, host: HostKey | None) -> Keyring:
    """Read and check `pgkura-repository` and `keys/`.

    Raises RepositoryNotFound, WrongKey (a key of another repository), Tampered, FormatTooNew.
    """
    head = _head(storage)
    repository_id, root_hex = _claimed(head)
    _same_repository(repository_id, root_hex, identity, host)
    root = public_from_hex(root_hex)
    open_signature(head, "repository", repository_id, REPOSITORY_KEY, {ROOT: root})
    body: dict[str, Any] = canonical.decode(head.partition(b"\n")[2], REPOSITORY_KEY)
    signers: dict[str, Ed25519PublicKey] = {ROOT: root}
    recipients: list[str] = []
    for stored in sorted(storage.list("keys/host-"), key=lambda s: s.key):
        host_id, public, operations = _host(storage.get(stored.key), repository_id, stored.key, root)
        signers[host_id] = public
        recipients.append(operations)
    if host is not None and host.host_id not in signers:
        raise WrongKey(
            "this host key is not known to the repository",
            detail=f"there is no {host_file(host.host_id)}",
            hint="it was revoked, or the file was deleted from the store",
        )
    number = host.epoch if host is not None else 1
    data = _epoch_secret(storage, repository_id, number, root, identity) if identity is not None else ""
    epoch_recipient = host.recipient if host is not None else _recipient(data)
    signing = host.signing if host is not None else identity.root if identity is not None else None
    if signing is None:
        raise WrongKey("a repository opens with the identity or with the host key", hint="give one of them")
    return Keyring(
        repository_id=repository_id,
        created=str(body["created"]),
        signers=signers,
        secrets=tuple(s for s in (data, host.operations if host is not None else "") if s),
        data=data,
        mac_key=bytes.fromhex(host.mac_key) if host is not None else chunk_mac_key(data),
        recipients=(epoch_recipient, *recipients),
        signer=host.host_id if host is not None else ROOT,
        private=signing,
    )


def _recipient(secret: str) -> str:
    return Identity.parse(secret).recipient


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
    if identity is not None and public_hex(identity.root.public_key()) != root:
        raise WrongKey("this identity belongs to another repository", detail=f"here: {repository_id}", hint=hint)
    if host is not None and (host.root_public, host.repository_id) != (root, repository_id):
        raise WrongKey(
            "this host key belongs to another repository",
            detail=f"{host.repository_id}, here: {repository_id}",
            hint=hint,
        )


def _host(data: bytes, repository_id: str, key: str, root: Ed25519PublicKey) -> tuple[str, Ed25519PublicKey, str]:
    _, body = open_signature(data, "host", repository_id, key, {ROOT: root})
    record = canonical.decode(body, key)
    try:
        if host_file(record["host"]) != key:
            raise ValueError("moved")
        return record["host"], public_from_hex(record["signing"]), str(record["operations"])
    except (KeyError, ValueError, TypeError) as error:
        raise Tampered(f"{key} is damaged", detail="not a host record") from error


def _epoch_secret(storage: Storage, repository_id: str, number: int, root: Ed25519PublicKey, identity: Identity) -> str:
    key = epoch_key(number)
    try:
        data = storage.get(key)
    except KeyNotFound as error:
        raise Tampered(
            f"{key} is missing",
            detail="without it no data can be opened",
            hint="get it back from a copy of the repository",
        ) from error
    _, body = open_signature(data, "epoch", repository_id, key, {ROOT: root})
    return Identity.parse(unseal(body, [identity.secret], key).decode("utf-8", "replace")).secret
