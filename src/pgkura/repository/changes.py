"""The change log's files: chains, their segments and marks. Whoever writes and reads what is in them: pgkura.changes.

A *chain* is an unbroken run of segments of one slot. A segment is one file: a record that hosts can read, and the
sealed messages, which they cannot; what does not fit lies in parts beside it, named with their hashes in the record.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pgkura.core.errors import Tampered
from pgkura.repository import canonical
from pgkura.repository.container import seal_signature
from pgkura.repository.journal import Journal
from pgkura.repository.keyring import Keyring
from pgkura.repository.later import refuse_later_record
from pgkura.repository.seal import decompress, pack_record, seal, unpack_record
from pgkura.storage.base import KeyNotFound

CHAINS = "chains/"
CHANGES = "changes/"
HEAD, START, END = "head", "start", "end"
# Before the timeline to which a chain's server went on.
MOVED = "moved-"
_SEGMENT = re.compile(r"changes/([^/]+)/segments/([0-9A-F]{16})-([0-9A-F]{16})\Z")
_LENGTH = re.compile(rb"([1-9][0-9]{0,9})\n")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """From where to where in the log a segment goes."""

    start: int
    end: int

    def key(self, chain: str) -> str:
        """Where it lies."""
        return f"{CHANGES}{chain}/segments/{self.start:016X}-{self.end:016X}"

    @classmethod
    def of(cls, key: str) -> "SegmentName | None":
        """Of a segment's file; None for any other."""
        found = _SEGMENT.match(key)
        return None if found is None else cls(int(found[2], 16), int(found[3], 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRef:
    """Sealed messages outside the segment's own file."""

    id: str
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """In the segment's record."""
        return {"id": self.id, "bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class LivingChain:
    """A chain that goes on. `slot` is also the name of its publication."""

    id: str
    slot: str


class Changes(Journal):
    """A part of Repository, which has the keys."""

    _keys: Keyring

    @property
    def repository_id(self) -> str:
        """32 hex digits."""
        raise NotImplementedError

    def chain_ids(self) -> list[str]:
        """Of all chains, oldest first."""
        return sorted({s.key.split("/")[1] for s in self.believed(CHAINS) if s.key.endswith(f"/{HEAD}")})

    def living_chain(self, system: str, database: str) -> LivingChain | None:
        """The newest chain of a database, if it has begun and not ended: what is committed from now on is in it."""
        for chain in reversed(self.chain_ids()):
            head = self.chain_record(chain, HEAD)
            if head is None or (head["system"], head["database"]) != (system, database):
                continue
            if self.chain_record(chain, START) is None or self.chain_record(chain, END) is not None:
                return None
            return LivingChain(id=chain, slot=head["slot"])
        return None

    def put_chain_record(self, chain: str, name: str, record: Mapping[str, Any]) -> None:
        """Raises KeyExists."""
        key = f"{CHAINS}{chain}/{name}"
        self.storage.create(key, self._seal_record("chain", key, canonical.encode({"version": 1, **record})))

    def chain_record(self, chain: str, name: str) -> dict[str, Any] | None:
        """None where there is none. Raises Tampered."""
        key = f"{CHAINS}{chain}/{name}"
        try:
            payload = self._open_record("chain", key)
        except KeyNotFound:
            return None
        return _record(payload, key)

    def chain_names(self, chain: str, prefix: str) -> list[str]:
        """Names of a chain's records that begin so."""
        folder = f"{CHAINS}{chain}/"
        return [s.key.removeprefix(folder) for s in self.believed(folder + prefix)]

    def segments(self, chain: str) -> list[SegmentName]:
        """All that have a file of their own, by their start."""
        found = (SegmentName.of(s.key) for s in self.believed(f"{CHANGES}{chain}/segments/"))
        return sorted(name for name in found if name is not None)

    def put_part(self, chain: str, packed: bytes) -> PartRef:
        """Seal and store messages that are compressed already."""
        sealed = self.seal_messages(packed)
        ref = PartRef(id=secrets.token_hex(16), bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest())
        self.storage.create(f"{CHANGES}{chain}/parts/{ref.id}", sealed)
        return ref

    def seal_messages(self, packed: bytes) -> bytes:
        """To the epoch: hosts cannot open it."""
        return seal(packed, [self._keys.newest.recipient])

    def put_segment(self, chain: str, name: SegmentName, record: Mapping[str, Any], sealed: bytes) -> None:
        """Raises KeyExists where another writer was here."""
        key = name.key(chain)
        private = self._keys.private
        if private is None:
            raise Tampered("a segment needs a signing key")
        packed = pack_record(canonical.encode({"version": 1, **record}), self._keys.recipients)
        body = b"%d\n" % len(packed) + packed + sealed
        self.storage.create(
            key,
            seal_signature("segment", self.repository_id, key, body, signer=self._keys.signer, private=private),
        )

    def segment(self, chain: str, name: SegmentName) -> tuple[dict[str, Any], bytes]:
        """(record, sealed messages), its signature checked. Raises Tampered, KeyNotFound."""
        return self.signed_segment(chain, name)[1:]

    def signed_segment(
        self, chain: str, name: SegmentName, data: bytes | None = None
    ) -> tuple[str, dict[str, Any], bytes]:
        """The same with the host that signed it. `data`: its file, where it was read already."""
        key = name.key(chain)
        data = self.storage.get(key) if data is None else data
        signer, body = self._keys.open_signed("segment", key, data)
        self._believe(signer, key, data)
        found = _LENGTH.match(body)
        if found is None or found.end() + int(found[1]) > len(body):
            raise Tampered(f"{key} is damaged", detail="the length of its record is none")
        end = found.end() + int(found[1])
        record = _record(unpack_record(body[found.end() : end], self._keys.secrets, key), key)
        return signer, record, body[end:]

    def part(self, chain: str, ref: PartRef) -> bytes:
        """Sealed messages, checked. Raises Tampered, KeyNotFound."""
        key = f"{CHANGES}{chain}/parts/{ref.id}"
        data = self.storage.get(key)
        if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise Tampered(f"{key} is damaged", detail="its hash differs from what its segment says")
        return data

    def open_messages(self, sealed: bytes, what: str, *, limit: int) -> Iterator[bytes]:
        """Plain messages in pieces. Raises WrongKey without the identity."""
        packed, _ = self._keys.open_data(sealed, what, 0)
        return decompress(memoryview(packed), what, limit=limit)

    def _believe(self, signer: str, key: str, data: bytes) -> None:
        raise NotImplementedError


def _record(payload: bytes, key: str) -> dict[str, Any]:
    record = canonical.decode(payload, key)
    refuse_later_record(record, key)
    if not isinstance(record, dict):
        raise Tampered(f"{key} is damaged", detail="not a record")
    return record
