"""`snapshots`, `show`, `history`: what the repository holds, read without touching a database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgkura.core.errors import Tampered, UsageError
from pgkura.core.outcome import Finding
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyNotFound

# The plan's permanent histories (1.1), by component.
KINDS = (
    "schema",
    "rls",
    "extensions",
    "types",
    "views",
    "functions",
    "triggers",
    "permissions",
    "roles",
    "indexes",
    "constraints",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """One line of `snapshots`. `proven` is the time of the last equal proof, '' if none."""

    id: str
    created: str
    database: str
    server: str
    result: str
    tables: int
    rows: int
    bytes_read: int
    bytes_stored: int
    skipped: int
    proven: str

    def as_json(self) -> dict[str, Any]:
        """The `--json` shape."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What `snapshots` prints. One damaged file does not hide the others: they are what is needed then.

    damaged  what does not open, named, and why
    """

    rows: tuple[SnapshotRow, ...]
    damaged: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, or 16 where something is damaged or forged."""
        return Tampered.exit_code if self.damaged else 0

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": "incomplete" if self.damaged else "ok",
            "snapshots": [row.as_json() for row in self.rows],
            "damaged": list(self.damaged),
        }


def list_snapshots(repo: Repository) -> Listed:
    """All snapshots that open, oldest first, each with its last equal proof."""
    damaged: list[str] = []
    proven: dict[str, str] = {}
    try:
        for record in repo.journal("proof"):
            if record.body.get("equal") is True:
                proven[str(record.body["snapshot"])] = record.created
    except Tampered as error:
        damaged.append(error.reason)
    rows: list[SnapshotRow] = []
    for snapshot_id in repo.manifest_ids():
        try:
            rows.append(_row(repo.exact_manifest(snapshot_id), proven))
        except Tampered as error:
            damaged.append(error.reason)
        except KeyNotFound:
            continue  # a prune has just removed it
    return Listed(rows=tuple(rows), damaged=tuple(damaged))


def _row(m: Manifest, proven: Mapping[str, str]) -> SnapshotRow:
    return SnapshotRow(
        id=m.id,
        created=m.created,
        database=m.database,
        server=server_name(m.server_version_num),
        result=m.result,
        tables=m.counts.get("tables", 0),
        rows=m.counts.get("rows", 0),
        bytes_read=m.counts.get("bytes_read", 0),
        bytes_stored=m.counts.get("bytes_stored", 0),
        skipped=len(m.skipped),
        proven=proven.get(m.id, ""),
    )


def server_name(version_num: int) -> str:
    """150018 as `15.18`."""
    return f"{version_num // 10000}.{version_num % 10000}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSnapshot:
    """What `show` prints. `tables` (largest first) is empty without the identity."""

    id: str
    facts: tuple[tuple[str, str], ...]
    components: tuple[tuple[str, str, int], ...]
    tables: tuple[tuple[str, int, int], ...]
    skipped: tuple[Finding, ...]
    accepted: tuple[str, ...]
    counts: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The `--json` shape."""
        return {
            "result": "ok",
            "snapshot": self.id,
            "facts": dict(self.facts),
            "counts": self.counts,
            "components": [{"name": n, "fingerprint": f, "bytes": b} for n, f, b in self.components],
            "tables": [{"table": n, "rows": r, "bytes": b} for n, r, b in self.tables],
            "skipped": [f.as_json() for f in self.skipped],
            "accepted": list(self.accepted),
        }


def show_snapshot(repo: Repository, which: str) -> ShownSnapshot:
    """One snapshot's facts; its tables too where the identity is at hand."""
    m = repo.manifest(which)
    facts = (
        ("snapshot", m.id),
        ("taken", m.created),
        ("database", m.database),
        ("server", server_name(m.server_version_num)),
        ("system id", m.system_identifier),
        ("consistent at", f"LSN {m.lsn}, snapshot {m.snapshot}"),
        ("made by", f"pgkura {m.pgkura_version}, {m.pg_dump_version}, host {m.host_id}"),
        ("epoch", str(m.epoch)),
        *((("locked until", m.expires),) if m.expires else ()),
        ("result", m.result),
    )
    return ShownSnapshot(
        id=m.id,
        facts=facts,
        components=tuple(
            (name, c.fingerprint, sum(r.length for r in c.refs)) for name, c in sorted(m.components.items())
        ),
        tables=_tables(repo, m),
        skipped=m.skipped,
        accepted=m.accepted,
        counts=dict(m.counts),
    )


def _tables(repo: Repository, manifest: Manifest) -> tuple[tuple[str, int, int], ...]:
    if not repo.can_read_data:
        return ()
    rows = [(t.name, t.rows, t.bytes) for t in repo.chunk_list(manifest)]
    return tuple(sorted(rows, key=lambda row: (-row[2], row[0])))


@dataclass(frozen=True, slots=True, kw_only=True)
class KindVersion:
    """One version in a permanent history."""

    number: int
    created: str
    snapshot: str
    fingerprint: str

    def as_json(self) -> dict[str, Any]:
        """The `--json` shape."""
        return {name: getattr(self, name) for name in self.__slots__}


def kind_history(repo: Repository, kind: str) -> list[KindVersion]:
    """The versions of one kind, oldest first; a new one only where the fingerprint changed."""
    if kind not in KINDS:
        raise UsageError(f"no history of {kind!r}", hint=f"one of: {', '.join(KINDS)}")
    return _versions(repo.manifests(), kind)


def _versions(manifests: Sequence[Manifest], kind: str) -> list[KindVersion]:
    versions: list[KindVersion] = []
    last: dict[str, str] = {}  # one history per database: two databases in one repository do not alternate
    for m in manifests:
        component = m.components.get(kind)
        if component is None or last.get(m.database) == component.fingerprint:
            continue
        last[m.database] = component.fingerprint
        versions.append(
            KindVersion(number=len(versions) + 1, created=m.created, snapshot=m.id, fingerprint=component.fingerprint)
        )
    return versions
