"""Object Lock: every file that a snapshot needs is kept by the store until the snapshot's own expiry."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain

from pgkura.core.errors import PgkuraError, StoreError, UsageError
from pgkura.core.refs import ObjectRef
from pgkura.repository.claims import SNAPSHOTS
from pgkura.repository.keeping import INDEX
from pgkura.repository.lock_versions import Locked, Locks, Right, Wanted, same_hash, slices
from pgkura.repository.manifest import Manifest
from pgkura.repository.packs import object_id, object_key
from pgkura.repository.references import REFERENCES
from pgkura.repository.repository import Repository
from pgkura.repository.spool import ObjectMap
from pgkura.repository.trust import REPOSITORY_KEY
from pgkura.repository.versions import older_version
from pgkura.storage.base import KeyNotFound
from pgkura.storage.retention import LockMode, Retaining, Retention, need_retention, several_versions

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_AT_ONCE = 8
DATA = "data/"
SCRIPTS = ("RESTORE.md", "restore.sh")
# What opens a snapshot beside its own files.
_PLAIN = (REPOSITORY_KEY, *SCRIPTS)


def expiry(created: str, days: int) -> str:
    """Until when a snapshot's files are locked, as its manifest says it; '' for no lock."""
    return (time_of(created) + timedelta(days=days)).strftime(_FORMAT) if days else ""


def locked_on(manifest: Manifest, now: datetime) -> bool:
    """Whether the store keeps a snapshot's files at that time, whoever wants them away."""
    return bool(manifest.expires) and time_of(manifest.expires) > now


def lock_snapshot(repo: Repository, manifest: Manifest, mode: LockMode) -> Locked:
    """Lock everything the snapshot needs, as its references say, until its expiry; longer locks stay.

    Raises UsageError where the store cannot lock; what it refuses file by file is told in the answer.
    """
    until = time_of(manifest.expires)
    objects = repo.references(manifest.id)
    around = sorted(set(_around(repo, manifest)))
    locks = Locks(need_retention(repo.storage), mode)
    locks.lock(Wanted(key=key, until=until) for key in around)
    locks.lock(_object(ref, until) for ref in objects.ascending())

    def find_object(key: str) -> tuple[Wanted, Right] | None:
        ref = objects.get(object_id(key))
        return None if ref is None else (_object(ref, until), same_hash(ref.sha256))

    def find_around(key: str) -> tuple[Wanted, Right] | None:
        needed = key.startswith("keys/") or (key in around and not key.startswith(INDEX))
        return (Wanted(key=key, until=until), lambda data: _opens(repo, key, data)) if needed else None

    locks.look(DATA, find_object)
    for prefix in ("keys/", SNAPSHOTS + manifest.id, REFERENCES + manifest.id, *_PLAIN):
        locks.look(prefix, find_around)
    return locks.done(manifest.expires)


def _object(ref: ObjectRef, until: datetime) -> Wanted:
    return Wanted(key=object_key(ref.id), until=until, size=ref.cipher_bytes)


def _opens(repo: Repository, key: str, data: bytes) -> bool:
    """Whether this is a file around a snapshot: no hash names it, its signature does."""
    for kind, place in (("manifest", SNAPSHOTS), ("references", REFERENCES)):
        if key.startswith(place):
            repo.open_record(kind, key, data)
    # The rest was read when the repository was opened, or is compared with what the root signed.
    return key not in dict(repo.broken_keys) and (key not in SCRIPTS or key not in dict(repo.wrong_scripts))


def _around(repo: Repository, manifest: Manifest) -> Iterator[str]:
    """The manifest, its references, the keys, and the newest index of the host that wrote it."""
    yield SNAPSHOTS + manifest.id
    for prefix in ("keys/", f"{REFERENCES}{manifest.id}"):
        yield from (s.key for s in repo.storage.list(prefix))
    newest = max((s.key for s in repo.storage.list(f"{INDEX}{manifest.host_id}-")), default="")
    if newest:
        yield newest
    yield from _PLAIN


def short_locks(
    repo: Repository,
    manifests: Sequence[Manifest],
    objects: ObjectMap,
    needing: Callable[[str], frozenset[str]],
    now: datetime,
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(file, what is wrong, snapshots) for every lock that ends before a snapshot that needs the file does.

    `needing`: the snapshots that need an object. Nothing where no snapshot says that it is locked, or where the store
    has no locks to ask for (a copy in a folder); where the library to ask with is missing, that is what is wrong.
    """
    ends = {m.id: time_of(m.expires) for m in manifests if locked_on(m, now)}
    if not ends or not isinstance(repo.storage, Retaining):
        return
    try:
        retention = repo.storage.retention()
    except UsageError as error:
        yield "locks in the store", f"not looked at: {error.msg}; {error.hint}", tuple(sorted(ends))
        return
    around: dict[str, set[str]] = {}
    for manifest in manifests:
        if manifest.id in ends:
            for key in _around(repo, manifest):
                if not key.startswith(INDEX):  # it may be a later one's; losing it costs one full read, no snapshot
                    around.setdefault(key, set()).add(manifest.id)
    wanted = chain(
        ((key, None, frozenset(who)) for key, who in sorted(around.items())),
        ((object_key(o.id), o.cipher_bytes, needing(o.id) & ends.keys()) for o in objects.ascending()),
    )
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in slices(w for w in wanted if w[2]):
            jobs = [(key, size, max(ends[s] for s in who)) for key, size, who in some]
            for (key, _, who), said in zip(some, pool.map(lambda j: _short(retention, *j), jobs), strict=True):
                if said:
                    yield key, said, tuple(sorted(who))
    yield from _short_older(repo, retention, objects, lambda i: needing(i) & ends.keys(), ends)


def _short_older(
    repo: Repository,
    retention: Retention,
    objects: ObjectMap,
    needing: Callable[[str], frozenset[str]],
    ends: Mapping[str, datetime],
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The same for objects that somebody overwrote or hid: of the older version that is what was stored."""
    try:
        for key, versions in several_versions(retention, DATA):
            ref = objects.get(object_id(key))
            who = frozenset[str]() if ref is None else needing(ref.id)
            found = older_version(repo.storage, key, ref) if ref is not None and who else None
            if found is not None and found[0] != versions[0].id:
                said = _short(retention, key, None, max(ends[s] for s in who), found[0])
                if said:
                    yield key, f"of its older version {found[0]}, which is whole: {said}", tuple(sorted(who))
    except StoreError as error:
        yield (
            DATA,
            f"the versions cannot be listed, so not all locks were looked at: {error.reason}",
            tuple(sorted(ends)),
        )


def _short(retention: Retention, key: str, size: int | None, until: datetime, version: str = "") -> str:
    try:
        have = retention.locked_until(key, size=size, version=version)
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
