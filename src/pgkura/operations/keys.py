"""`people`, `hosts`, `epoch`: who may read, who may write, and from when on. Changes need the root's identity."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pgkura.core.errors import UsageError
from pgkura.operations.keyfiles import write_secret
from pgkura.repository.admin import Root, read_people
from pgkura.repository.keyring import open_keyring
from pgkura.repository.keys import HostKey, Identity, valid_recipient
from pgkura.repository.repository import Repository
from pgkura.repository.trust import open_trust
from pgkura.storage.base import Storage

_NAME = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,62}[^\s\x00-\x1f\x7f])?\Z")
ROOT_NAME = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One line of `people list`."""

    name: str
    recipient: str
    added: str
    by: str

    def as_json(self) -> dict[str, Any]:
        """The `--json` shape."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonChanged:
    """Somebody was let in or shut out. `lines` are the comment lines of the new person's identity file."""

    name: str
    recipient: str
    epochs: int
    lines: str = ""

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": "ok",
            "name": self.name,
            "recipient": self.recipient,
            "epochs": self.epochs,
            **({"identity_lines": self.lines} if self.lines else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLine:
    """One line of `hosts list`. `revoked` is '' for a host in use."""

    id: str
    name: str
    created: str
    epoch: int
    revoked: str

    def as_json(self) -> dict[str, Any]:
        """The `--json` shape."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAdded:
    """A new host and where its key file lies."""

    id: str
    name: str
    path: Path

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {"result": "ok", "host": self.id, "name": self.name, "host_key": str(self.path)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRevoked:
    """A host that is believed no more, and how much of it still is."""

    id: str
    name: str
    revoked: str
    snapshots: int
    files: int

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {"result": "ok", **{name: getattr(self, name) for name in self.__slots__}}


def list_people(storage: Storage, identity: Identity) -> list[Reader]:
    """The root and everybody it let in; each of them can ask."""
    trust = open_trust(storage, identity, None)
    is_root = identity.is_root(trust.root_hex)
    root = Reader(name=ROOT_NAME, recipient=identity.recipient if is_root else "-", added=trust.created, by="-")
    people = read_people(storage, trust, identity)
    return [root, *(Reader(name=p.name, recipient=p.recipient, added=p.added, by=p.by) for p in people)]


def add_person(storage: Storage, identity: Identity, name: str, recipient: str) -> PersonChanged:
    """Let one more person read everything. Raises UsageError for a name or recipient that cannot be."""
    _check_name(name)
    if recipient.startswith("AGE-SECRET-KEY-"):
        raise UsageError(
            "that is a secret key, not a recipient",
            detail="it stands in this shell's history now, and was visible to every process of this machine",
            hint="let the person make a new pair with `age-keygen` and send the line that begins with age1",
        )
    if not valid_recipient(recipient):
        raise UsageError(
            f"{recipient[:80]!r} is no age recipient",
            hint="it begins with age1 (X25519); `age-keygen -y FILE` prints it from an identity file",
        )
    root = Root.open(storage, identity)
    person, epochs = root.add_person(name, recipient)
    _journal(storage, identity, "people", {"action": "add", "name": name, "recipient": recipient})
    lines = f"# repository: {root.trust.repository_id}\n# root: {root.trust.root_hex}\n"
    return PersonChanged(name=person.name, recipient=person.recipient, epochs=epochs, lines=lines)


def remove_person(storage: Storage, identity: Identity, name: str) -> PersonChanged:
    """Take a person out of every epoch's file. What he copied before stays his: see the threat model."""
    person, epochs = Root.open(storage, identity).remove_person(name)
    _journal(storage, identity, "people", {"action": "remove", "name": name, "recipient": person.recipient})
    return PersonChanged(name=person.name, recipient=person.recipient, epochs=epochs)


def list_hosts(storage: Storage, identity: Identity | None, host: HostKey | None) -> list[HostLine]:
    """All hosts, oldest first."""
    trust = open_trust(storage, identity, host)
    lines = [
        HostLine(
            id=h.host_id,
            name=h.name,
            created=h.created,
            epoch=h.epoch,
            revoked=trust.revoked[h.host_id].created if h.host_id in trust.revoked else "",
        )
        for h in trust.hosts.values()
    ]
    return sorted(lines, key=lambda line: (line.created, line.id))


def add_host(storage: Storage, identity: Identity, name: str, path: Path) -> HostAdded:
    """A new host key file (0600, never over an existing one), signed in by the root."""
    _check_name(name)
    root = Root.open(storage, identity)
    if any(h.name == name and h.host_id not in root.trust.revoked for h in root.trust.hosts.values()):
        raise UsageError(f"there is a host {name!r} already", hint="revoke it first, or choose another name")
    if path.exists():
        raise UsageError(f"{path} exists already", detail="a key file is never overwritten", hint="choose another path")
    written: list[Path] = []

    def keep(key: HostKey) -> None:
        write_secret(path, key.text())
        written.append(path)

    try:
        key = root.add_host(name, keep)
    except BaseException:
        for one in written:
            one.unlink(missing_ok=True)
        raise
    _journal(storage, identity, "hosts", {"action": "add", "host": key.host_id, "name": name})
    return HostAdded(id=key.host_id, name=name, path=path)


def revoke_host(storage: Storage, identity: Identity, which: str, *, since: datetime | None = None) -> HostRevoked:
    """Believe nothing that the host writes from now on; what it wrote before (and before `since`) stays good."""
    root = Root.open(storage, identity)
    host = root.host(which)
    revocation = root.revoke(host.host_id, since=since)
    _journal(storage, identity, "hosts", {"action": "revoke", "host": host.host_id, "name": host.name})
    return HostRevoked(
        id=host.host_id,
        name=host.name,
        revoked=revocation.created,
        snapshots=sum(1 for key in revocation.good if key.startswith("snapshots/")),
        files=len(revocation.good),
    )


def new_epoch(storage: Storage, identity: Identity) -> int:
    """Begin a new epoch; its number."""
    epoch = Root.open(storage, identity).new_epoch()
    _journal(storage, identity, "epoch", {"epoch": epoch.number})
    return epoch.number


def _check_name(name: str) -> None:
    if not _NAME.match(name) or name == ROOT_NAME:
        raise UsageError(
            f"{name[:80]!r} cannot be a name",
            detail="names are 1 to 64 printable characters, and `root` is taken",
            hint="use a person's or a machine's name",
        )


def _journal(storage: Storage, identity: Identity, kind: str, body: Mapping[str, Any]) -> None:
    Repository(storage, open_keyring(storage, identity, None)).append_journal(kind, body)
