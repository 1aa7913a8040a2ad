"""A new repository: what is written, in which order; and what a killed run left of one."""

import re
from datetime import UTC, datetime

from pgkura.core.errors import PgkuraError, RepositoryExists, Tampered, WrongKey
from pgkura.repository import canonical
from pgkura.repository.container import ROOT, open_signature, seal_signature
from pgkura.repository.keyrecords import HostRecord, Shared, epoch_key, host_file, shared_key
from pgkura.repository.keyring import open_keyring
from pgkura.repository.keys import HostKey, Identity, NewKeys, new_identity, public_hex
from pgkura.repository.scripts import write_scripts
from pgkura.repository.seal import pack_record, seal, unseal
from pgkura.repository.trust import FORMAT, REPOSITORY_KEY
from pgkura.storage.base import KeyNotFound, Storage

# All that `init` writes before the head.
_OURS = re.compile(
    r"RESTORE\.md|restore\.sh|keys/scripts|keys/(?:epoch|shared)-0001|keys/host-[0-9a-f]{12}|probe/[^/]+"
)


def is_there(storage: Storage) -> bool:
    """Whether this place holds a repository: its head is written last."""
    try:
        storage.get(REPOSITORY_KEY)
    except KeyNotFound:
        return False
    return True


def half_made(storage: Storage) -> list[str]:
    """What an `init` that was killed before the head left here. Raises RepositoryExists for anything else.

    Only names that `init` itself writes, and no snapshot, record or data: nothing was ever backed up here.
    """
    keys = sorted(s.key for s in storage.list(""))
    foreign = next((k for k in keys if not _OURS.fullmatch(k)), None)
    if foreign is not None:
        raise RepositoryExists(
            f"{storage.url} is not empty",
            detail=f"it holds {foreign}, and is no pgkura repository",
            hint="choose an empty folder or prefix: nothing of yours shall be mixed with backups",
        )
    return keys


def clear_half_made(storage: Storage, keys: list[str]) -> None:
    """Make room for a whole one."""
    for key in keys:
        if not key.startswith("probe/"):  # another process may be trying the store
            storage.delete(key)


def refuse_existing(storage: Storage) -> None:
    """Raises RepositoryExists when anything but a half-made repository lies where one is to be made."""
    if is_there(storage):
        raise RepositoryExists(f"{storage.url} is a repository already", hint="use it, or choose another place")
    half_made(storage)


def unused_keys(storage: Storage, identity: Identity, host: HostKey) -> NewKeys | None:
    """The keys of a half-made repository, if these are; None if they may be in use elsewhere."""
    root = identity.root.public_key()
    if host.root_public != public_hex(root):
        return None
    key = epoch_key(host.epoch)
    try:
        body = open_signature(storage.get(key), "epoch", host.repository_id, key, {ROOT: root})[1]
        epoch = Identity.parse(unseal(body, [identity.secret], key).decode("utf-8", "replace"))
    except (KeyNotFound, Tampered, WrongKey):
        return None
    if epoch.recipient != host.recipient:
        return None
    return NewKeys(
        repository_id=host.repository_id,
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        identity=identity,
        epoch_secret=epoch.secret,
        host=host,
    )


def create(storage: Storage, keys: NewKeys, *, host_name: str = "", standing: str = "") -> None:
    """Write a new repository; its head last, so that a half-made one is never taken for one. `standing` is there."""
    root = keys.identity.root

    def put(key: str, kind: str, body: bytes) -> None:
        if key != standing:
            storage.create(key, seal_signature(kind, keys.repository_id, key, body, signer=ROOT, private=root))

    write_scripts(storage, keys.repository_id, root)
    host = HostRecord.of(keys.host, name=host_name, created=keys.created)
    put(epoch_key(keys.host.epoch), "epoch", seal(epoch_text(keys), [keys.identity.recipient]))
    first = Shared(
        generation=1,
        epoch=keys.host.epoch,
        recipient=keys.host.recipient,
        mac=bytes.fromhex(keys.host.mac_key),
        prints=bytes.fromhex(keys.host.mac_key),
        records=new_identity().secret,
        revoked=(),
    )
    put(shared_key(1), "shared", pack_record(first.encode(), [keys.host.recipient, host.operations]))
    put(host_file(host.host_id), "host", host.encode())
    head = {
        "created": keys.created,
        "format": FORMAT,
        "repository": keys.repository_id,
        "root": public_hex(root.public_key()),
    }
    put(REPOSITORY_KEY, "repository", canonical.encode(head))
    _check(storage, keys)


def _check(storage: Storage, keys: NewKeys) -> None:
    """Read back: another `init` at the same place and moment may have mixed its files with ours."""
    try:
        open_keyring(storage, keys.identity, keys.host)
    except PgkuraError as error:
        storage.delete(REPOSITORY_KEY)
        raise RepositoryExists(
            f"somebody else made a repository at {storage.url} at the same moment", hint="run it again, alone"
        ) from error


def epoch_text(keys: NewKeys) -> bytes:
    """What `keys/epoch-0001` seals."""
    return f"# pgkura epoch {keys.host.epoch} of repository {keys.repository_id}\n{keys.epoch_secret}\n".encode()
