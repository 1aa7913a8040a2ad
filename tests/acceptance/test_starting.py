"""A command that a test starts the quick way is the command that a person starts (tests/support/starting.py)."""

import subprocess
from pathlib import Path

import pytest
from tests.support.cli import Desk


def test_both_ways_say_the_same(tmp_path: Path) -> None:
    """Exit code, both outputs, and nothing of the command before: each desk has its own environment."""
    for name in ("one", "two"):
        desk = Desk(tmp_path / name)
        assert "no key given" in desk.run("snapshots").expect(2).err
        desk.run("init").expect()
        for asked in (("snapshots", "--json"), ("show", "latest"), ("nothing",)):
            assert desk.run(*asked) == desk.run(*asked, alone=True)
        assert (tmp_path / name / "repository").is_dir()


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """As with any process."""
    desk = Desk(tmp_path)
    desk.run("init").expect()
    with pytest.raises(subprocess.TimeoutExpired):
        desk.run("demo", timeout=0.05)
    desk.run("snapshots").expect()
