"""Every kind of file of a change log, damaged in every part: `verify` names it, its chain and the time it touches."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from tests.hostile.test_flipped_bits import DOCUMENTED, places, ranges
from tests.support.chains import Made, add_base
from tests.support.shelf import Shelf

from pgkura.changes.bundling import bundle_groups
from pgkura.changes.checking import check_log
from pgkura.changes.retiring import cut_before
from pgkura.changes.spans import Group
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.core.wal import lsn_text, parse_lsn, time_text
from pgkura.operations.verify import verify_repository
from pgkura.repository.bundles import BundleName, Entry
from pgkura.repository.repository import Repository
from pgkura.storage.base import Storage
from pgkura.storage.memory import MemoryStorage

AT = datetime(2026, 11, 1, tzinfo=UTC)
KINDS = ("head", "start", "cover", "mark", "from", "end", "segments", "parts", "bundles", "bodies", "loose and bundled")
WINDOW = re.compile(r"touches change log (\S+) of database 'shop', (\S+) to (\S+), between (.+) and (.+)")


class Log:
    """A chain of twelve transactions: the first eight lie in a bundle, two of these in files of their own too."""

    def __init__(self) -> None:
        self.shelf = Shelf(MemoryStorage())
        repo = self.shelf.both()
        self.made = made = Made(repo, at=AT, part=3, noise=400)
        made.add(6, mark="here")
        made.add(6)
        made.end()
        cut_before(repo, made.id, made.segments[0].start, 0, "nothing was before")
        bundle_groups(repo, made.id, [Group(runs=tuple(made.segments[:8]))], Silent(), Stop())
        for name in made.segments[2:8]:
            self.shelf.storage.delete(name.key(made.id))
        add_base(self.shelf, made, 0)
        self.files = {s.key: self.shelf.storage.get(s.key) for s in self.shelf.storage.list("")}
        self.storage = self.shelf.storage
        self.both, self.host = self.shelf.both(), self.shelf.host()

    def key(self, kind: str) -> str:
        """A file of this kind."""
        place = f"changes/{self.made.id}/{kind}/"
        if kind == "loose and bundled":
            return self.made.segments[1].key(self.made.id)
        if kind == "segments":
            return self.made.segments[9].key(self.made.id)
        folder = place if kind in ("parts", "bundles", "bodies") else f"chains/{self.made.id}/{kind}"
        return min(k for k in self.files if k.startswith(folder))

    def verify(self, key: str, content: bytes | None, *, deep: bool) -> tuple[int, list[str]]:
        """Exit code and problems of `verify` with one file changed (None: deleted), which is put back."""
        with self.changed(key, content):
            keys = self.shelf.keys
            repo = Repository.open(self.storage, identity=keys.identity if deep else None, host=keys.host)
            result = verify_repository(repo, "", progress=Silent())
            return result.exit_code, list(result.problems)

    def check(self, key: str, content: bytes, *, deep: bool) -> list[str]:
        """The same of the change log alone, which is much quicker."""
        with self.changed(key, content):
            damages = check_log(self.both if deep else self.host, deep=deep, progress=Silent()).damages
            return [f"{d.file}: {d.reason}" for d in damages]

    @contextmanager
    def changed(self, key: str, content: bytes | None) -> Iterator[None]:
        """For a while."""
        if content is None:
            self.storage.delete(key)
        else:
            self.storage.put(key, content)
        try:
            yield
        finally:
            self.storage.put(key, self.files[key])


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    """Whole in both forms."""
    made = Log()
    for deep in (True, False):
        assert made.verify(made.key("head"), made.files[made.key("head")], deep=deep) == (0, [])
    yield made


def parts_of(kind: str, data: bytes) -> list[tuple[str, int]]:
    """Places in each part of a file: of a body, in each segment's messages; of the others, as their format has them."""
    dice = random.Random(kind)
    every = places(data, dice)
    letters = [one for one in every if one[0] == "signature"]
    found = [one for one in every if one[0] != "signature"] + letters[::11] + letters[-1:]
    if kind in ("segments", "loose and bundled", "bundles"):
        start = data.index(b"\n") + 1
        found += [("hosts or length", start), ("hosts or length", data.index(b"\n", start))]
        ends = [m.start() for m in re.finditer(rb"age-encryption.org/v1\n", data)]
        assert len(ends) == 2
        for begin, end in zip(ends, [*ends[1:], len(data)], strict=True):
            found += [(f"{name} of an envelope", begin + a) for name, (a, _) in ranges(data[begin:end]).items()]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_told(kind: str, log: Log) -> None:
    """The file by name; the chain; and but for records of all the chain, positions and times."""
    key = log.key(kind)
    data = log.files[key]
    dice = random.Random(kind)
    for number, (name, place) in enumerate(parts_of(kind, data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << dice.randrange(8)
        for deep in (True, False) if number % 3 == 0 else (True,):
            problems = log.check(key, bytes(flipped), deep=deep)
            what = f"byte {place} of {len(data)} ({name}), {'deep' if deep else 'sealed'}: {problems}"
            assert any(p.startswith(key) and log.made.id in p for p in problems), what
            if not key.startswith("chains/"):
                assert all(WINDOW.search(p) for p in problems if p.startswith(key)), what


def window(problems: list[str], key: str) -> tuple[int, int, str, str]:
    """What a problem of this file says that it touches."""
    (told,) = [p for p in problems if p.startswith(key)]
    found = WINDOW.search(told)
    assert found is not None, told
    return parse_lsn(found[2]), parse_lsn(found[3]), found[4], found[5]


def test_the_window_is_that_of_the_damage(log: Log) -> None:
    """Of a segment: between its neighbours' commits. Of a body: of the segment whose bytes they are, to the second."""
    made = log.made
    key = log.key("segments")
    start, end, since, until = window(log.verify(key, b"pgkura1 ", deep=True)[1], key)
    assert (start, end) == (made.segments[9].start, made.segments[9].end)
    assert (since, until) == (time_text(made.time(9)), time_text(made.time(11)))
    repo = log.shelf.both()
    (name,) = [r for r in repo.runs(made.id) if isinstance(r, BundleName)]
    bundle = repo.bundle(made.id, name)
    for n, entry in enumerate(bundle.entries, 1):
        if entry.body is None:
            continue
        key = f"changes/{made.id}/bodies/{entry.body.id}"
        flipped = bytearray(log.files[key])
        flipped[entry.offset + entry.size // 2] ^= 1
        for deep in (True, False):
            told = window(log.verify(key, bytes(flipped), deep=deep)[1], key)
            assert told == (entry.name.start, entry.name.end, time_text(made.time(n)), time_text(made.time(n)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_or_cut_file(kind: str, log: Log) -> None:
    """What something else needs is missed, with its time; what is cut or longer is told in each case."""
    key = log.key(kind)
    data = log.files[key]
    code, problems = log.verify(key, None, deep=True)
    if kind in ("segments", "parts", "bodies", "bundles"):
        assert code in DOCUMENTED and any(WINDOW.search(p) for p in problems), problems
    for content in (b"", data[:-1], data[: len(data) // 2], data + b"\n"):
        for deep in (True, False):
            code, problems = log.verify(key, content, deep=deep)
            assert code in DOCUMENTED and any(p.startswith(key) for p in problems), (len(content), problems)


def test_a_gap_is_told(log: Log) -> None:
    """With the positions that are missing, and the moments on both sides."""
    made = log.made
    _, problems = log.verify(made.segments[9].key(made.id), None, deep=False)
    (told,) = problems
    assert "missing" in told and lsn_text(made.segments[9].start) in told and lsn_text(made.segments[9].end) in told
    assert time_text(made.time(9)) in told and time_text(made.time(11)) in told


def test_a_false_bundle_contradicts_what_is_there(log: Log) -> None:
    """A thief's, signed with a good key: while the segments are there, `verify` sees that it is not they."""
    made = log.made
    repo = log.shelf.both()
    entries = []
    for name in made.segments[8:11]:
        record, sealed = repo.segment(made.id, name)
        other = repo.seal_messages(b"nothing") if sealed else b""
        told = {**record, "rest": {"bytes": len(other), "plain": 7}}
        entries.append(Entry.of(name, told, other).placed(repo.put_body(made.id, [other or b"x"]), 0))
    false = repo.put_bundle(made.id, entries, ())
    try:
        result = verify_repository(log.shelf.host(), "", progress=Silent())
        assert len([p for p in result.problems if "contradicts a bundle" in p]) >= 2, result.problems
    finally:
        repo.drop_bundle(made.id, false)


def test_what_a_record_says_must_be_there(log: Log) -> None:
    """With the identity messages are counted, and must lie where the name says."""
    made = Made(log.shelf.both(), at=datetime(2026, 11, 2, tzinfo=UTC))
    made.add(2)
    repo = log.shelf.both()
    record, sealed = repo.segment(made.id, made.segments[0])
    storage: Storage = log.storage
    for change in ({"changes": 2}, {"transactions": 0}, {"messages": 3}):
        storage.delete(made.segments[0].key(made.id))
        repo.put_segment(made.id, made.segments[0], {**record, **change}, sealed)
        problems = verify_repository(log.shelf.both(), "", progress=Silent()).problems
        assert len(problems) == 1 and "does not hold what its record says" in problems[0], problems
    for key in [s.key for s in storage.list("") if f"/{made.id}/" in s.key]:
        storage.delete(key)
