"""Whether no transaction has ended between two points."""

from dataclasses import replace

import pytest

from pgkura.snapshot.detector import Point, nothing_since

POINT = Point(system="1", timeline="1", database=5, visible="100:100:", lsn="0/10", started="then")


@pytest.mark.parametrize(
    ("before", "now", "still"),
    [
        ("100:100:", "100:100:", True),
        ("100:100:", "101:101:", False),
        ("100:100:", "100:102:100", False),
        # 99 was running, and may have ended without a new number.
        ("99:100:99", "99:100:99", False),
        ("99:100:99", "100:100:", False),
        # A snapshot that names nobody, yet has room for somebody.
        ("99:100:", "99:100:", False),
        # 64 bits: another round of the same 32.
        ("100:100:", f"{100 + (1 << 32)}:{100 + (1 << 32)}:", False),
    ],
)
def test_nothing_since(before: str, now: str, *, still: bool) -> None:
    """Only of a point at which nobody ran, and only where nothing was counted on."""
    assert nothing_since(replace(POINT, visible=before), replace(POINT, visible=now)) is still
