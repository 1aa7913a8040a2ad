"""Reads a repository back and names every damage with the snapshots it touches."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pgkura.core.errors import FormatTooNew, PgkuraError
from pgkura.core.progress import Progress
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.repository.locks import short_locks
from pgkura.repository.manifest import Manifest
from pgkura.repository.packs import object_key
from pgkura.repository.repository import INDEX, JOURNAL, SNAPSHOTS, Repository
from pgkura.repository.scripts import SCRIPTS_KEY
from pgkura.repository.versions import older_version
from pgkura.storage.base import KeyNotFound

_NO_LIST = "chunk list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file, what is wrong with it, and the snapshots that need it. `later`: it is of a format we do not read yet."""

    file: str
    reason: str
    snapshots: tuple[str, ...]
    later: bool = False

    def __str__(self) -> str:
        touched = ", ".join(self.snapshots[:5]) + (" …" if len(self.snapshots) > 5 else "")
        return f"{self.file}: {self.reason}" + (f" (needed by {touched})" if touched else "")


@dataclass(slots=True)
class CheckReport:
    """What was read. `deep`: decrypted and decoded, not only the sealed form."""

    deep: bool
    snapshots: int = 0
    objects: int = 0
    chunks: int = 0
    rows: int = 0
    bytes: int = 0
    orphans: int = 0
    problems: list[Problem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    # Chunks whose rows are no lines: object id, offset.

    def as_json(self) -> dict[str, Any]:
        """For journals and `--json`; the sealed form never says `equal`."""
        return {
            "form": "read" if self.deep else "sealed",
            "snapshots": self.snapshots,
            "objects": self.objects,
            "chunks": self.chunks,
            "rows": self.rows,
            "bytes": self.bytes,
            "orphans": self.orphans,
            "problems": [{"file": p.file, "reason": p.reason, "snapshots": list(p.snapshots)} for p in self.problems],
            "ignored": self.ignored,
        }


def check_repository(repo: Repository, ids: Sequence[str], *, deep: bool, progress: Progress) -> CheckReport:
    """Check signatures of all records, and everything that these snapshots need."""
    report = CheckReport(deep=deep)
    manifests = list(_manifests(repo, ids, report))
    report.snapshots = len(manifests)
    _records(repo, report, progress)
    needed: dict[str, set[str]] = defaultdict(set)
    objects: dict[str, ObjectRef] = {}
    chunks: dict[str, dict[tuple[int, int], ChunkRef]] = defaultdict(dict)
    sized: dict[str, Layer] = {}
    for manifest in manifests:
        for ref in _references(repo, manifest, deep, sized, report):
            objects[ref.object.id] = ref.object
            needed[ref.object.id].add(manifest.id)
            chunks[ref.object.id][ref.offset, ref.length] = ref
    if not deep or any(p.reason.startswith(_NO_LIST) for p in report.problems):
        # Chunk lists stay closed without the identity, and a damaged one names nothing: the index knows every object.
        for ref in _indexed(repo, report):
            objects.setdefault(ref.object.id, ref.object)
    progress.stage("reading objects", total=sum(o.cipher_bytes for o in objects.values()), unit="bytes")
    for object_id in sorted(objects):
        _check_object(repo, objects[object_id], sorted(needed[object_id]), chunks[object_id].values(), sized, report)
        progress.advance(objects[object_id].cipher_bytes)
    needing = {i: (ref, needed[i]) for i, ref in objects.items()}
    for file, reason, snapshots in short_locks(repo, manifests, needing, datetime.now(UTC)):
        report.problems.append(Problem(file=file, reason=reason, snapshots=snapshots))
    present = {s.key for s in repo.storage.list("data/")}
    report.ignored = repo.warnings
    report.orphans = len(present - {object_key(ref.object.id) for ref in _indexed(repo, report)})
    return report


def _manifests(repo: Repository, ids: Iterable[str], report: CheckReport) -> Iterator[Manifest]:
    for snapshot_id in ids:
        try:
            yield repo.manifest(snapshot_id)
        except PgkuraError as error:
            report.problems.append(
                Problem(
                    file=SNAPSHOTS + snapshot_id,
                    reason=_reason(error),
                    snapshots=(snapshot_id,),
                    later=_is_later(error),
                )
            )


def _records(repo: Repository, report: CheckReport, progress: Progress) -> None:
    """Keys, index and journal: every signature, every record readable; and the way out is ours."""
    report.problems.extend(Problem(file=key, reason=why, snapshots=()) for key, why in repo.broken_keys)
    try:
        report.problems.extend(Problem(file=name, reason=why, snapshots=()) for name, why in repo.wrong_scripts)
    except PgkuraError as error:
        report.problems.append(Problem(file=SCRIPTS_KEY, reason=_reason(error), snapshots=(), later=_is_later(error)))
    keys = [s.key for prefix in (INDEX, JOURNAL) for s in repo.believed(prefix)]
    progress.stage("reading records", total=len(keys), unit="files")
    for key in sorted(keys):
        try:
            if key.startswith(INDEX):
                for _ in repo.index(key):
                    pass
            else:
                repo.journal_record(key, repo.storage.get(key))
        except PgkuraError as error:
            report.problems.append(Problem(file=key, reason=_reason(error), snapshots=(), later=_is_later(error)))
        progress.advance(1)


def _indexed(repo: Repository, report: CheckReport) -> Iterator[ChunkRef]:
    for key in repo.index_keys():
        try:
            yield from repo.index(key)
        except PgkuraError:
            continue  # told by _records


def _references(
    repo: Repository, manifest: Manifest, deep: bool, sized: dict[str, Layer], report: CheckReport
) -> Iterator[ChunkRef]:
    for component in manifest.components.values():
        if component.ref is not None:
            yield component.ref
    if not deep:
        return
    try:
        for table in repo.chunk_list(manifest):
            yield from table.refs()
            sized.update((x.chunk.mac, replace(x, drops=None, dropped=0)) for x in table.layers if x.sizes is not None)
    except PgkuraError as error:
        report.problems.append(
            Problem(
                file=SNAPSHOTS + manifest.id,
                reason=f"{_NO_LIST}: {_reason(error)}",
                snapshots=(manifest.id,),
                later=_is_later(error),
            )
        )


def _check_object(
    repo: Repository,
    ref: ObjectRef,
    snapshots: Sequence[str],
    chunks: Iterable[ChunkRef],
    sized: Mapping[str, Layer],
    report: CheckReport,
) -> None:
    key = object_key(ref.id)
    try:
        sealed = repo.storage.get(key)
    except KeyNotFound:
        reason = "it is missing" + _older(repo, ref)
        report.problems.append(Problem(file=key, reason=reason, snapshots=tuple(snapshots)))
        return
    except PgkuraError as error:
        report.problems.append(
            Problem(file=key, reason=_reason(error), snapshots=tuple(snapshots), later=_is_later(error))
        )
        return
    report.objects += 1
    report.bytes += len(sealed)
    if len(sealed) != ref.cipher_bytes or hashlib.sha256(sealed).hexdigest() != ref.sha256:
        reason = "its bytes are not those stored" + _older(repo, ref)
        report.problems.append(Problem(file=key, reason=reason, snapshots=tuple(snapshots)))
        return
    if not report.deep:
        return
    for chunk in sorted(chunks, key=lambda c: c.offset):
        try:
            newlines = sum(piece.count(b"\n") for piece in repo.read_chunk(chunk))
            if chunk.mac in sized:
                newlines = len(repo.read_sizes(sized[chunk.mac]))
        except PgkuraError as error:
            report.problems.append(
                Problem(file=key, reason=_reason(error), snapshots=tuple(snapshots), later=_is_later(error))
            )
            continue
        report.chunks += 1
        report.rows += chunk.rows
        if chunk.rows and newlines != chunk.rows:
            report.problems.append(
                Problem(file=key, reason=f"{newlines} rows instead of {chunk.rows}", snapshots=tuple(snapshots))
            )


def _older(repo: Repository, ref: ObjectRef) -> str:
    older = older_version(repo.storage, object_key(ref.id), ref)
    return "" if older is None else f"; its older version {older[0]} is whole, and restores use that"


def _is_later(error: PgkuraError) -> bool:
    return isinstance(error, FormatTooNew)


def _reason(error: PgkuraError) -> str:
    return f"{error.msg}: {error.detail}" if error.detail else error.msg
