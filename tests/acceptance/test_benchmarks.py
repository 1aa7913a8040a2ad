"""The benchmarks run and tell what they should; no time is asserted."""

import json
import sys
from pathlib import Path

import pytest
from benchmarks.server import programs
from tests.support.cli import ROOT, command
from tests.support.servers import needs

FIELDS = {"contestant", "round", "wall", "client_cpu", "server_cpu", "bytes", "received", "peak_memory"}


@pytest.mark.slow
def test_figures_and_the_page(tmp_path: Path) -> None:
    """Some figures at a tiny scale: every field is there, everything was equal, and the page holds it."""
    needs("PostgreSQL 15", programs() is not None)
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    figures = ("unchanged", "restore", "one-table", "hash-rows", "encrypted")
    options = ["--scale", "0.0005", "--rounds", "1", "--again", "0"]
    argv = [sys.executable, "-m", "benchmarks", *figures, *options, "--out", str(results)]
    command(argv, environment, cwd=tmp_path).expect()
    told = json.loads(results.read_text())
    assert {"cpu", "cores", "memory_bytes", "date"} <= told["machine"].keys()
    assert told["versions"]["PostgreSQL server"].startswith("15.")
    assert [f["name"] for f in told["figures"]] == ["unchanged", "restore", "one_table", "hash_rows", "encrypted"]
    for figure in told["figures"]:
        assert not figure["skipped"]
        assert all(run.keys() >= FIELDS and run["wall"] > 0 for run in figure["runs"])
        assert all(v["met"] is None or v["met"] == (v["value"] <= v["goal"]) for v in figure["verdicts"])
    unchanged, restore, *_ = told["figures"]
    assert "compared equal" in unchanged["checked"][0]
    contestants = {run["contestant"] for run in restore["runs"]}
    assert len(restore["checked"]) == len(contestants) == 5 and all("equal in" in text for text in restore["checked"])
    argv = [sys.executable, "-m", "benchmarks", "table", str(results), "--out", str(page)]
    command(argv, environment, cwd=tmp_path).expect()
    text = page.read_text()
    for word in (told["machine"]["cpu"], "## Nothing changed", "## Restore into an empty database", "| ≤ 0.12× |"):
        assert word in text


@pytest.mark.slow
def test_figures_of_the_change_log(tmp_path: Path) -> None:
    """For some seconds each: everything was equal where it is compared."""
    needs("PostgreSQL 15", programs() is not None)
    results = tmp_path / "results.json"
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    figures = ("watch-overhead", "rpo", "replay")
    argv = [sys.executable, "-m", "benchmarks", *figures, "--scale", "0.01", "--rounds", "1", "--out", str(results)]
    command(argv, environment, timeout=600, cwd=tmp_path).expect()
    told = json.loads(results.read_text())["figures"]
    assert not any(figure["skipped"] for figure in told)
    assert all(run["wall"] > 0 for figure in told for run in figure["runs"])
    assert [len(figure["verdicts"]) for figure in told] == [14, 4, 4]


def test_a_figure_that_does_not_exist_is_said_at_once(tmp_path: Path) -> None:
    """A typing error costs no half hour."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = command([sys.executable, "-m", "benchmarks", "fill"], environment, cwd=tmp_path).expect(2)
    assert "no figure fill" in done.err
