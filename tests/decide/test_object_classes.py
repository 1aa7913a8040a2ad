"""The object-class page is complete: every kind of archive entry, every inventory class, every rule."""

import re
from pathlib import Path

from pgkura.catalog.kinds import COMPONENTS, KINDS
from pgkura.core.outcome import RULES, Finding, FindingClass, Result, decide
from pgkura.postgres.inventory import CLASSES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "object-classes.md").read_text()


def test_every_archive_kind_has_a_row() -> None:
    """First column of the first table."""
    table = PAGE.split("## What no archive holds")[0]
    named = {kind.strip() for row in re.findall(r"^\| ([A-Z][^|]*) \|", table, re.MULTILINE) for kind in row.split(",")}
    assert named == set(KINDS)


def test_every_inventory_class_verifies_something() -> None:
    """Last column of either table."""
    cells = " ".join(row.rsplit("|", 2)[-2] for row in PAGE.splitlines() if row.startswith("|"))
    words = set(re.findall(r"\w+", cells))
    assert {c for c in CLASSES if c not in words} == set()


def test_every_rule_is_listed() -> None:
    """The closed list, word for word."""
    assert dict(re.findall(r"^- `([\w-]+)`: (.+)$", PAGE, re.MULTILINE)) == RULES


def test_every_kind_belongs_to_a_component() -> None:
    """No text falls between the histories."""
    assert {k.component for k in KINDS.values()} <= set(COMPONENTS)


def test_nothing_widens_the_list_to_go_green() -> None:
    """Only rules of the list; lost is never waived; denied only by its exact name."""
    lost = Finding(cls=FindingClass.LOST, object="x", reason="gone")
    denied = Finding(cls=FindingClass.DENIED, object="password of role a", reason="no right")
    design = Finding(cls=FindingClass.BY_DESIGN, object="y", reason="so", rule="cron-held")
    assert decide([design]) is Result.OK
    assert decide([lost], ["x"]) is Result.INCOMPLETE
    assert decide([denied]) is Result.INCOMPLETE
    assert decide([denied], ["password of role"]) is Result.INCOMPLETE
    assert decide([denied, design], ["password of role a"]) is Result.OK
    for cls in (FindingClass.MANAGED, FindingClass.BY_DESIGN):
        for rule in ("", "because"):
            try:
                Finding(cls=cls, object="z", reason="so", rule=rule)
            except ValueError:
                continue
            raise AssertionError("a finding without a known rule was accepted")
