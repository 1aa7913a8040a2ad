"""Reads a repository back and names every damage with the snapshots it touches."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from pgkura.core.errors import FormatTooNew, PgkuraError, Unbelieved
from pgkura.core.progress import Progress
from pgkura.core.refs import ChunkRef, ObjectRef
from pgkura.repository.claims import SNAPSHOTS
from pgkura.repository.container import ROOT, open_signature, signer_of
from pgkura.repository.ground import Ground
from pgkura.repository.journal import JOURNAL
from pgkura.repository.keeping import INDEX, STATE
from pgkura.repository.keyrecords import epoch_key, host_file, revoked_key
from pgkura.repository.locks import short_locks
from pgkura.repository.manifest import Manifest
from pgkura.repository.packs import object_id, object_key
from pgkura.repository.references import REFERENCES
from pgkura.repository.repository import Repository
from pgkura.repository.scripts import SCRIPTS_KEY
from pgkura.repository.shelf import ChunkShelf
from pgkura.repository.spool import ObjectMap
from pgkura.repository.tombstones import TOMBSTONES
from pgkura.repository.versions import older_version
from pgkura.storage.base import KeyNotFound

_NO_LIST = "chunk list"
# Files of `keys/` by the words before the dash; those of the scripts are told on their own.
_SIGNED_BY_ROOT = frozenset({"epoch", "host", "people", "revoked", "shared", "superseded"})


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
    """What was read. `deep`: decrypted and decoded, not only the sealed form.

    `orphans`: data files that nothing needs; None where not all that may need one could be read. `unbelieved`: files
    that were not read, since a file of their host is damaged, with which they are told.
    """

    deep: bool
    snapshots: int = 0
    objects: int = 0
    chunks: int = 0
    rows: int = 0
    bytes: int = 0
    orphans: int | None = None
    problems: list[Problem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unbelieved: list[str] = field(default_factory=list)
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
    report.problems[:0] = _broken_keys(repo, manifests, report.unbelieved)
    objects, ground = ObjectMap(), Ground()
    lists: dict[int, str] = {}
    shelf = ChunkShelf()
    told = True
    for manifest in manifests:
        found = ObjectMap()
        shelf.put(_kept(_references(repo, manifest, deep, report), found))
        named = _named(repo, manifest)
        told = told and named is not None
        if deep and named is not None and not all(i in named for i in found):
            reason = "it does not name every object that its snapshot needs"
            report.problems.append(Problem(file=REFERENCES + manifest.id, reason=reason, snapshots=(manifest.id,)))
        needs = [m.ascending() for m in (found, named) if m is not None]
        lists[ground.keep(_added(chain.from_iterable(needs), objects))] = manifest.id
    if not told and (not deep or any(p.reason.startswith(_NO_LIST) for p in report.problems)):
        # Nothing but the index knows what these need: chunk lists stay closed without the identity.
        for ref in _indexed(repo, report):
            if ref.object.id not in objects:
                objects.add(ref.object)
    progress.stage("reading objects", total=sum(o.cipher_bytes for o in objects.ascending()), unit="bytes")
    for needed in objects.ascending():
        _check_object(repo, needed, sorted(lists[n] for n in ground.lists(needed.id)), shelf, report)
        progress.advance(needed.cipher_bytes)
    shelf.close()

    def needing(object_id: str) -> frozenset[str]:
        return frozenset(lists[n] for n in ground.lists(object_id))

    for file, reason, snapshots in short_locks(repo, manifests, objects, needing, datetime.now(UTC)):
        report.problems.append(Problem(file=file, reason=reason, snapshots=snapshots))
    report.ignored = repo.warnings
    for ref in _indexed(repo, report):
        objects.add(ref.object)
    unread = [*report.unbelieved, *(p.file for p in report.problems)]
    if not any(file.startswith((SNAPSHOTS, INDEX)) for file in unread):
        report.orphans = sum(object_id(s.key) not in objects for s in repo.storage.list("data/"))
    _forget_removed(repo, report)
    return report


def _manifests(repo: Repository, ids: Iterable[str], report: CheckReport) -> Iterator[Manifest]:
    for snapshot_id in ids:
        try:
            yield repo.manifest(snapshot_id)
        except Unbelieved:
            report.unbelieved.append(SNAPSHOTS + snapshot_id)
        except PgkuraError as error:
            report.problems.append(
                Problem(
                    file=SNAPSHOTS + snapshot_id,
                    reason=error.reason,
                    snapshots=(snapshot_id,),
                    later=_is_later(error),
                )
            )


def _added(refs: Iterable[ObjectRef], objects: ObjectMap) -> Iterator[str]:
    for ref in refs:
        objects.add(ref)
        yield ref.id


def _named(repo: Repository, manifest: Manifest) -> ObjectMap | None:
    """The snapshot's references file; None where it has none (or a damaged one, which _records tells)."""
    try:
        return repo.references(manifest.id)
    except PgkuraError:
        return None


def _forget_removed(repo: Repository, report: CheckReport) -> None:
    """A prune that ran at the same time took snapshots away: what only they needed is no problem."""
    there = set(repo.manifest_ids())
    report.problems = [
        p for p in report.problems if not p.snapshots or p.file.startswith("keys/") or there.intersection(p.snapshots)
    ]


def _broken_keys(repo: Repository, manifests: Sequence[Manifest], unbelieved: Sequence[str]) -> Iterator[Problem]:
    """Files of `keys/` that are damaged: an epoch's is needed by all that is sealed to it, a host's by what it signed.

    Whether they are whole shows without the identity: the root signed them.
    """
    later: set[str] = set()
    there = {s.key for s in repo.storage.list("keys/")}
    broken = {key: "it is missing" for m in manifests if (key := epoch_key(m.epoch)) not in there}
    broken |= dict(repo.broken_keys)
    for key in sorted(there - broken.keys()):
        kind = key.removeprefix("keys/").partition("-")[0]
        if kind not in _SIGNED_BY_ROOT:
            continue
        try:
            open_signature(repo.storage.get(key), kind, repo.repository_id, key, {ROOT: repo.root})
        except KeyNotFound:
            pass  # people change
        except PgkuraError as error:
            broken[key] = error.reason
            later.update({key} if _is_later(error) else ())
    stand_on = {key: _stands_on(repo, key) for key in unbelieved}
    for key, why in sorted(broken.items()):
        unread = [file for file, keys in stand_on.items() if key in keys]
        touched = [m.id for m in manifests if epoch_key(m.epoch) == key]
        touched += [file.removeprefix(SNAPSHOTS) for file in unread if file.startswith(SNAPSHOTS)]
        lost = f"; {len(unread)} files that its host signed were not read" if unread else ""
        yield Problem(file=key, reason=why + lost, snapshots=tuple(sorted(touched)), later=key in later)


def _stands_on(repo: Repository, key: str) -> tuple[str, ...]:
    """The files of `keys/` that decide whether the signer of a file is believed."""
    try:
        signer = signer_of(repo.storage.get(key))
    except KeyNotFound:
        return ()  # a prune has removed it
    return host_file(signer), revoked_key(signer)


def _records(repo: Repository, report: CheckReport, progress: Progress) -> None:
    """Index, states, references, tombstones and journal: every signature, every record readable; and the way out is
    ours."""
    try:
        report.problems.extend(Problem(file=name, reason=why, snapshots=()) for name, why in repo.wrong_scripts)
    except PgkuraError as error:
        report.problems.append(Problem(file=SCRIPTS_KEY, reason=error.reason, snapshots=(), later=_is_later(error)))
    keys = [s.key for prefix in (INDEX, STATE, REFERENCES, TOMBSTONES, JOURNAL) for s in repo.believed(prefix)]
    progress.stage("reading records", total=len(keys), unit="files")
    for key in sorted(keys):
        try:
            _open_record(repo, key)
        except KeyNotFound:
            pass  # listed a moment ago: a prune has replaced or removed it
        except Unbelieved:
            report.unbelieved.append(key)
        except PgkuraError as error:
            report.problems.append(
                Problem(file=key, reason=error.reason, snapshots=_snapshots_of(key), later=_is_later(error))
            )
        progress.advance(1)


def _snapshots_of(key: str) -> tuple[str, ...]:
    """Whose file it is. Index, tombstones and journal are of none: what a restore needs stands in its manifest."""
    return tuple(key.removeprefix(p) for p in (STATE, REFERENCES) if key.startswith(p))


def _open_record(repo: Repository, key: str) -> None:
    if key.startswith(INDEX):
        for _ in repo.index(key):
            pass
    elif key.startswith(STATE):
        repo.open_record("state", key, repo.storage.get(key))
    elif key.startswith(REFERENCES):
        repo.references(key.removeprefix(REFERENCES))
    elif key.startswith(TOMBSTONES):
        repo.tombstone(key)
    else:
        repo.journal_record(key, repo.storage.get(key))


def _indexed(repo: Repository, report: CheckReport) -> Iterator[ChunkRef]:
    for key in repo.index_keys():
        try:
            yield from repo.index(key)
        except PgkuraError:
            continue  # told by _records


def _kept(
    refs: Iterable[tuple[ChunkRef, ChunkRef | None]], found: ObjectMap
) -> Iterator[tuple[ChunkRef, ChunkRef | None]]:
    for ref, sizes in refs:
        found.add(ref.object)
        yield ref, sizes


def _references(
    repo: Repository, manifest: Manifest, deep: bool, report: CheckReport
) -> Iterator[tuple[ChunkRef, ChunkRef | None]]:
    """All that a snapshot needs; with chunks of binary rows, the sizes of these."""
    for component in manifest.components.values():
        yield from ((ref, None) for ref in component.refs)
    if not deep:
        return
    try:
        for table in repo.chunk_list(manifest):
            for layer in table.layers:
                yield from ((ref, layer.sizes if ref is layer.chunk else None) for ref in layer.refs())
    except PgkuraError as error:
        report.problems.append(
            Problem(
                file=SNAPSHOTS + manifest.id,
                reason=f"{_NO_LIST}: {error.reason}",
                snapshots=(manifest.id,),
                later=_is_later(error),
            )
        )


def _check_object(
    repo: Repository, ref: ObjectRef, snapshots: Sequence[str], shelf: ChunkShelf, report: CheckReport
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
            Problem(file=key, reason=error.reason, snapshots=tuple(snapshots), later=_is_later(error))
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
    for layer in shelf.of(ref.id):
        chunk = layer.chunk
        try:
            newlines = sum(piece.count(b"\n") for piece in repo.read_chunk(chunk))
            if layer.sizes is not None:
                newlines = len(repo.read_sizes(layer))
        except PgkuraError as error:
            report.problems.append(
                Problem(file=key, reason=error.reason, snapshots=tuple(snapshots), later=_is_later(error))
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
