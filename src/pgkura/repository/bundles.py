"""Bundles: many segments of a chain in few files, made without opening what hosts cannot read.

A *body* is the sealed messages of many segments, one after the other, byte for byte as they were stored. A *bundle* is
one signed file with the records of these segments, which says where in which body each lies; a short record before
them tells of all together. Body first: the bundle is what makes it count. Parts of large transactions stay where
they are.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgkura.core.errors import Tampered
from pgkura.core.wal import parse_lsn
from pgkura.repository import canonical
from pgkura.repository.belief import Belief
from pgkura.repository.changes import CHAINS, CHANGES, Changes, PartRef, SegmentName
from pgkura.repository.container import seal_signature
from pgkura.repository.later import refuse_later_record
from pgkura.repository.seal import pack_record, unpack_record
from pgkura.storage.base import Stored, read_range

CUT = "from-"
GONE = "gone"
_BUNDLE = re.compile(r"changes/([^/]+)/bundles/([0-9A-F]{16})-([0-9A-F]{16})-([1-9][0-9]{0,8})\Z")
_HEAD = re.compile(rb"([0-9a-z,]*)\n([1-9][0-9]{0,9})\n")
_FILE = re.compile(r"changes/[^/]+/(?:parts|bodies)/([0-9a-f]{32})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleName:
    """From where to where a bundle goes, and how many segments are in it."""

    start: int
    end: int
    count: int

    def key(self, chain: str) -> str:
        """Where it lies."""
        return f"{CHANGES}{chain}/bundles/{self.start:016X}-{self.end:016X}-{self.count}"


Run = SegmentName | BundleName


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A prune took away what lies before `position`; no transaction there was later than `top_xid`."""

    position: int
    top_xid: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A segment in a bundle: its record as its watcher wrote it, and where its sealed messages lie.

    body    which file; None for a segment whose messages are all in parts
    size, sha256  of the sealed messages
    """

    name: SegmentName
    record: Mapping[str, Any]
    body: PartRef | None
    offset: int
    size: int
    sha256: str

    @classmethod
    def of(cls, name: SegmentName, record: Mapping[str, Any], sealed: bytes) -> "Entry":
        """In no body yet."""
        sha256 = hashlib.sha256(sealed).hexdigest()
        return cls(name=name, record=record, body=None, offset=0, size=len(sealed), sha256=sha256)

    def placed(self, body: PartRef, offset: int) -> "Entry":
        """The same in a body."""
        return replace(self, body=body, offset=offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleHead:
    """What a bundle says of all its segments together.

    hosts          those whose segments its writer passes on, beside its own
    bodies, parts  the files that it needs
    bytes          of sealed messages in both
    record         the rest: sums and bounds, as in a segment's record
    """

    name: BundleName
    signer: str
    hosts: tuple[str, ...]
    bodies: tuple[PartRef, ...]
    parts: tuple[PartRef, ...]
    bytes: int
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """All that a bundle's file says."""

    head: BundleHead
    entries: tuple[Entry, ...]


def run_name(key: str) -> Run | None:
    """Of a file of `changes/`; None for any other than a segment or a bundle."""
    if found := _BUNDLE.match(key):
        return BundleName(start=int(found[2], 16), end=int(found[3], 16), count=int(found[4]))
    return SegmentName.of(key)


def name_of(entries: Sequence[Entry]) -> BundleName:
    """Of the bundle of these segments."""
    return BundleName(start=entries[0].name.start, end=entries[-1].name.end, count=len(entries))


def in_order(runs: Iterable[Run]) -> list[Run]:
    """By their start; of those that begin together the longest first, and a bundle before the segment it replaces."""
    return sorted(runs, key=lambda r: (r.start, -r.end, -_count(r)))


def _count(run: Run) -> int:
    return run.count if isinstance(run, BundleName) else 0


class Bundles(Changes):
    """A part of Repository, which has the keys."""

    _belief: Belief

    @property
    def revoked_hosts(self) -> frozenset[str]:
        """Of whom nothing new is believed."""
        return self._belief.revoked

    def runs(self, chain: str) -> list[Run]:
        """All segments and bundles of a chain that count."""
        return in_order(r for s in self.run_files(chain) if (r := run_name(s.key)) is not None)

    def run_files(self, chain: str) -> list[Stored]:
        """Their files."""
        return [s for place in ("segments", "bundles") for s in self.believed(f"{CHANGES}{chain}/{place}/")]

    def chain_start(self, chain: str, start: Mapping[str, Any]) -> int:
        """Where the log of a chain begins now: what was before may have been removed. `start`: its record."""
        cut = self.chain_cut(chain)
        return parse_lsn(start["position"]) if cut is None else max(parse_lsn(start["position"]), cut.position)

    def chain_cut(self, chain: str) -> Cut | None:
        """The latest one. Raises Tampered."""
        return max(self.chain_cuts(chain), key=lambda c: c.position, default=None)

    def chain_cuts(self, chain: str) -> list[Cut]:
        """All, earliest first. Their records must open: a name alone decides nothing. Raises Tampered."""
        records = ((name, self.chain_record(chain, name)) for name in self.chain_names(chain, CUT))
        made = (
            Cut(position=parse_lsn(record["position"]), top_xid=int(record["top_xid"]), name=name)
            for name, record in records
            if record is not None
        )
        return sorted(made, key=lambda c: c.position)

    def chain_gone(self, chain: str) -> bool:
        """Whether a prune removes it as a whole. Raises Tampered."""
        return self.chain_record(chain, GONE) is not None

    def chain_files(self, chain: str) -> list[Stored]:
        """Files of its records."""
        return self.believed(f"{CHAINS}{chain}/")

    def loose_files(self, chain: str, place: str) -> dict[str, Stored]:
        """Parts or bodies, by id: signed by nobody, named by records."""
        found = ((_FILE.match(s.key), s) for s in self.storage.list(f"{CHANGES}{chain}/{place}/"))
        return {match[1]: s for match, s in found if match is not None}

    def put_body(self, chain: str, pieces: Sequence[bytes]) -> PartRef:
        """Store sealed messages of several segments in one file."""
        data = b"".join(pieces)
        ref = PartRef(id=secrets.token_hex(16), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        self.storage.create(_body(chain, ref), data)
        return ref

    def body(self, chain: str, ref: PartRef) -> bytes:
        """A whole one, checked. Raises Tampered, KeyNotFound."""
        data = self.storage.get(_body(chain, ref))
        if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise Tampered(f"{_body(chain, ref)} is damaged", detail="its hash differs from what its bundle says")
        return data

    def sealed_of(self, chain: str, entry: Entry) -> bytes:
        """The sealed messages of one segment, by as short a read as the store can do. Raises Tampered, KeyNotFound."""
        if entry.body is None:
            return b""
        key = _body(chain, entry.body)
        data = read_range(self.storage, key, entry.offset, entry.size)
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise Tampered(f"{key} is damaged", detail="a hash differs from what its bundle says")
        return data

    def has_body(self, chain: str, ref: PartRef) -> bool:
        """Whether it lies there in its size."""
        key = _body(chain, ref)
        return any(s.key == key and s.size == ref.bytes for s in self.storage.list(key))

    def put_bundle(self, chain: str, entries: Sequence[Entry], hosts: Iterable[str]) -> BundleName:
        """Raises KeyExists where another one was here."""
        name = name_of(entries)
        key = name.key(chain)
        private = self._keys.private
        if private is None:
            raise Tampered("a bundle needs a signing key")
        bodies = list(dict.fromkeys(e.body for e in entries if e.body is not None))
        head = pack_record(canonical.encode(head_record(chain, entries, bodies)), self._keys.recipients)
        every = pack_record(canonical.encode(_list_record(entries, bodies)), self._keys.recipients)
        others = ",".join(sorted(set(hosts) - {self._keys.signer}))
        body = b"%s\n%d\n" % (others.encode(), len(head)) + head + every
        file = seal_signature("bundle", self.repository_id, key, body, signer=self._keys.signer, private=private)
        self.storage.create(key, file)
        return name

    def bundle_head(self, chain: str, name: BundleName, data: bytes | None = None) -> BundleHead:
        """Its short record, the signature of all checked. `data`: its file, where it was read already.

        Raises Tampered, KeyNotFound.
        """
        return self._open_bundle(chain, name, data)[0]

    def bundle(self, chain: str, name: BundleName) -> Bundle:
        """The whole. Raises Tampered, KeyNotFound."""
        head, packed = self._open_bundle(chain, name)
        key = name.key(chain)
        record = canonical.decode(unpack_record(packed, self._keys.secrets, key), key)
        refuse_later_record(record, key)
        try:
            entries = tuple(_entries(record, chain, head.bodies))
            ends = [e.name.end for e in entries]
            first = entries[0].name.start
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Tampered(f"{key} is damaged", detail=f"not a bundle's record: {type(error).__name__}") from error
        if (first, ends[-1], len(ends)) != (name.start, name.end, name.count) or ends != sorted(set(ends)):
            raise Tampered(f"{key} contradicts itself", detail="its segments are not those of its name")
        return Bundle(head=head, entries=entries)

    def _open_bundle(self, chain: str, name: BundleName, data: bytes | None = None) -> tuple[BundleHead, bytes]:
        key = name.key(chain)
        data = self.storage.get(key) if data is None else data
        signer, body = self._keys.open_signed("bundle", key, data)
        self._believe(signer, key, data)
        found = _HEAD.match(body)
        if found is None or found.end() + int(found[2]) > len(body):
            raise Tampered(f"{key} is damaged", detail="the length of its record is none")
        end = found.end() + int(found[2])
        record = canonical.decode(unpack_record(body[found.end() : end], self._keys.secrets, key), key)
        refuse_later_record(record, key)
        try:
            if record["chain"] != chain or record["segments"] != name.count:
                raise ValueError("of another bundle")
            head = BundleHead(
                name=name,
                signer=signer,
                hosts=tuple(filter(None, found[1].decode().split(","))),
                bodies=tuple(map(_ref, record["bodies"])),
                parts=tuple(map(_ref, record["parts"])),
                bytes=record["bytes"],
                record=record,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Tampered(f"{key} is damaged", detail=f"not a bundle's record: {type(error).__name__}") from error
        return head, body[end:]

    def drop_bundle(self, chain: str, name: BundleName) -> None:
        """Its writer takes it back."""
        self.storage.delete(name.key(chain))


def _body(chain: str, ref: PartRef) -> str:
    return f"{CHANGES}{chain}/bodies/{ref.id}"


def head_record(chain: str, entries: Sequence[Entry], bodies: Sequence[PartRef]) -> dict[str, Any]:
    """Of all segments together: sums, bounds, and the last value of each sequence. Pure."""
    records = [e.record for e in entries]
    counts: dict[tuple[str, str], list[int]] = {}
    values: dict[tuple[str, str], int] = {}
    for record in records:
        for schema, name, *some in record["tables"]:
            known = counts.setdefault((schema, name), [0] * len(some))
            counts[schema, name] = [a + b for a, b in zip(known, some, strict=True)]
        values |= {(schema, name): value for schema, name, value in record["sequences"]}
    parts = [{k: p[k] for k in ("id", "bytes", "sha256")} for r in records for p in r["parts"]]
    busy = [r for r in records if r["transactions"]]
    ddl = sum(r.get("ddl", 0) for r in records)
    return {
        **({"ddl": ddl} if ddl else {}),
        "version": 1,
        "chain": chain,
        "segments": len(records),
        "bodies": [ref.as_json() for ref in bodies],
        "parts": parts,
        "bytes": sum(e.size for e in entries) + sum(p["bytes"] for p in parts),
        "transactions": sum(r["transactions"] for r in records),
        "changes": sum(r["changes"] for r in records),
        "first_time": min((r["first_time"] for r in busy), default=0),
        "last_time": max((r["last_time"] for r in busy), default=0),
        "top_xid": max(r["top_xid"] for r in records),
        "top_time": max(r["top_time"] for r in records),
        "tables": [[*name, *some] for name, some in sorted(counts.items())],
        "sequences": [[*name, value] for name, value in sorted(values.items())],
    }


def _list_record(entries: Sequence[Entry], bodies: Sequence[PartRef]) -> dict[str, Any]:
    places = {ref: place for place, ref in enumerate(bodies)}
    return {
        "version": 1,
        "segments": [
            {
                "record": dict(e.record),
                "body": -1 if e.body is None else places[e.body],
                "offset": e.offset,
                "bytes": e.size,
                "sha256": e.sha256,
            }
            for e in entries
        ],
    }


def _ref(told: Mapping[str, Any]) -> PartRef:
    return PartRef(id=told["id"], bytes=told["bytes"], sha256=told["sha256"])


def _entries(record: Mapping[str, Any], chain: str, bodies: Sequence[PartRef]) -> Iterable[Entry]:
    for one in record["segments"]:
        told = one["record"]
        refuse_later_record(told, "a segment in a bundle")
        body = None if one["body"] < 0 else bodies[one["body"]]
        if told["chain"] != chain or told["rest"]["bytes"] != one["bytes"]:
            raise ValueError("a segment of another chain, or of another length")
        if not 0 <= one["offset"] <= one["offset"] + one["bytes"] <= (body.bytes if body is not None else 0):
            raise ValueError("outside of its body")
        yield Entry(
            name=SegmentName(parse_lsn(told["start"]), parse_lsn(told["end"])),
            record=told,
            body=body,
            offset=one["offset"],
            size=one["bytes"],
            sha256=one["sha256"],
        )
