"""A new repository: what is written, in which order."""

from importlib.resources import files

from pgkura.core.errors import RepositoryExists
from pgkura.repository import canonical
from pgkura.repository.container import ROOT, seal_signature
from pgkura.repository.keyrecords import HostRecord, Shared, epoch_key, host_file, shared_key
from pgkura.repository.keyring import FORMAT, REPOSITORY_KEY
from pgkura.repository.keys import NewKeys, new_identity, public_hex
from pgkura.repository.seal import pack_record, seal
from pgkura.storage.base import KeyNotFound, Storage

_ESCAPE = ("RESTORE.md", "restore.sh")


def refuse_existing(storage: Storage) -> None:
    """Raises RepositoryExists when anything lies where a repository is to be made."""
    first = next(iter(storage.list("")), None)
    if first is None:
        return
    try:
        storage.get(REPOSITORY_KEY)
    except KeyNotFound:
        raise RepositoryExists(
            f"{storage.url} is not empty",
            detail=f"it holds {first.key}, and is no pgkura repository",
            hint="choose an empty folder or prefix: nothing of yours shall be mixed with backups",
        ) from None
    raise RepositoryExists(f"{storage.url} is a repository already", hint="use it, or choose another place")


def create(storage: Storage, keys: NewKeys, *, host_name: str = "") -> None:
    """Write a new repository; its head last, so that a half-made one is never taken for one."""
    refuse_existing(storage)
    root = keys.identity.root

    def put(key: str, kind: str, body: bytes) -> None:
        storage.create(key, seal_signature(kind, keys.repository_id, key, body, signer=ROOT, private=root))

    write_escape(storage)
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


def epoch_text(keys: NewKeys) -> bytes:
    """What `keys/epoch-0001` seals."""
    return f"# pgkura epoch {keys.host.epoch} of repository {keys.repository_id}\n{keys.epoch_secret}\n".encode()


def write_escape(storage: Storage) -> None:
    """Put RESTORE.md and restore.sh (or their newer versions) into the repository."""
    for name in _ESCAPE:
        storage.put(name, files("pgkura.repository").joinpath("escape", name).read_bytes())
