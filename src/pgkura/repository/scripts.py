"""The way out with stock tools: `RESTORE.md` and `restore.sh`, and the root's word on which bytes they may have.

Whoever restores by hand runs the script with the identity in reach; whoever may write to the store could put another
one there. `keys/scripts` holds the hashes of all versions that the root has put here, under the root's signature.
"""

import hashlib
from importlib.resources import files

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pgkura.core.errors import FormatTooNew, Tampered
from pgkura.repository import canonical
from pgkura.repository.container import ROOT, open_signature, seal_signature
from pgkura.repository.later import refuse_later_record
from pgkura.storage.base import KeyNotFound, Storage

NAMES = ("RESTORE.md", "restore.sh")
SCRIPTS_KEY = "keys/scripts"
REFRESH = "`pgkura init --refresh-script`, with the root's identity, writes it anew"


def own(name: str) -> bytes:
    """As this program ships it."""
    return files("pgkura.repository").joinpath("escape", name).read_bytes()


def write_scripts(storage: Storage, repository_id: str, root: Ed25519PrivateKey) -> tuple[str, ...]:
    """Put this program's versions into the repository; the names of those that were not there like this before.

    The root's word first: a crash between leaves an older version, whose hash stays in the list.
    """
    try:
        known = listed_scripts(storage, repository_id, root.public_key())
    except (Tampered, KeyNotFound):
        known = {}
    listed = {name: sorted({*known.get(name, ()), digest(own(name))}) for name in NAMES}
    if listed != known:
        body = canonical.encode({"version": 1, "scripts": listed})
        storage.put(SCRIPTS_KEY, seal_signature("scripts", repository_id, SCRIPTS_KEY, body, signer=ROOT, private=root))
    changed = tuple(name for name in NAMES if stored_file(storage, name) != own(name))
    for name in changed:
        storage.put(name, own(name))
    return changed


def wrong_scripts(storage: Storage, repository_id: str, root: Ed25519PublicKey) -> list[tuple[str, str]]:
    """(file, what is wrong) for each that is neither this program's own nor one that the root put here.

    Raises FormatTooNew.
    """
    wrong: list[tuple[str, str]] = []
    known: dict[str, list[str]] = {}
    try:
        known = listed_scripts(storage, repository_id, root)
    except KeyNotFound:
        pass  # a repository of before this list: only our own version is known
    except FormatTooNew:
        raise
    except Tampered as error:
        wrong.append((SCRIPTS_KEY, f"{error.msg}: {error.detail}; {REFRESH}"))
    for name in NAMES:
        stored = stored_file(storage, name)
        if stored is None:
            wrong.append((name, f"it is missing; {REFRESH}"))
        elif stored != own(name) and digest(stored) not in known.get(name, ()):
            wrong.append((name, f"DO NOT RUN IT: it is none of the versions that pgkura put here; {REFRESH}"))
    return wrong


def listed_scripts(storage: Storage, repository_id: str, root: Ed25519PublicKey) -> dict[str, list[str]]:
    """File → hashes of all versions that the root put here. Raises KeyNotFound, Tampered, FormatTooNew."""
    data = storage.get(SCRIPTS_KEY)
    body = open_signature(data, "scripts", repository_id, SCRIPTS_KEY, {ROOT: root})[1]
    record = canonical.decode(body, SCRIPTS_KEY)
    refuse_later_record(record, SCRIPTS_KEY)
    try:
        return {str(name): [str(h) for h in hashes] for name, hashes in record["scripts"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise Tampered(f"{SCRIPTS_KEY} is damaged", detail="not a list of scripts") from error


def stored_file(storage: Storage, name: str) -> bytes | None:
    """Its bytes; None where there is none."""
    try:
        return storage.get(name)
    except KeyNotFound:
        return None


def digest(data: bytes) -> str:
    """SHA-256, as the root's lists have it."""
    return hashlib.sha256(data).hexdigest()
