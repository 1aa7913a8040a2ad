"""Object Lock: every file that a snapshot needs is kept by the store until the snapshot's own expiry."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any, TypeVar

from pgkura.core.errors import PgkuraError, StoreError
from pgkura.core.refs import ObjectRef
from pgkura.repository.claims import SNAPSHOTS
from pgkura.repository.keeping import INDEX
from pgkura.repository.keyring import REPOSITORY_KEY
from pgkura.repository.manifest import Manifest
from pgkura.repository.packs import object_key
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyNotFound
from pgkura.storage.retention import LockMode, Retention, need_retention, retention_of

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_AT_ONCE = 8
T = TypeVar("T")
# What opens a snapshot beside its own files.
_PLAIN = (REPOSITORY_KEY, "RESTORE.md", "restore.sh")
REFERENCES = "references/"


def expiry(created: str, days: int) -> str:
    """Until when a snapshot's files are locked, as its manifest says it; '' for no lock."""
    return (time_of(created) + timedelta(days=days)).strftime(_FORMAT) if days else ""


def locked_on(manifest: Manifest, now: datetime) -> bool:
    """Whether the store keeps a snapshot's files at that time, whoever wants them away."""
    return bool(manifest.expires) and time_of(manifest.expires) > now


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """How many files a snapshot needs, how many locks had to be made longer, and which the store refused."""

    until: str
    mode: LockMode
    files: int
    extended: int
    refused: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """For the journal and `--json`."""
        return {
            "until": self.until,
            "mode": str(self.mode),
            "files": self.files,
            "extended": self.extended,
            "refused": len(self.refused),
        }


def lock_snapshot(repo: Repository, manifest: Manifest, mode: LockMode) -> Locked:
    """Lock everything the snapshot needs, as its references say, until its expiry; longer locks stay.

    Raises UsageError where the store cannot lock; what it refuses file by file is told in the answer.
    """
    retention = need_retention(repo.storage)
    until = time_of(manifest.expires)

    def lock(item: tuple[str, int | None]) -> tuple[str, str, bool]:
        key, size = item
        try:
            return key, "", retention.lock(key, until=until, mode=mode, size=size)
        except StoreError as error:
            return key, f"{error.msg}: {error.detail}" if error.detail else error.msg, False

    objects = ((object_key(o.id), o.cipher_bytes) for o in repo.references(manifest.id).ascending())
    files = extended = 0
    refused: list[tuple[str, str]] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in _slices(chain(sorted(dict(_around(repo, manifest)).items()), objects)):
            for key, why, changed in pool.map(lock, some):
                files += 1
                extended += changed
                if why:
                    refused.append((key, why))
    return Locked(until=manifest.expires, mode=mode, files=files, extended=extended, refused=tuple(refused))


def _slices(items: Iterable[T]) -> Iterator[list[T]]:
    """Not all at once: a snapshot may need hundreds of thousands of files."""
    rest = iter(items)
    while some := list(islice(rest, 1_000)):
        yield some


def _around(repo: Repository, manifest: Manifest) -> Iterator[tuple[str, int | None]]:
    """The manifest, its references, the keys, and the newest index of the host that wrote it."""
    yield SNAPSHOTS + manifest.id, None
    for prefix in ("keys/", f"{REFERENCES}{manifest.id}"):
        yield from ((s.key, None) for s in repo.storage.list(prefix))
    newest = max((s.key for s in repo.storage.list(f"{INDEX}{manifest.host_id}-")), default="")
    if newest:
        yield newest, None
    yield from ((key, None) for key in _PLAIN)


def short_locks(
    repo: Repository, manifests: Sequence[Manifest], objects: Iterable[tuple[ObjectRef, frozenset[str]]], now: datetime
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(file, what is wrong, snapshots) for every lock that ends before a snapshot that needs the file does.

    Nothing where no snapshot says that it is locked, or where the store has no locks to ask for (a copy elsewhere).
    """
    ends = {m.id: time_of(m.expires) for m in manifests if m.expires and time_of(m.expires) > now}
    retention = retention_of(repo.storage) if ends else None
    if retention is None:
        return
    around: dict[str, tuple[int | None, set[str]]] = {}
    for manifest in manifests:
        if manifest.id in ends:
            for key, size in _around(repo, manifest):
                if not key.startswith(INDEX):  # it may be a later one's; losing it costs one full read, no snapshot
                    around.setdefault(key, (size, set()))[1].add(manifest.id)
    wanted = chain(
        ((key, size, frozenset(who)) for key, (size, who) in sorted(around.items())),
        ((object_key(o.id), o.cipher_bytes, who & ends.keys()) for o, who in objects if not who.isdisjoint(ends)),
    )
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in _slices(wanted):
            jobs = [(key, size, max(ends[s] for s in who)) for key, size, who in some]
            for (key, _, who), said in zip(some, pool.map(lambda j: _short(retention, *j), jobs), strict=True):
                if said:
                    yield key, said, tuple(sorted(who))


def _short(retention: Retention, key: str, size: int | None, until: datetime) -> str:
    try:
        have = retention.locked_until(key, size=size)
    except KeyNotFound:
        return ""  # a missing file is told as one
    except PgkuraError as error:
        return f"its lock cannot be read: {error.detail or error.msg}"
    if have is None:
        return f"it is not locked, though a snapshot that needs it shall stay until {until.strftime(_FORMAT)}"
    if have < until:
        return (
            f"its lock ends {have.astimezone(UTC).strftime(_FORMAT)}, before its snapshot's {until.strftime(_FORMAT)}"
        )
    return ""


def time_of(text: str) -> datetime:
    """As a manifest writes it."""
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
