"""What a snapshot is made of. Written last: a snapshot exists when its manifest does."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pgkura.core.errors import FormatTooNew, Tampered
from pgkura.core.outcome import Finding, finding_from_json
from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.repository import canonical

VERSION = 2
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\Z")
# Clocks of two backing-up hosts may differ by so much without `latest` naming the older snapshot.
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part with its own fingerprint (keyed MAC of its canonical text); `ref` None when it is empty.

    more  where a long one goes on
    """

    fingerprint: str
    ref: ChunkRef | None
    more: tuple[ChunkRef, ...] = ()

    @property
    def refs(self) -> tuple[ChunkRef, ...]:
        """Its chunks, in order."""
        return () if self.ref is None else (self.ref, *self.more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One snapshot.

    id           `20261123T170836Z-` + 6 hex digits: 16 times the microsecond, and a random digit; ids sort by time
    snapshot     `pg_current_snapshot()`; lsn: WAL position when it was taken
    counts       tables, rows, bytes_read, bytes_stored, chunks, chunks_unchanged, …
    epoch        whose key its chunks are sealed to and keyed with
    expires      until when its files are locked in the store, '' if they are not
    log          of the change log that it is a base of: chain, rows and definitions (fingerprints), after (position)
    components   `archive`, `facts`, `inventory`, `chunks`, `before.sql`, `after.sql`, and one per history kind
    """

    id: str
    created: str
    host_id: str
    database: str
    server_version_num: int
    system_identifier: str
    snapshot: str
    lsn: str
    pgkura_version: str
    pg_dump_version: str
    result: str
    skipped: tuple[Finding, ...]
    accepted: tuple[str, ...]
    counts: Mapping[str, int]
    components: Mapping[str, Component]
    epoch: int = 1
    expires: str = ""
    log: Mapping[str, str] | None = None


def valid_id(text: str) -> bool:
    """Whether this can be a snapshot's id (it becomes part of a key)."""
    return _ID.match(text) is not None


def new_id(now: datetime, newest: str | None) -> str:
    """The id of a snapshot made now (UTC). It sorts after `newest`, if that is not dated later than SKEW from now."""
    if newest is not None and valid_id(newest):
        after = dated(newest) + timedelta(microseconds=1)
        if now < after <= now + SKEW:
            now = after
    return f"{now:%Y%m%dT%H%M%SZ}-{now.microsecond * 16 + secrets.randbelow(16):06x}"


def dated(snapshot_id: str) -> datetime:
    """When a snapshot was made, by its id. Ids of before 2026-11-24 end in random digits: right to the second."""
    stamp, digits = snapshot_id.split("-")
    second = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return second + timedelta(microseconds=min(int(digits, 16) // 16, 999_999))


def encode(m: Manifest) -> bytes:
    """One line of canonical JSON, then one line per component that the repository's own script reads."""
    record = {
        # A reader of before would take the first part of a component for all of it.
        "version": 2 if any(c.more for c in m.components.values()) else 1,
        "id": m.id,
        "created": m.created,
        "host": m.host_id,
        "database": m.database,
        "server_version_num": m.server_version_num,
        "system_identifier": m.system_identifier,
        "snapshot": m.snapshot,
        "lsn": m.lsn,
        "pgkura_version": m.pgkura_version,
        "pg_dump_version": m.pg_dump_version,
        "result": m.result,
        "skipped": [f.as_json() for f in m.skipped],
        "accepted": list(m.accepted),
        "counts": dict(m.counts),
        "components": {
            name: {
                "fingerprint": c.fingerprint,
                "ref": None if c.ref is None else _ref_json(c.ref),
                **({"more": [_ref_json(r) for r in c.more]} if c.more else {}),
            }
            for name, c in m.components.items()
        },
        # Absent in the first epoch and without a lock, as in all manifests of before.
        **({"epoch": m.epoch} if m.epoch != 1 else {}),
        **({"expires": m.expires} if m.expires else {}),
        **({"log": dict(m.log)} if m.log else {}),
    }
    return canonical.encode(record) + b"\n" + _lines(m.components)


def _lines(components: Mapping[str, Component]) -> bytes:
    lines = []
    for name, component in sorted(components.items()):
        # The mark stops a script of before, which would keep the last part only: there is no such object.
        mark = ("+",) if component.more else ()
        for ref in component.refs:
            o = ref.object
            words = (name, *mark, o.id, o.cipher_bytes, o.sha256, ref.offset, ref.stored, ref.length, ref.mac)
            lines.append("component\t" + "\t".join(str(w) for w in words) + "\n")
    return "".join(lines).encode()


def _ref_json(ref: ChunkRef) -> dict[str, Any]:
    return {
        "object": ref.object.id,
        "cipher_bytes": ref.object.cipher_bytes,
        "sha256": ref.object.sha256,
        "offset": ref.offset,
        "stored": ref.stored,
        "length": ref.length,
        "rows": ref.rows,
        "mac": ref.mac,
    }


def _ref(data: Mapping[str, Any]) -> ChunkRef:
    return ChunkRef(
        object=ObjectRef(id=data["object"], cipher_bytes=data["cipher_bytes"], sha256=data["sha256"]),
        offset=data["offset"],
        stored=data["stored"],
        length=data["length"],
        rows=data["rows"],
        mac=data["mac"],
    )


def decode(data: bytes, what: str) -> Manifest:
    """Raises Tampered, FormatTooNew."""
    line, _, rest = data.partition(b"\n")
    r = canonical.decode(line, what)
    if not isinstance(r, dict) or not isinstance(r.get("version"), int):
        raise Tampered(f"{what} is no manifest", detail="it has no version")
    if r["version"] > VERSION:
        raise FormatTooNew(f"{what} has manifest format {r['version']}", hint="use a newer pgkura")
    try:
        made = Manifest(
            id=r["id"],
            created=r["created"],
            host_id=r["host"],
            database=r["database"],
            server_version_num=r["server_version_num"],
            system_identifier=r["system_identifier"],
            snapshot=r["snapshot"],
            lsn=r["lsn"],
            pgkura_version=r["pgkura_version"],
            pg_dump_version=r["pg_dump_version"],
            result=r["result"],
            skipped=tuple(finding_from_json(f) for f in r["skipped"]),
            accepted=tuple(r["accepted"]),
            counts=dict(r["counts"]),
            components={
                name: Component(
                    fingerprint=c["fingerprint"],
                    ref=None if c["ref"] is None else _ref(c["ref"]),
                    more=tuple(map(_ref, c.get("more", ()))),
                )
                for name, c in r["components"].items()
            },
            epoch=int(r.get("epoch", 1)),
            expires=str(r.get("expires", "")),
            log={str(k): str(v) for k, v in r["log"].items()} if "log" in r else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Tampered(f"{what} is no manifest", detail=f"{type(error).__name__}: {error}") from error
    if not valid_id(made.id) or rest != _lines(made.components):
        raise Tampered(f"{what} contradicts itself", detail="its two lists of components differ, or its id is no id")
    return made
