"""Repositories with snapshots made without a database: enough for whatever only looks at what lies in the store."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from pgkura.core.progress import Silent
from pgkura.core.refs import Layer
from pgkura.repository.check import CheckReport, check_repository
from pgkura.repository.creating import create
from pgkura.repository.keys import NewKeys, new_keys
from pgkura.repository.lists import TableData, write_chunk_list
from pgkura.repository.manifest import Component, Manifest, new_id
from pgkura.repository.repository import Repository
from pgkura.snapshot.components import store_components
from pgkura.storage.base import Properties, Storage, Stored


@dataclass(slots=True)
class Shelf:
    """A new repository in a store, its keys, and what was put there."""

    storage: Storage
    keys: NewKeys = field(default_factory=lambda: new_keys(now=datetime.now(UTC)))
    contents: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    exists: bool = False

    def __post_init__(self) -> None:
        if not self.exists:
            create(self.storage, self.keys)

    def copy_at(self, storage: Storage) -> "Shelf":
        """A copy of it that lies there; what is put into either is known to both."""
        return replace(self, storage=storage, exists=True)

    def host(self) -> Repository:
        """Opened anew with the host key alone."""
        return Repository.open(self.storage, host=self.keys.host)

    def person(self) -> Repository:
        """Opened anew with the identity alone."""
        return Repository.open(self.storage, identity=self.keys.identity)

    def both(self) -> Repository:
        """Opened anew with both keys."""
        return Repository.open(self.storage, identity=self.keys.identity, host=self.keys.host)

    def add(
        self,
        tables: Mapping[str, bytes],
        *,
        ago: timedelta = timedelta(0),
        database: str = "shop",
        result: str = "ok",
        repo: Repository | None = None,
    ) -> str:
        """A snapshot of these tables, each in an object of its own unless its content is known; its id."""
        made = add_snapshot(repo or self.host(), tables, ago=ago, database=database, result=result)
        self.contents[made.id] = dict(tables)
        return made.id

    def check(self, *, deep: bool = True) -> CheckReport:
        """All snapshots read back."""
        repo = self.both() if deep else self.host()
        return check_repository(repo, repo.manifest_ids(), deep=deep, progress=Silent())

    def assert_whole(self) -> None:
        """Every snapshot that is there opens, in both forms, and gives back what was put in."""
        for deep in (True, False):
            problems = [str(p) for p in self.check(deep=deep).problems]
            assert not problems, problems
        repo = self.both()
        for manifest in repo.manifests():
            assert {
                t.name: b"".join(b"".join(repo.read_rows(layer)) for layer in t.layers)
                for t in repo.chunk_list(manifest)
            } == self.contents[manifest.id]

    def files(self, prefix: str = "") -> list[str]:
        """Listed keys, sorted."""
        return sorted(s.key for s in self.storage.list(prefix))


def add_snapshot(
    repo: Repository, tables: Mapping[str, bytes], *, ago: timedelta, database: str, result: str
) -> Manifest:
    """What a backup writes, in the order in which it does."""
    writer = repo.pack_writer()
    data: list[TableData] = []
    new = []
    for number, (name, rows) in enumerate(tables.items()):
        writer.begin(name)
        writer.write(rows)
        writer.end(rows.count(b"\n"))
        writer.flush()
        ((_, ref, is_new),) = writer.drain()
        new += [ref] if is_new else []
        data.append(
            TableData(
                number=number,
                name=name,
                columns="",
                target=name,
                rows=ref.rows,
                bytes=ref.length,
                layers=(Layer(chunk=ref),),
            )
        )
    stored = store_components(repo, {"chunks": write_chunk_list(data), "facts": [database.encode()]})
    moment = datetime.now(UTC) - ago
    manifest = manifest_of(repo, moment, stored.components, database=database, result=result)
    repo.commit_snapshot(manifest, [*new, *stored.new], needed=(r for t in data for r in t.refs()))
    return manifest


def manifest_of(
    repo: Repository, moment: datetime, components: Mapping[str, Component], *, database: str, result: str = "ok"
) -> Manifest:
    """Of a snapshot of nothing."""
    return Manifest(
        id=new_id(moment, None),
        created=f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        host_id=repo.host_id,
        database=database,
        server_version_num=180000,
        system_identifier="1",
        snapshot="1:1:",
        lsn="0/0",
        pgkura_version="0",
        pg_dump_version="0",
        result=result,
        skipped=(),
        accepted=(),
        counts={},
        components=components,
        epoch=repo.epoch,
    )


class Through:
    """A store that passes everything on; the base of those that fail on purpose."""

    def __init__(self, storage: Storage) -> None:
        self.inner = storage

    @property
    def url(self) -> str:
        """Its own."""
        return self.inner.url

    def before(self, act: str, key: str) -> None:
        """Called before each act."""

    def properties(self) -> Properties:
        """Its own."""
        return self.inner.properties()

    def put(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Passed on."""
        self.before("put", key)
        self.inner.put(key, data, storage_class=storage_class)

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        """Passed on."""
        self.before("create", key)
        self.inner.create(key, data, storage_class=storage_class)

    def get(self, key: str) -> bytes:
        """Passed on."""
        self.before("get", key)
        return self.inner.get(key)

    def list(self, prefix: str) -> Iterator[Stored]:
        """Passed on."""
        self.before("list", prefix)
        yield from self.inner.list(prefix)

    def delete(self, key: str) -> None:
        """Passed on."""
        self.before("delete", key)
        self.inner.delete(key)


class Aged(Through):
    """A store whose files are older than they are; what is written through it is of now until `later` is called."""

    def __init__(self, storage: Storage, *, seconds: float = 0.0) -> None:
        super().__init__(storage)
        self.seconds = seconds
        self._fresh: set[str] = set()

    def before(self, act: str, key: str) -> None:
        """What is written through this one is of now."""
        if act in ("put", "create"):
            self._fresh.add(key)

    def list(self, prefix: str) -> Iterator[Stored]:
        """Times moved back."""
        for s in self.inner.list(prefix):
            age = 0.0 if s.key in self._fresh else self.seconds
            yield Stored(key=s.key, size=s.size, modified=s.modified - age)

    def later(self, seconds: float) -> None:
        """Time passes: everything that is there is so much older."""
        self.seconds += seconds
        self._fresh.clear()
