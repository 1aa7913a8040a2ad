"""Which files of a chain are read, which are replaced, which become one: for all overlaps of writers and bundlers."""

from hypothesis import given
from hypothesis import strategies as st

from pgkura.changes.places import Kept, Places
from pgkura.changes.spans import FAN, MOST, cover, covered, plan_bundles, replaced, segments_in
from pgkura.repository.bundles import BundleName, Run
from pgkura.repository.changes import SegmentName

ENDS = st.lists(st.integers(1, 12), min_size=1, max_size=40)


def segments(steps: list[int]) -> list[SegmentName]:
    """Without a gap, from 0 on."""
    found, at = [], 0
    for step in steps:
        found.append(SegmentName(at, at + step))
        at += step
    return found


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Run], list[SegmentName]]:
    """A chain's files and the segments of its first writer; a second writer cut elsewhere, some became bundles."""
    first = segments(draw(ENDS))
    end = first[-1].end
    runs: list[Run] = list(first)
    for _ in range(draw(st.integers(0, 6))):
        a, b = sorted((draw(st.integers(0, end)), draw(st.integers(0, end))))
        if a < b:
            runs.append(SegmentName(a, b))
    for _ in range(draw(st.integers(0, 4))):
        a, b = sorted((draw(st.integers(0, len(first))), draw(st.integers(0, len(first)))))
        if b - a > 1:
            runs.append(BundleName(start=first[a].start, end=first[b - 1].end, count=b - a))
    return draw(st.permutations(list(dict.fromkeys(runs)))), first


def positions(runs: list[Run]) -> set[int]:
    """Where a commit may end that is in one of these."""
    return {p for r in runs for p in range(r.start + 1, r.end + 1)}


@given(chains(), st.integers(0, 30))
def test_the_cover_holds_everything_once(made: tuple[list[Run], list[SegmentName]], start: int) -> None:
    """No position is lost, and each file adds something."""
    runs, first = made
    start = min(start, first[-1].end)
    found = cover(start, runs)
    ends = [r.end for r in found]
    assert ends == sorted(set(ends)) and covered(start, runs) == first[-1].end
    assert positions(found) >= set(range(start + 1, first[-1].end + 1))
    at = start
    for run in found:
        assert run.start <= at < run.end
        at = run.end


@given(chains(), st.data())
def test_a_gap_ends_it(made: tuple[list[Run], list[SegmentName]], data: st.DataObject) -> None:
    """What is behind a gap is not read."""
    runs, first = made
    gap = data.draw(st.integers(1, first[-1].end))
    left = [r for r in runs if not r.start < gap <= r.end]
    assert covered(0, left) < gap
    assert all(r.end < gap for r in cover(0, left))


@given(chains())
def test_what_is_replaced_can_go(made: tuple[list[Run], list[SegmentName]]) -> None:
    """Without it, the same positions are covered; nothing that lies in a bundle of others stays."""
    runs, first = made
    bundles = [r for r in runs if isinstance(r, BundleName)]
    gone = replaced(runs, bundles)
    left = [r for r in runs if r not in gone]
    assert positions(left) == positions(runs) and covered(0, left) == first[-1].end
    for run in left:
        assert not any(b != run and b.start <= run.start and run.end <= b.end for b in bundles), run
    assert replaced(left, [b for b in bundles if b not in gone]) == set()


def test_one_of_two_equal_bundles_stays() -> None:
    """Whichever writer made it."""
    one, other = BundleName(start=0, end=9, count=3), BundleName(start=0, end=9, count=4)
    assert replaced([one, other, SegmentName(0, 9)], [other, one]) == {one, SegmentName(0, 9)}


def bundled(runs: list[Run], *, ended: bool, fan: int) -> list[Run]:
    """What is read once the plan is carried out."""
    made = list(runs)
    for group in plan_bundles(cover(0, runs), ended=ended, fan=fan):
        made.append(BundleName(start=group.runs[0].start, end=group.runs[-1].end, count=group.segments))
    return list(cover(0, made))


@given(st.integers(1, 400), st.integers(2, 5), st.lists(st.integers(1, 60), max_size=12), st.booleans())
def test_files_stay_few(count: int, fan: int, growth: list[int], ended: bool) -> None:
    """However it grows: large bundles, less than a large one's worth of small ones, a few segments. Then it rests."""
    every = segments([1] * (count + sum(growth)))
    runs: list[Run] = list(every[:count])
    at = count
    for more in [*growth, 0]:
        for _ in range(3):
            runs = bundled(runs, ended=False, fan=fan)
        assert plan_bundles(runs, ended=False, fan=fan) == []
        large = [r for r in runs if segments_in(r) >= fan * fan]
        assert len(runs) - len(large) <= 2 * fan
        assert all(segments_in(r) < 2 * fan * fan for r in large)
        assert sum(map(segments_in, runs)) == at
        runs += every[at : at + more]
        at += more
    if ended:
        for _ in range(3):
            runs = bundled(runs, ended=True, fan=fan)
        assert plan_bundles(runs, ended=True, fan=fan) == []
        assert sum(segments_in(r) < fan * fan for r in runs) <= 1


def test_a_week_of_two_seconds() -> None:
    """302,400 segments are 73 large bundles and 95 small files at most, whenever it is looked at."""
    week = segments([1] * 302_400)
    found = bundled(list(week), ended=False, fan=FAN)
    assert [segments_in(r) for r in found[:73]] == [MOST] * 73
    assert len(found) <= 73 + 2 * FAN


def test_places_open_no_more_bundles_than_needed() -> None:
    """Counts are in names; a slice, a negative place and the ends are those of a list."""
    every = segments([3] * 20)
    runs: list[Run] = [
        every[0],
        BundleName(start=3, end=30, count=9),
        *every[10:12],
        BundleName(start=36, end=60, count=8),
    ]
    opened: list[BundleName] = []

    def inside(bundle: BundleName) -> list[SegmentName]:
        opened.append(bundle)
        return [s for s in every if bundle.start <= s.start and s.end <= bundle.end]

    places = Places(runs, inside)
    assert len(places) == 20 and places[0] == every[0] and places[11] == every[11] and not opened
    assert list(places) == every and [places[n] for n in range(-20, 20)] == [*every, *every]
    assert places[8:13] == every[8:13]
    for wrong in (20, -21):
        try:
            places[wrong]
        except IndexError:
            continue
        raise AssertionError(wrong)


def test_the_least_used_goes() -> None:
    """Of what is kept."""
    kept: Kept[int, str] = Kept(2)
    kept.put(1, "a")
    kept.put(2, "b")
    assert kept.get(1) == "a"
    kept.put(3, "c")
    assert (kept.get(1), kept.get(2), kept.get(3)) == ("a", None, "c")
