"""Whether the credential at hand could destroy backups: tried on a file of its own, said plainly."""

import secrets
from dataclasses import dataclass
from typing import Literal

from pgkura.core.errors import StoreError
from pgkura.storage.base import KeyNotFound, Storage
from pgkura.storage.retention import Keeping, Retention, retention_of

_HOW = "docs/how-to/s3-policies.md has the policies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleting:
    """What was found, and what to change ('' = nothing)."""

    state: Literal["ok", "note"]
    found: str
    change: str = ""


def try_to_delete(storage: Storage) -> Deleting:
    """Makes a probe and tries to delete it, then its versions. Leaves it where that is refused. Raises StoreError."""
    key = f"probe/{secrets.token_hex(8)}"
    storage.create(key, b"pgkura doctor: may this credential delete?\n")
    retention = retention_of(storage)
    keeping = Keeping.UNKNOWN if retention is None else retention.keeping()
    locks = " Object Lock is on: `backup --lock-days N` locks versions." if keeping is Keeping.LOCKS else ""
    try:
        storage.delete(key)
        storage.get(key)
    except KeyNotFound:
        pass
    except StoreError:
        return Deleting(state="ok", found=f"this credential cannot delete.{locks}")
    else:
        return Deleting(state="ok", found=f"the store does not delete for this credential.{locks}")
    if storage.properties().local and retention is None:
        return Deleting(
            state="note",
            found="this user can delete every backup: so can whoever breaks into this machine",
            change="keep a second copy where this machine cannot delete",
        )
    if retention is None or keeping in (Keeping.NOTHING, Keeping.UNKNOWN):
        unknown = "; whether versions are kept is not known here" if keeping is Keeping.UNKNOWN else ""
        change = f"take the right to delete away, and turn versioning on; {_HOW}"
        return Deleting(state="note", found=f"this credential can delete every backup{unknown}", change=change)
    if deletes_versions(retention, key):
        saved = "only versions that are locked stay." if locks else "nothing protects the backups."
        return Deleting(
            state="note",
            found=f"this credential can delete files and their older versions for good: {saved}{locks}",
            change=f"take s3:DeleteObject and s3:DeleteObjectVersion away; {_HOW}",
        )
    return Deleting(
        state="ok",
        found=f"this credential can hide files, but not delete their older versions: those protect.{locks}",
        change=f"take s3:DeleteObject away as well; {_HOW}",
    )


def deletes_versions(retention: Retention, key: str) -> bool:
    """Whether all versions of a file could be deleted for good."""
    try:
        for version in list(retention.history(key)):
            retention.delete_version(version.key, version.id)
    except StoreError:
        return False
    return True
