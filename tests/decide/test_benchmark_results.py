"""What the benchmarks conclude from numbers."""

import pytest
from benchmarks import measure
from benchmarks.results import Figure, Run, Wrong, at_most, compared, most_stolen, quietest
from benchmarks.table import figure_lines, write_page

RUNS = [
    Run(contestant="us", round=n, wall=wall, peak_memory=int(wall * 1e6)) for n, wall in enumerate((2.0, 9.0, 3.0), 1)
] + [
    Run(contestant=name, round=n, wall=wall)
    for name, walls in (("slow | peer", (9.0, 9.0)), ("fast", (4.0, 6.0)))
    for n, wall in enumerate(walls, 1)
]


def test_medians_are_compared_and_the_best_peer_counts() -> None:
    """An odd run changes nothing."""
    verdict = compared("wall", RUNS, "us", ["slow | peer", "fast"], lambda r: r.wall, goal=0.6)
    assert (verdict.peer, verdict.value, verdict.met) == ("fast", 0.6, True)
    assert compared("wall", RUNS, "us", "fast", lambda r: r.wall, goal=0.59).met is False
    assert compared("wall", RUNS, "us", "fast", lambda r: r.wall).met is None


def test_a_disturbed_run_is_told_and_does_not_count() -> None:
    """The try that lost least counts, be it the slowest; the walls of the others stay in the results."""
    tries = [Run(contestant="us", round=1, wall=w, stolen=s) for w, s in ((2.0, 0.031), (9.0, 0.01), (1.0, 0.2))]
    assert [one.disturbed for one in tries] == [True, False, True]
    assert not Run(contestant="us", round=1, wall=1.0).disturbed
    counted = quietest(tries)
    assert (counted.wall, counted.stolen, counted.thrown) == (9.0, 0.01, (2.0, 1.0))
    assert (most_stolen([None, 0.1, 0.0]), most_stolen([None])) == (0.1, None)
    page = "\n".join(figure_lines(Figure(name="a", title="A", runs=(counted,)).as_json()))
    assert "| stolen | not counted |" in page and "| 1.0% | 2 1 |" in page
    assert "stolen" not in "\n".join(figure_lines(Figure(name="a", title="A", runs=RUNS).as_json()))


def test_only_what_can_be_repeated_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a limit, ours as theirs."""
    monkeypatch.setattr(measure, "REST_SECONDS", 0.0)
    made: list[float] = []

    def run(number: int) -> Run:
        made.append(len(made) + 1.0)
        return Run(contestant="us", round=number, wall=made[-1], stolen=0.5 / made[-1])

    (once,) = measure.interleaved({"us": run}, 1, lambda _: None)
    assert (once.wall, once.thrown) == (1.0, ())
    made.clear()
    (again,) = measure.interleaved({"us": run}, 1, lambda _: None, again=3)
    assert (again.wall, again.thrown) == (4.0, (1.0, 2.0, 3.0))


def test_of_amounts_the_most_counts() -> None:
    """A peak is a peak."""
    assert at_most("peak", RUNS, "us", lambda r: r.peak_memory, goal=8e6, unit="bytes").met is False


def test_who_did_not_run_is_no_number() -> None:
    """Loud, instead of a ratio with nothing."""
    with pytest.raises(Wrong, match="nobody"):
        compared("wall", RUNS, "us", "nobody", lambda r: r.wall)


def test_the_page_takes_the_last_result_of_a_figure() -> None:
    """Each under its own machine; a contestant's name cannot break a table."""

    def result(cpu: str, *figures: Figure) -> dict[str, object]:
        machine = {"cpu": cpu, "cores": 2, "memory_bytes": 2**34, "system": "Linux", "date": "2026-11-25T20:00:00Z"}
        return {
            "machine": machine | {"load_before": 0.1},
            "scale": 1.0,
            "rounds": 3,
            "versions": {"pgkura": "1"},
            "settings": {"fsync": "on"},
            "figures": [f.as_json() for f in figures],
        }

    verdict = compared("wall", RUNS, "us", "slow | peer", lambda r: r.wall, goal=0.1)
    whole = Figure(name="a", title="Whole", runs=RUNS, verdicts=(verdict,), checked=("equal",))
    page = write_page([result("old", Figure(name="a", title="Whole"), Figure(name="b", title="B", skipped="no root")),
                       result("new", whole)])  # fmt: skip
    assert page.count("## Whole") == 1
    assert page.index("old") < page.index("no root") < page.index("new") < page.index("## Whole")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") in (7, 6) for line in rows), rows
    assert "| us: 3 s | slow \\| peer: 9 s | 0.333× | ≤ 0.1× | **no** |" in page
