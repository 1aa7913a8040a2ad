"""The records that the root keeps in `keys/` beside the epochs: hosts, what hosts share, revocations, people, and what
was replaced.

Encoding and decoding only; who reads them is in keyring, who writes them in admin.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pgkura.core.errors import Tampered
from pgkura.repository import canonical
from pgkura.repository.keys import HostKey, public_from_hex, public_hex
from pgkura.repository.later import refuse_later_record

PEOPLE_KEY = "keys/people"
EPOCHS = "keys/epoch-"
HOSTS = "keys/host-"
SHARED = "keys/shared-"
REVOKED = "keys/revoked-"
SUPERSEDED = "keys/superseded-"
COPY_HINT = "get it back from a copy of the repository"


def epoch_key(number: int) -> str:
    """Where an epoch's sealed identity lies."""
    return f"{EPOCHS}{number:04d}"


def host_file(host_id: str) -> str:
    """Where a host's signed public keys lie."""
    return f"{HOSTS}{host_id}"


def shared_key(generation: int) -> str:
    """Where a generation of what hosts share lies."""
    return f"{SHARED}{generation:04d}"


def revoked_key(host_id: str) -> str:
    """Where a host's revocation lies."""
    return f"{REVOKED}{host_id}"


def superseded_key(name: str) -> str:
    """Where the root's word lies on which files one change replaced."""
    return f"{SUPERSEDED}{name}"


def number_of(key: str, prefix: str) -> int | None:
    """The counter that ends a key, None if it is none (a file that is not ours)."""
    digits = key.removeprefix(prefix)
    return int(digits) if digits.isdigit() and len(digits) < 9 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """A host's public half, as the root signed it. `name` is '' in records of before names."""

    host_id: str
    name: str
    created: str
    epoch: int
    operations: str
    signing: Ed25519PublicKey

    def encode(self) -> bytes:
        """The body of `keys/host-<id>`."""
        named = {"name": self.name} if self.name else {}
        return canonical.encode(
            {
                "created": self.created,
                "epoch": self.epoch,
                "host": self.host_id,
                "operations": self.operations,
                "signing": public_hex(self.signing),
                **named,
            }
        )

    @classmethod
    def of(cls, key: HostKey, *, name: str, created: str) -> "HostRecord":
        """The public half of a host key file."""
        return cls(
            host_id=key.host_id,
            name=name,
            created=created,
            epoch=key.epoch,
            operations=key.operations_recipient,
            signing=key.signing.public_key(),
        )

    @classmethod
    def decode(cls, body: bytes, key: str) -> "HostRecord":
        """Raises Tampered, FormatTooNew."""
        record = canonical.decode(body, key)
        refuse_later_record(record, key)
        try:
            made = cls(
                host_id=record["host"],
                name=str(record.get("name", "")),
                created=str(record["created"]),
                epoch=record["epoch"],
                operations=str(record["operations"]),
                signing=public_from_hex(record["signing"]),
            )
            if host_file(made.host_id) != key:
                raise ValueError("moved")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise Tampered(f"{key} is damaged", detail="not a host record") from error
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """One generation of what all hosts need to know: sealed to their operations keys and to the epoch.

    epoch, recipient, mac  what new data is sealed to and keyed with
    prints                 key of component fingerprints: that of the first epoch, so that histories go on
    records                age identity that opens records of the index class: so a later host reads earlier records
    revoked                hosts that must have a revocation in `keys/`: deleting that file does not bring them back
    """

    generation: int
    epoch: int
    recipient: str
    mac: bytes = field(repr=False)
    prints: bytes = field(repr=False)
    records: str = field(repr=False)
    revoked: tuple[str, ...]

    def encode(self) -> bytes:
        """The payload of `keys/shared-NNNN`."""
        return canonical.encode(
            {
                "version": 1,
                "generation": self.generation,
                "epoch": self.epoch,
                "recipient": self.recipient,
                "mac": self.mac.hex(),
                "prints": self.prints.hex(),
                "records": self.records,
                "revoked": list(self.revoked),
            }
        )

    @classmethod
    def decode(cls, payload: bytes, key: str) -> "Shared":
        """Raises Tampered, FormatTooNew."""
        record = _versioned(payload, key)
        try:
            made = cls(
                generation=record["generation"],
                epoch=record["epoch"],
                recipient=record["recipient"],
                mac=bytes.fromhex(record["mac"]),
                prints=bytes.fromhex(record["prints"]),
                records=record["records"],
                revoked=tuple(record["revoked"]),
            )
            if shared_key(made.generation) != key or len(made.mac) != 32 or len(made.prints) != 32:
                raise ValueError("moved")
        except (KeyError, ValueError, TypeError) as error:
            raise Tampered(f"{key} is damaged", detail="not a record of what hosts share") from error
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """From when a host is not believed any more, and which of its files still are: key → SHA-256 of the whole file."""

    host_id: str
    created: str
    good: Mapping[str, str]

    def encode(self) -> bytes:
        """The body of `keys/revoked-<host>`."""
        return canonical.encode({"version": 1, "host": self.host_id, "created": self.created, "good": dict(self.good)})

    @classmethod
    def decode(cls, body: bytes, key: str) -> "Revocation":
        """Raises Tampered, FormatTooNew."""
        record = _versioned(body, key)
        try:
            made = cls(host_id=record["host"], created=str(record["created"]), good=dict(record["good"]))
            if revoked_key(made.host_id) != key:
                raise ValueError("moved")
        except (KeyError, ValueError, TypeError) as error:
            raise Tampered(f"{key} is damaged", detail="not a revocation") from error
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who can read every backup besides the root."""

    name: str
    recipient: str
    added: str
    by: str


def encode_people(people: tuple[Person, ...]) -> bytes:
    """The payload of `keys/people`."""
    lines = [{"name": p.name, "recipient": p.recipient, "added": p.added, "by": p.by} for p in people]
    return canonical.encode({"version": 1, "people": lines})


def decode_people(payload: bytes) -> tuple[Person, ...]:
    """Raises Tampered, FormatTooNew."""
    record = _versioned(payload, PEOPLE_KEY)
    try:
        return tuple(
            Person(name=p["name"], recipient=p["recipient"], added=p["added"], by=p["by"]) for p in record["people"]
        )
    except (KeyError, TypeError) as error:
        raise Tampered(f"{PEOPLE_KEY} is damaged", detail="not a list of people") from error


def encode_superseded(files: Mapping[str, str]) -> bytes:
    """The body of `keys/superseded-<name>`: key → SHA-256 of the whole file that another one takes the place of."""
    return canonical.encode({"version": 1, "files": dict(files)})


def decode_superseded(body: bytes, key: str) -> dict[str, str]:
    """Raises Tampered, FormatTooNew."""
    files = _versioned(body, key).get("files")
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise Tampered(f"{key} is damaged", detail="not a list of what was replaced")
    return files


def _versioned(data: bytes, key: str) -> dict[str, Any]:
    record = canonical.decode(data, key)
    if not isinstance(record, dict) or not isinstance(record.get("version"), int):
        raise Tampered(f"{key} is damaged", detail="it has no version")
    refuse_later_record(record, key)
    return record
