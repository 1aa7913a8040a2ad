"""What `prune` does to the change log, on a store without a database: what goes, what stays, when, and what is said."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.chains import Made, add_base, numbers, reached, the_log
from tests.support.shelf import Aged, Shelf, Through

from pgkura.changes import spans
from pgkura.changes.bundling import bundle_groups, groups_of
from pgkura.changes.log import read_chain
from pgkura.core.errors import StoreError
from pgkura.core.outcome import Result
from pgkura.core.progress import Silent
from pgkura.core.stop import Stop
from pgkura.operations.prune import GRACE_SECONDS, PlannedPrune, PruneResult, execute_prune, plan_prune
from pgkura.operations.prune_changes import NEVER_BEGAN, NO_BASE, TOO_OLD, Keep, moment_bases
from pgkura.operations.timeline import timeline
from pgkura.repository.admin import Root
from pgkura.repository.bundles import GONE, BundleName, Entry
from pgkura.repository.changes import HEAD, START
from pgkura.repository.keys import HostKey
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.storage.local import LocalStorage

DAY = timedelta(days=1)


@pytest.fixture
def aged(tmp_path: Path) -> Aged:
    """A folder in which time passes when told."""
    return Aged(LocalStorage(tmp_path / "store"))


@pytest.fixture
def shelf(aged: Aged) -> Shelf:
    """A repository there."""
    return Shelf(aged)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four segments are a bundle."""
    defaults = spans.plan_bundles.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "fan", 4)


def plan(
    shelf: Shelf, *, last: int = 9, grace: int = GRACE_SECONDS, within: timedelta | None = None, bundle: bool = True
) -> PlannedPrune:
    """By a host."""
    keep = Keep(within=within, bundle=bundle)
    return plan_prune(shelf.host(), Rules(last=last), grace=grace, keep=keep, progress=Silent())


def prune(
    shelf: Shelf, *, last: int = 9, grace: int = GRACE_SECONDS, within: timedelta | None = None, bundle: bool = True
) -> PruneResult:
    """The same, done."""
    return execute_prune(plan(shelf, last=last, grace=grace, within=within, bundle=bundle), progress=Silent())


def log_files(shelf: Shelf, place: str) -> list[str]:
    """Of one folder of all chains."""
    return [k for k in shelf.files("changes/") if f"/{place}/" in k]


def living(shelf: Shelf, segments: int = 22) -> tuple[Made, str, str]:
    """A chain with a base from its first moment, and a newer one."""
    made = Made(shelf.both(), at=datetime.now(UTC) - 9 * DAY)
    made.add(segments)
    old = add_base(shelf, made, 0, ago=3 * DAY)
    return made, old, add_base(shelf, made, segments - 4, ago=DAY)


def test_bundles_first_then_the_small_ones_go(shelf: Shelf, aged: Aged) -> None:
    """Nothing goes before the grace time; then files are few, and every base leads where it led."""
    made, old, new = living(shelf)
    want = {s: reached(shelf.both(), made.id, s) for s in (old, new)}
    assert want[old] == list(range(1, 23)) and want[new] == list(range(19, 23))
    first = prune(shelf, bundle=False)
    assert first.changes.bundles == 0 and len(log_files(shelf, "segments")) == 22
    first = prune(shelf)
    assert first.result is Result.OK and (first.changes.bundles, first.changes.deleted) == (1 + 1, 0)
    assert len(log_files(shelf, "segments")) == 22
    assert {s: reached(shelf.both(), made.id, s) for s in (old, new)} == want
    told = plan(shelf).as_json()["changes"][0]
    assert told["files_to_delete"] == 0 and told["files_waiting"] > 0 and told["bundles_to_make"] == 0
    aged.later(GRACE_SECONDS + 1)
    planned = plan(shelf)
    told = planned.as_json()["changes"][0]
    done = execute_prune(planned, progress=Silent())
    assert (told["files_to_delete"], told["bytes_freed"]) == (done.changes.deleted, done.changes.bytes_deleted)
    assert done.result is Result.OK and done.changes.deleted == 22 - 2
    assert len(log_files(shelf, "segments")) == 2
    assert {s: reached(shelf.both(), made.id, s) for s in (old, new)} == want
    assert numbers(the_log(shelf.both(), made.id)) == list(range(1, 23))
    assert prune(shelf).changes.as_json() == dict.fromkeys(done.changes.as_json(), 0)


def test_what_lies_before_the_oldest_base_goes(shelf: Shelf, aged: Aged) -> None:
    """Said at once, deleted after the grace time; `timeline` is true from the first moment on."""
    made, _, new = living(shelf)
    made.add(1, mark="late")
    want = reached(shelf.both(), made.id, new)
    planned = plan(shelf, last=1, bundle=False)
    assert planned.as_json()["changes"][0]["cut_before"] == f"0/{made.segments[17].end:X}"
    done = execute_prune(planned, progress=Silent())
    assert (done.changes.cut, done.changes.deleted) == (1, 0) and len(log_files(shelf, "segments")) == 23
    for later in (False, True):
        if later:
            aged.later(GRACE_SECONDS + 1)
            done = prune(shelf, last=1, bundle=False)
            assert done.changes.deleted == 18 and done.changes.cut == 0
        (line,) = timeline(shelf.host()).chains
        assert line.from_lsn == f"0/{made.segments[17].end:X}" and not line.ended
        assert [s.snapshot for s in line.stretches] == [new]
        assert [m[0] for m in line.marks] == ["late"]
        assert reached(shelf.both(), made.id, new) == want
    made.add(1)
    assert reached(shelf.both(), made.id, new) == [*want, 24]
    facts = read_chain(shelf.host(), made.id)
    assert facts is not None and not facts.missing and facts.end == made.position


def test_a_base_that_saw_less_keeps_more(shelf: Shelf, aged: Aged) -> None:
    """A transaction that was still running when the base was taken lies before its position: it stays."""
    made = Made(shelf.both())
    made.add(12)
    base = add_base(shelf, made, 12)
    repo = shelf.host()
    manifest = replace(repo.exact_manifest(base), snapshot="1005:1013:1005,1007")
    shelf.storage.put(f"snapshots/{base}", repo.seal_manifest(manifest))
    assert reached(shelf.both(), made.id, base) == [5, 7]
    prune(shelf, last=1)
    aged.later(GRACE_SECONDS + 1)
    prune(shelf, last=1)
    assert reached(shelf.both(), made.id, base) == [5, 7]
    assert numbers(the_log(shelf.both(), made.id)) == list(range(5, 13))


def test_moments_of_a_week(shelf: Shelf, aged: Aged) -> None:
    """--keep-changes: the log of that time, with the one base that leads into it, whatever the other rules say."""
    made = Made(shelf.both(), at=datetime.now(UTC) - 10 * DAY)
    bases = []
    for day in (10, 8, 6, 4, 2):
        made.add(4)
        bases.append(add_base(shelf, made, made.done, ago=day * DAY))
    made.add(2)
    planned = plan(shelf, last=1, within=7 * DAY)
    assert {v.id: v.reasons for v in planned.verdicts if v.keep} == {
        bases[1]: ("changes",),
        bases[4]: ("newest", "newest complete", "last"),
    }
    execute_prune(planned, progress=Silent())
    assert reached(shelf.both(), made.id, bases[1]) == list(range(9, 23))
    aged.later(GRACE_SECONDS + 1)
    prune(shelf, last=1, within=7 * DAY)
    assert numbers(the_log(shelf.both(), made.id)) == list(range(9, 23))
    # Kept by another rule, but older than the base of the log of a day: a snapshot still, a base no more.
    prune(shelf, last=9, within=DAY)
    assert bases[1] in shelf.host().manifest_ids()
    assert reached(shelf.both(), made.id, bases[1]) == []
    assert reached(shelf.both(), made.id, bases[4]) == [21, 22]
    assert [s.snapshot for c in timeline(shelf.host()).chains for s in c.stretches] == [bases[4]]


def test_bases_that_moments_need(shelf: Shelf) -> None:
    """The newest one before the time, and each later one with other tables."""
    made = Made(shelf.both())
    made.add(1)
    ids = [
        add_base(shelf, made, 1, ago=days * DAY, rows=rows * 64)
        for days, rows in ((9, "a"), (8, "b"), (6, "b"), (5, "c"), (4, "c"), (3, "d"))
    ]
    now = datetime.now(UTC)
    manifests = shelf.host().manifests()
    assert moment_bases(manifests, 7 * DAY, now) == {ids[1], ids[3], ids[5]}
    assert moment_bases(manifests, 20 * DAY, now) == {ids[0], ids[1], ids[3], ids[5]}
    assert moment_bases(manifests, DAY, now) == {ids[5]}


def test_a_chain_without_a_base_goes_whole(shelf: Shelf, aged: Aged) -> None:
    """Ended, and for so long that no backup of its time still runs; with its reason; a living one never."""
    dead = Made(shelf.both(), at=datetime(2026, 11, 1, tzinfo=UTC), part=2)
    dead.add(6)
    dead.end()
    begun = Made(shelf.both(), at=datetime(2026, 11, 2, tzinfo=UTC))
    for key in [k for k in shelf.files("chains/") if k.startswith(f"chains/{begun.id}/") and not k.endswith(HEAD)]:
        shelf.storage.delete(key)
    alive = Made(shelf.both(), at=datetime(2026, 11, 3, tzinfo=UTC))
    alive.add(6)
    other = Made(shelf.both(), database="other", at=datetime(2026, 11, 4, tzinfo=UTC))
    other.add(2)
    shelf.add({"a": b"1\n"})
    assert prune(shelf).changes.gone == 0
    aged.later(GRACE_SECONDS + 1)
    planned = plan(shelf)
    assert {p.id: p.gone for p in planned.changes} == {
        dead.id: NO_BASE,
        begun.id: NEVER_BEGAN,
        alive.id: "",
        other.id: "",
    }
    done = execute_prune(planned, progress=Silent())
    assert done.changes.gone == 2 and done.result is Result.OK
    assert [c.id for c in timeline(shelf.host()).chains] == [alive.id, other.id]
    assert shelf.files(f"changes/{dead.id}/") and shelf.host().chain_record(dead.id, HEAD) is not None
    aged.later(GRACE_SECONDS + 1)
    done = prune(shelf)
    assert done.result is Result.OK and done.changes.deleted > 8
    assert shelf.files(f"changes/{dead.id}/") == shelf.files(f"chains/{dead.id}/") == []
    assert shelf.files(f"chains/{begun.id}/") == []
    assert numbers(the_log(shelf.both(), alive.id)) == list(range(1, 7))
    # Said once more by a prune that had planned the same.
    shelf.host().put_chain_record(dead.id, GONE, {"reason": NO_BASE})
    aged.later(GRACE_SECONDS + 1)
    assert prune(shelf).result is Result.OK and shelf.files(f"chains/{dead.id}/") == []
    shelf.assert_whole()


def test_a_chain_older_than_the_policy(shelf: Shelf, aged: Aged) -> None:
    """Its base stays a snapshot; a hole keeps its name."""
    dead = Made(shelf.both())
    dead.add(6)
    base = add_base(shelf, dead, 2, ago=9 * DAY)
    dead.end()
    alive = Made(shelf.both(), at=datetime.now(UTC))
    alive.add(2)
    aged.later(8 * 86_400)
    assert {p.id: p.gone for p in plan(shelf, within=7 * DAY).changes} == {dead.id: TOO_OLD, alive.id: ""}
    assert {p.id: p.gone for p in plan(shelf, within=10 * DAY).changes} == {dead.id: "", alive.id: ""}
    prune(shelf, within=7 * DAY)
    assert base in shelf.host().manifest_ids()
    # Somebody thinks again before it is too late.
    done = prune(shelf, within=10 * DAY)
    assert done.result is Result.INCOMPLETE and "withdrawn" in done.problems[0]
    assert reached(shelf.both(), dead.id, base) == [3, 4, 5, 6]


def test_a_base_that_came_late_saves_its_chain(shelf: Shelf, aged: Aged) -> None:
    """A backup of the chain's time that ended after the chain was said to go."""
    dead = Made(shelf.both())
    dead.add(6)
    dead.end()
    shelf.add({"a": b"1\n"}, ago=9 * DAY)
    aged.later(GRACE_SECONDS + 1)
    assert prune(shelf).changes.gone == 1
    base = add_base(shelf, dead, 4)
    aged.later(GRACE_SECONDS + 1)
    done = prune(shelf)
    assert "withdrawn" in done.problems[0]
    assert reached(shelf.both(), dead.id, base) == [5, 6]
    assert prune(shelf).result is Result.OK


def test_what_does_not_open_blocks(shelf: Shelf, aged: Aged) -> None:
    """A damaged manifest may be a base: nothing is cut or removed; bundles are made all the same."""
    made, old, _ = living(shelf)
    key = f"snapshots/{old}"
    data = shelf.storage.get(key)
    shelf.storage.put(key, data[:-1] + bytes([data[-1] ^ 1]))
    for _ in range(2):
        done = prune(shelf, last=1)
        assert done.result is Result.INCOMPLETE and done.changes.cut == 0
        aged.later(GRACE_SECONDS + 1)
    shelf.storage.put(key, data)
    assert reached(shelf.both(), made.id, old) == list(range(1, 23))


def test_orphans(shelf: Shelf, aged: Aged) -> None:
    """Parts and bodies that nothing names go; a part of a transaction that is not over yet never does."""
    made = Made(shelf.both(), part=3)
    made.add(6)
    add_base(shelf, made, 0)
    repo = shelf.host()
    lost = repo.put_part(made.id, b"of a connection that broke")
    body = repo.put_body(made.id, [b"of a bundle that never came"])
    aged.later(GRACE_SECONDS + 1)
    assert prune(shelf, bundle=False).changes.deleted == 1
    assert body.id not in " ".join(log_files(shelf, "bodies")) and lost.id in " ".join(log_files(shelf, "parts"))
    made.add(1)
    aged.later(1)
    assert prune(shelf, bundle=False).changes.deleted == 1
    assert len(log_files(shelf, "parts")) == 2
    assert numbers(the_log(shelf.both(), made.id)) == list(range(1, 8))


@contextmanager
def thief(shelf: Shelf) -> Iterator[Repository]:
    """Another host whose key was stolen."""
    keys: list[HostKey] = []
    Root.open(shelf.storage, shelf.keys.identity).add_host("second", keys.append)
    yield Repository.open(shelf.storage, host=keys[0])


def test_a_thief_of_a_host_key_has_nothing_deleted(shelf: Shelf, aged: Aged) -> None:
    """Its bundles replace nothing that they do not hold byte for byte; its cuts and farewells take nothing away."""
    made, old, new = living(shelf)
    want = {s: reached(shelf.both(), made.id, s) for s in (old, new)}
    before = set(log_files(shelf, "segments"))
    with thief(shelf) as theirs:
        entries = []
        for name in made.segments:
            record, _ = theirs.segment(made.id, name)
            false = theirs.seal_messages(b"nothing")
            told = {**record, "rest": {"bytes": len(false), "plain": record["rest"]["plain"]}}
            entries.append(Entry.of(name, told, false).placed(theirs.put_body(made.id, [false]), 0))
        theirs.put_bundle(made.id, entries, ())
        theirs.put_chain_record(made.id, "from-00000000000FFFFF", {"position": "0/FFFFF", "top_xid": 1, "reason": ""})
        theirs.put_chain_record(made.id, "gone", {"reason": "none"})
    aged.later(GRACE_SECONDS + 1)
    done = prune(shelf, bundle=False)
    assert done.result is Result.INCOMPLETE
    assert sum("withdrawn" in p for p in done.problems) == 2
    assert sum("is not what" in p for p in done.problems) == 22
    assert set(log_files(shelf, "segments")) == before
    Root.open(shelf.storage, shelf.keys.identity).revoke("second", since=datetime(2020, 1, 1, tzinfo=UTC))
    assert {s: reached(shelf.both(), made.id, s) for s in (old, new)} == want


def test_another_hosts_bundles_are_compared(shelf: Shelf, aged: Aged) -> None:
    """Those of a watcher on another machine replace what they hold byte for byte."""
    made, _, _ = living(shelf)
    with thief(shelf) as watcher:
        done = bundle_groups(watcher, made.id, groups_of(watcher, made.id, fan=4), Silent(), Stop())
        assert done.bundles == 2
    aged.later(GRACE_SECONDS + 1)
    pruned = prune(shelf, bundle=False)
    assert pruned.result is Result.OK and pruned.changes.deleted == 20
    assert numbers(the_log(shelf.both(), made.id)) == list(range(1, 23))


def test_a_bundle_that_lost_its_body_replaces_nothing(shelf: Shelf, aged: Aged) -> None:
    """It is named; the segments stay."""
    living(shelf)
    prune(shelf)
    for key in log_files(shelf, "bodies"):
        shelf.storage.delete(key)
    aged.later(GRACE_SECONDS + 1)
    done = prune(shelf)
    assert done.result is Result.INCOMPLETE and done.changes.deleted == 0
    assert sum("missing" in p for p in done.problems) == 2
    assert len(log_files(shelf, "segments")) == 22


def test_a_locked_base_keeps_the_small_ones(shelf: Shelf, aged: Aged) -> None:
    """What the store locked is what stays; bundles come beside it."""
    made = Made(shelf.both())
    made.add(20)
    add_base(shelf, made, 10, days=30)
    add_base(shelf, made, 18)
    prune(shelf, grace=0)
    aged.later(GRACE_SECONDS + 1)
    prune(shelf, grace=0)
    assert {int(k.rpartition("-")[2], 16) for k in log_files(shelf, "segments")} == {
        s.end for s in made.segments if s.end > made.segments[9].end
    }
    assert numbers(the_log(shelf.both(), made.id))[-10:] == list(range(11, 21))


def test_no_grace_at_all(shelf: Shelf) -> None:
    """The plan's figures are those of the run."""
    living(shelf)
    planned = plan(shelf, last=1, grace=0)
    told = planned.as_json()["changes"][0]
    done = execute_prune(planned, progress=Silent())
    assert done.result is Result.OK
    assert (told["files_to_delete"], told["bytes_freed"]) == (done.changes.deleted, done.changes.bytes_deleted)
    assert told["files_waiting"] == 0 and done.changes.deleted > 18


class NoDelete(Through):
    """A store that refuses."""

    def delete(self, key: str) -> None:
        """Refused, probes aside."""
        if not key.startswith("probe/"):
            raise StoreError("denied")
        super().delete(key)


def test_a_refusal_is_told_once(shelf: Shelf, aged: Aged) -> None:
    """One request, not thousands."""
    made, _, _ = living(shelf)
    prune(shelf)
    aged.later(GRACE_SECONDS + 1)
    repo = Repository.open(NoDelete(aged), host=shelf.keys.host)
    done = execute_prune(plan_prune(repo, Rules(last=9), progress=Silent()), progress=Silent())
    assert done.result is Result.INCOMPLETE and sum("would not delete" in p for p in done.problems) == 1
    assert numbers(the_log(shelf.both(), made.id)) == list(range(1, 23))


def test_two_prunes_at_once(shelf: Shelf, aged: Aged) -> None:
    """Planned together, done one after the other: the second finds its work done."""
    made, old, new = living(shelf)
    want = {s: reached(shelf.both(), made.id, s) for s in (old, new)}
    for _ in range(3):
        one, other = plan(shelf), plan(shelf)
        execute_prune(one, progress=Silent())
        again = execute_prune(other, progress=Silent())
        assert again.result is Result.OK, again.problems
        assert {s: reached(shelf.both(), made.id, s) for s in (old, new)} == want
        aged.later(GRACE_SECONDS + 1)
    repo = shelf.host()
    bundles = [r for r in repo.runs(made.id) if isinstance(r, BundleName)]
    named = {ref.id for b in bundles for ref in repo.bundle_head(made.id, b).bodies}
    assert set(repo.loose_files(made.id, "bodies")) == named
    assert repo.chain_record(made.id, START) is not None
