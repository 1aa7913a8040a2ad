"""The change log read by the document alone (section 9): records, segments, bundles, parts, bodies, messages.

Shares no code with the product; what it cannot read, docs/formats/repository.md does not describe.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from typing import Any

from tests.format.independent_reader import Reader, age, zstd


class ChangeReader:
    """One chain of a repository."""

    def __init__(self, reader: Reader, chain: str) -> None:
        self.reader = reader
        self.chain = chain
        self.folder = reader.folder / "changes" / chain
        self.records = {
            path.name: json.loads(reader.record(f"chains/{chain}/{path.name}", "chain"))
            for path in (reader.folder / "chains" / chain).iterdir()
        }
        assert all(record["version"] == 1 for record in self.records.values())

    def cuts(self) -> list[dict[str, Any]]:
        """Records of what was taken away, latest last."""
        return [self.records[name] for name in sorted(self.records) if name.startswith("from-")]

    def start(self) -> int:
        """Where the log begins now."""
        return max(position(r["position"]) for r in (self.records["start"], *self.cuts()))

    def names(self) -> list[tuple[int, int, str]]:
        """(start, end, key) of segments and bundles in the order in which they are read: the longest first."""
        found = []
        for place in ("segments", "bundles"):
            for path in (self.folder / place).iterdir() if (self.folder / place).exists() else ():
                start, end, *_ = path.name.split("-")
                found.append((int(start, 16), int(end, 16), f"changes/{self.chain}/{place}/{path.name}"))
        return sorted(found, key=lambda f: (f[0], -f[1]))

    def pieces(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """(record, plain frames) of every segment from the start on, without a gap."""
        at = self.start()
        for start, end, key in self.names():
            if end <= at:
                continue
            assert start <= at, "a gap"
            at = end
            yield from self.bundle(key) if "/bundles/" in key else [self.segment(key)]

    def segment(self, key: str) -> tuple[dict[str, Any], bytes]:
        """One with a file of its own."""
        length, rest = self.reader.body(key, "segment").split(b"\n", 1)
        record = self.index(rest[: int(length)])
        return record, self.messages(record, rest[int(length) :])

    def bundle(self, key: str) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Those of a bundle; the short record must agree with the long one."""
        hosts, length, rest = self.reader.body(key, "bundle").split(b"\n", 2)
        assert set(hosts.decode().split(",")) <= {"", *self.reader.signers}
        head, every = self.index(rest[: int(length)]), self.index(rest[int(length) :])
        assert head["chain"] == self.chain and head["version"] == every["version"] == 1
        bodies = []
        for ref in head["bodies"]:
            data = (self.folder / "bodies" / ref["id"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (ref["bytes"], ref["sha256"])
            bodies.append(data)
        records = [one["record"] for one in every["segments"]]
        start, end, count = key.rpartition("/")[2].split("-")
        assert (position(records[0]["start"]), position(records[-1]["end"])) == (int(start, 16), int(end, 16))
        assert head["segments"] == len(records) == int(count)
        for name in ("transactions", "changes"):
            assert head[name] == sum(r[name] for r in records)
        assert head["top_xid"] == max(r["top_xid"] for r in records)
        parts = [{k: p[k] for k in ("id", "bytes", "sha256")} for r in records for p in r["parts"]]
        assert head["parts"] == parts
        assert head["bytes"] == sum(o["bytes"] for o in every["segments"]) + sum(p["bytes"] for p in parts)
        for one in every["segments"]:
            data = bodies[one["body"]] if one["body"] >= 0 else b""
            sealed = data[one["offset"] : one["offset"] + one["bytes"]]
            assert len(sealed) == one["bytes"] and hashlib.sha256(sealed).hexdigest() == one["sha256"]
            yield one["record"], self.messages(one["record"], sealed)

    def index(self, sealed: bytes) -> dict[str, Any]:
        """A record that hosts read."""
        made = zstd(age(sealed, "\n".join(self.reader.epochs.values())))
        record = json.loads(made)
        assert json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == made
        assert isinstance(record, dict)
        return record

    def messages(self, record: dict[str, Any], rest: bytes) -> bytes:
        """Frames of parts and rest."""
        assert record["version"] == 1 and record["chain"] == self.chain and len(rest) == record["rest"]["bytes"]
        found = []
        for part in record["parts"]:
            data = (self.folder / "parts" / part["id"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])
            found.append(self.opened(data))
            assert len(found[-1]) == part["plain"]
        if rest:
            found.append(self.opened(rest))
            assert len(found[-1]) == record["rest"]["plain"]
        return b"".join(found)

    def opened(self, sealed: bytes) -> bytes:
        """Sealed to the epoch alone."""
        return zstd(age(sealed, "\n".join(self.reader.epochs.values())))

    def transactions(self) -> Iterator[tuple[int, list[list[Any]]]]:
        """(32-bit number, changes) of each, once, in commit order."""
        done = 0
        for record, plain in self.pieces():
            relations: dict[int, tuple[str, list[bool]]] = {}
            changes: list[list[Any]] = []
            count, skip, xid = 0, False, 0
            for payload in frames(plain):
                kind, body = chr(payload[0]), payload[1:]
                if kind == "B":
                    commit, _, xid = struct.unpack("!QqI", body)
                    changes, skip = [], commit < done
                elif kind == "C":
                    _, _, end, _ = struct.unpack("!BQQq", body)
                    assert position(record["start"]) < end <= position(record["end"])
                    count += 1
                    if not skip:
                        done = end
                        yield xid, changes
                elif kind == "R":
                    oid, told = relation(body)
                    relations[oid] = told
                elif kind in "IUD":
                    changes.append(change(kind, body, relations))
                elif kind == "T":
                    number, _ = struct.unpack_from("!IB", body)
                    oids = struct.unpack_from(f"!{number}I", body, 5)
                    changes += [[relations[oid][0], "T", None, None] for oid in oids]
            assert count == record["transactions"]


def position(text: str) -> int:
    """`16/B374D848`."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def frames(plain: bytes) -> Iterator[bytes]:
    """Payloads."""
    at = 0
    while at < len(plain):
        length, _ = struct.unpack_from("!IQ", plain, at)
        yield plain[at + 12 : at + 12 + length]
        at += 12 + length
    assert at == len(plain)


def relation(body: bytes) -> tuple[int, tuple[str, list[bool]]]:
    """Object id, name, and which columns are the key."""
    (oid,) = struct.unpack_from("!I", body)
    _, name, rest = body[4:].split(b"\0", 2)
    (count,) = struct.unpack_from("!H", rest, 1)
    keys, rest = [], rest[3:]
    for _ in range(count):
        flags, (_, rest) = rest[0], rest[1:].split(b"\0", 1)
        keys.append(bool(flags & 1))
        rest = rest[8:]
    assert rest == b""
    return oid, (name.decode(), keys)


def change(kind: str, body: bytes, relations: dict[int, tuple[str, list[bool]]]) -> list[Any]:
    """[table, kind, old, new]."""
    (oid,) = struct.unpack_from("!I", body)
    name, _ = relations[oid]
    rest, told = body[4:], {}
    while rest:
        letter = chr(rest[0])
        told[letter], rest = row(rest[1:])
    return [name, kind, told.get("K", told.get("O")), told.get("N")]


def row(data: bytes) -> tuple[list[str | None], bytes]:
    """Values as text, and what comes after them."""
    (count,) = struct.unpack_from("!H", data)
    values: list[str | None] = []
    at = 2
    for _ in range(count):
        letter = chr(data[at])
        at += 1
        if letter == "n":
            values.append(None)
            continue
        assert letter == "t"
        (length,) = struct.unpack_from("!I", data, at)
        values.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return values, data[at:]
