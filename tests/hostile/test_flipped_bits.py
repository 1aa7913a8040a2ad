"""One flipped bit in each byte range of each kind of file, and files cut at many places: told by name, every time.

In one process on a small repository in memory; tests/acceptance/test_damage.py does some of it by the command line.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from uuid import uuid4

import pytest
from tests.support import soak
from tests.support.servers import newest
from tests.support.snapshot_scene import Scene

from pgkura.core.access import Access, hold
from pgkura.core.errors import PgkuraError
from pgkura.core.progress import Silent
from pgkura.operations.keys import add_host, add_person, revoke_host
from pgkura.operations.verify import verify_repository
from pgkura.repository.creating import create
from pgkura.repository.keyrecords import host_file
from pgkura.repository.keys import HostKey, Identity, new_keys
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage
from pgkura.storage.memory import MemoryStorage

KINDS = (
    "pgkura-repository", "RESTORE.md", "restore.sh", "keys/scripts", "keys/epoch-*", "keys/shared-*", "keys/host-*",
    "keys/people", "keys/revoked-*", "keys/superseded-*",
    "data/*/*", "index/*", "references/*", "snapshots/*", "state/*", "journal/*",
)  # fmt: skip
# Codes of the documentation: no repository, wrong key, damaged, later format (a flipped digit of the header).
DOCUMENTED = (10, 12, 16, 17)
# Files of `keys/` that no reader needs.
UNMISSED = ("keys/scripts", "keys/shared-*", "keys/people", "keys/superseded-*")
# Damage of these touches snapshots, which are named with it.
TOUCHING = ("data/", "keys/epoch-", "keys/host-", "snapshots/", "references/", "state/")
# Spread over what has no structure that we know of.
EVENLY = 24


@dataclass(frozen=True, slots=True)
class Whole:
    """A repository's bytes and its keys."""

    files: dict[str, bytes]
    identity: Identity
    host: HostKey

    def example(self, kind: str) -> str:
        """The largest file of a kind; of hosts the one that made the snapshots."""
        if kind == "keys/host-*":
            return host_file(self.host.host_id)
        found = [key for key in self.files if fnmatch(key, kind)]
        return max(found, key=lambda key: len(self.files[key]))

    def verify(self, key: str, content: bytes | None, *, deep: bool) -> tuple[int, str]:
        """Exit code and words of `verify` with one file changed (None: deleted)."""
        storage = MemoryStorage()
        for name, data in self.files.items():
            if name != key:
                storage.put(name, data)
        if content is not None:
            storage.put(key, content)
        try:
            repo = Repository.open(storage, identity=self.identity if deep else None, host=self.host)
            result = verify_repository(repo, "", progress=Silent())
        except PgkuraError as error:
            return error.exit_code, str(error)
        return result.exit_code, "\n".join(result.problems)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Rows, definitions, an index, two manifests, a journal, a person, a host that was revoked."""
    server, name = newest(), f"flip_{uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("flip") / "repository"
    storage, keys = LocalStorage(folder), new_keys(now=datetime.now(UTC))
    create(storage, keys)
    add_person(storage, keys.identity, "reader", new_keys(now=datetime.now(UTC)).identity.recipient)
    second = add_host(storage, keys.identity, "second", folder.parent / "second.key").id
    revoke_host(storage, keys.identity, second)
    url = server.create_database(name)
    access = Access(database=hold(name, url), repository=str(folder), host_key=hold(f"key-{name}", keys.host_key_text))
    repo = Repository.open(storage, identity=keys.identity, host=keys.host)
    scene = Scene(url=url, repo=repo, access=access)
    scene.sql("CREATE TABLE lessons AS SELECT g, md5(g::text) AS title FROM generate_series(1, 40) g")
    scene.take()
    scene.sql("INSERT INTO lessons VALUES (41, 'later')")
    scene.take()
    server.drop_database(name)
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    made = Whole(files, keys.identity, keys.host)
    assert made.verify("", None, deep=True) == made.verify("", None, deep=False) == (0, "")
    assert all(any(fnmatch(key, kind) for kind in KINDS) for key in files), sorted(files)
    yield made


def ranges(data: bytes) -> dict[str, tuple[int, int]]:
    """The parts of a file, [from, until): those of a signed header, of an age envelope, of the rest."""
    found: dict[str, tuple[int, int]] = {}
    start = 0
    if data.startswith(b"pgkura1 "):
        end = data.index(b"\n")
        magic, kind, signer, _ = data[:end].split(b" ")
        places = (0, len(magic), len(magic) + len(kind) + 1, len(magic) + len(kind) + len(signer) + 2, end)
        for name, a, b in zip(("magic", "kind", "signer", "signature"), places, places[1:], strict=False):
            found[name] = (a, b)
        found["end of the header"] = (end, end + 1)
        start = end + 1
    if data[start:].startswith(b"age-encryption.org/v1\n"):
        mac = data.index(b"\n--- ", start)
        payload = data.index(b"\n", mac + 1) + 1
        found |= {
            "age version": (start, start + 22),
            "age recipients": (start + 22, mac + 1),
            "age mac": (mac + 1, payload),
        }
        found["age nonce"] = (payload, payload + 16)
        start = payload + 16
    third = max((len(data) - start) // 3, 1)
    found |= {"body start": (start, start + third), "body middle": (start + third, len(data) - third)}
    found |= {"body end": (len(data) - third, len(data) - 1), "last byte": (len(data) - 1, len(data))}
    return {name: (a, b) for name, (a, b) in found.items() if 0 <= a < b <= len(data)}


def places(data: bytes, dice: random.Random) -> list[tuple[str, int]]:
    """First, last and two more bytes of each range, every byte of a signature, and some spread evenly."""
    found: list[tuple[str, int]] = []
    for name, (a, b) in ranges(data).items():
        some = range(a, b) if name == "signature" else {a, b - 1, dice.randrange(a, b), dice.randrange(a, b)}
        found += [(name, place) for place in some]
    found += [("spread", len(data) * n // EVENLY) for n in range(EVENLY)]
    return found


def told(whole: Whole, key: str, content: bytes | None, *, deep: bool, what: str) -> None:
    """A documented code and the file's name; the head may speak of the repository instead."""
    code, words = whole.verify(key, content, deep=deep)
    assert code in DOCUMENTED, f"{key}, {what}, {'deep' if deep else 'sealed'}: exit {code} {words!r}"
    assert key in words or key == "pgkura-repository", f"{key}, {what}: not named in {words!r}"
    if key.startswith(TOUCHING) and code == 16:
        ids = {name.removeprefix("snapshots/") for name in whole.files if name.startswith("snapshots/")}
        assert any(one in words for one in ids), f"{key}, {what}: no snapshot is named in {words!r}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_told(kind: str, whole: Whole) -> None:
    """With both keys, and with the host key alone."""
    dice = random.Random(kind)
    key = whole.example(kind)
    data = whole.files[key]
    tried = set()
    for name, place in places(data, dice):
        bit = dice.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        what = f"bit {bit} of byte {place} of {len(data)} ({name})"
        told(whole, key, bytes(flipped), deep=True, what=what)
        if name not in tried:
            told(whole, key, bytes(flipped), deep=False, what=what)
        tried.add(name)
    assert len(tried) >= 4, tried


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_told(kind: str, whole: Whole) -> None:
    """Cut at the ends of each range, empty, one byte less, one and many more."""
    key = whole.example(kind)
    data = whole.files[key]
    lengths = {0, 1, len(data) // 2, len(data) - 1} | {a for a, _ in ranges(data).values()}
    for length in sorted(lengths - {len(data)}):
        told(whole, key, data[:length], deep=True, what=f"cut to {length} of {len(data)}")
    for more in (b"\0", b"\n", data):
        told(whole, key, data + more, deep=True, what=f"{len(more)} bytes more")


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_told_or_missed_by_nobody(kind: str, whole: Whole) -> None:
    """Whole records leave no trace; everything that something else needs does."""
    key = whole.example(kind)
    code, words = whole.verify(key, None, deep=True)
    if kind.startswith(("keys/epoch-", "keys/host-")):
        told(whole, key, None, deep=False, what="missing")
    if kind in ("index/*", "references/*", "snapshots/*", "state/*", "journal/*", *UNMISSED):
        assert code in (0, *DOCUMENTED), (code, words)
    else:
        assert code in DOCUMENTED, (code, words)


@pytest.mark.parametrize("kind", ["pgkura-repository", "keys/host-*", "snapshots/*", "journal/*"])
def test_a_signature_has_one_spelling(kind: str, whole: Whole) -> None:
    """Base64 ignores the last bits of its last character; we do not."""
    key = whole.example(kind)
    data = whole.files[key]
    last = data.index(b"==\n") - 1
    for bit in range(4):
        flipped = bytearray(data)
        flipped[last] ^= 1 << bit
        told(whole, key, bytes(flipped), deep=True, what=f"bit {bit} of the last character of the signature")


@pytest.mark.soak
@pytest.mark.timeout(soak.TIMEOUT)
def test_random_damage_for_long(whole: Whole) -> None:
    """Any file, any bits, cuts, bytes put in or taken out: told by name, in both forms of `verify`."""
    for seed in soak.rounds():
        dice = random.Random(seed)
        for _ in range(200):
            key = dice.choice(sorted(whole.files))
            content = _damaged(whole.files[key], dice)
            if content == whole.files[key]:
                continue
            deep = dice.random() < 0.7
            told(whole, key, content, deep=deep, what=f"seed {seed}")


def _damaged(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    place = dice.randrange(len(data))
    match dice.randrange(5):
        case 0 | 1:
            for _ in range(dice.randint(1, 4)):
                changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        case 2:
            del changed[place:]
        case 3:
            del changed[place : place + dice.randint(1, 40)]
        case _:
            changed[place:place] = dice.randbytes(dice.randint(1, 40))
    return bytes(changed)
