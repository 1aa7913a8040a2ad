"""The reference page is the program's own words."""

import sys
from pathlib import Path

from tests.support.cli import ROOT, Desk, command


def test_reference_page_is_current(tmp_path: Path) -> None:
    """docs/reference.md equals what the declared command line prints."""
    printed = command([sys.executable, str(ROOT / "scripts" / "reference.py")], Desk(tmp_path).environment).expect().out
    assert (ROOT / "docs" / "reference.md").read_text() == printed, "run scripts/reference.py > docs/reference.md"
