"""What the log holds while the database has one shape: a chain's `cover-<shape>` record, written and read back.

Values that older rows have in new columns are sealed to the epoch, like rows: hosts cannot read them.
"""

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pgkura.changes.chains import Chain
from pgkura.changes.counting import Sample, as_record, sample
from pgkura.core.errors import Tampered
from pgkura.core.names import QualifiedName
from pgkura.core.wal import Visible
from pgkura.postgres.parts import Part, Parts
from pgkura.postgres.shape import Poll
from pgkura.repository.repository import Repository
from pgkura.repository.seal import compress
from pgkura.storage.base import KeyExists

_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """`tables`: name → (how it is logged, why it is not in the log, '' = it is).

    settled  a base must see the end of all transactions before this one
    parts    None where an older watcher wrote it; empty: tables that held no row when they joined the log
    first    counts of the look that saw this shape first
    """

    tables: Mapping[QualifiedName, tuple[str, str]]
    settled: int
    parts: Parts | None
    empty: frozenset[int]
    first: Sample | None = None


def cover(repo: Repository, chain: Chain, seen: Poll) -> None:
    """Say, for this shape of the database, which tables are in the log, and why others are not.

    A table that joined is missing from what transactions did that are older than that: `settled` is the first that is
    surely younger, and a base must see the end of all before it. Where none joined, or only tables without a row that
    nobody was writing to, it is what it was.
    """
    name = f"cover-{seen.shape.rows}"
    members = {t.membership: t.oid for t in seen.tables if t.coverage}
    known = repo.chain_record(chain.id, name)
    if known is not None:
        chain.settled = known["settled"]
        chain.empty = chain.empty | frozenset(known.get("empty", ()))
    elif chain.fresh:
        chain.settled = 0
    elif chain.members is None or any(
        oid not in chain.empty for membership, oid in members.items() if membership not in chain.members
    ):
        chain.settled = Visible.parse(seen.visible).xmax
    chain.empty &= frozenset(members.values())
    chain.fresh, chain.members, chain.covered = False, frozenset(members), seen.shape.rows
    if known is None:
        record: dict[str, Any] = {
            "tables": [[t.qname.schema, t.qname.name, t.coverage, t.why_not] for t in seen.tables],
            "settled": chain.settled,
            "visible": seen.visible,
            "empty": sorted(chain.empty),
        }
        if seen.counted is not None:
            record["counted"] = as_record(seen.counted, seen.counted.tables, whole=True)
        if seen.parts is not None:
            record |= _told(repo, seen.parts)
        with suppress(KeyExists):
            repo.put_chain_record(chain.id, name, record)


def _told(repo: Repository, parts: Parts) -> dict[str, Any]:
    missing = json.dumps([[oid, number, value] for (oid, number), value in parts.missing.items()]).encode()
    return {
        "parts": [[oid, p.whole, p.key, p.natts, p.filenode] for oid, p in parts.tables.items()],
        "types": parts.types,
        "missing": base64.b64encode(repo.seal_messages(compress(missing))).decode() if parts.missing else "",
    }


def read_cover(repo: Repository, chain: str, rows: str, *, deep: bool = False) -> Cover | None:
    """None where no look of the watcher's had this shape. `deep`: with sealed values, which needs the identity.

    Raises Tampered.
    """
    name = f"cover-{rows}"
    record = repo.chain_record(chain, name)
    if record is None:
        return None
    try:
        return Cover(
            tables={QualifiedName(schema, table): (identity, why) for schema, table, identity, why in record["tables"]},
            settled=int(record["settled"]),
            parts=_parts(repo, record, f"chains/{chain}/{name}", deep) if "parts" in record else None,
            empty=frozenset(map(int, record.get("empty", ()))),
            first=sample(record.get("counted"), str(record.get("visible", "")), 0),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered(f"chains/{chain}/{name} is damaged", detail=type(error).__name__) from error


def _parts(repo: Repository, record: dict[str, Any], what: str, deep: bool) -> Parts:
    missing: dict[tuple[int, int], str] = {}
    if deep and record["missing"]:
        sealed = base64.b64decode(record["missing"], validate=True)
        plain = b"".join(repo.open_messages(sealed, what, limit=_LIMIT))
        missing = {(int(oid), int(number)): str(value) for oid, number, value in json.loads(plain)}
    return Parts(
        tables={int(oid): Part(whole=w, key=k, natts=int(n), filenode=int(f)) for oid, w, k, n, f in record["parts"]},
        types=str(record["types"]),
        missing=missing,
    )
