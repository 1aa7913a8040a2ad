"""What follows from the server's counts for tables whose inserts alone are logged: pure."""

import pytest

from pgkura.changes.counting import Judged, Sample, Telling, judge_counts, sample
from pgkura.core.names import QualifiedName
from pgkura.core.wal import Visible
from pgkura.postgres.counting import Counted

LOG, OTHER = QualifiedName("public", "log"), QualifiedName("public", "other")
BASE = Visible.parse("100:100:")


def one(
    xmax: int, until: int, counts: tuple[int, int, int] | None = (7, 1, 1), *, epoch: str = "e", unseen: int = 0
) -> Sample:
    """A look that tells of one table, or of nothing that moved."""
    tables = {LOG: counts} if counts else {}
    return Sample(
        visible=Visible(xmin=xmax, xmax=xmax),
        time=xmax,
        until=until,
        unseen=unseen,
        epoch=epoch,
        whole=counts is not None,
        tables=tables,
    )


@pytest.mark.parametrize(
    ("samples", "moved", "unknown"),
    [
        ([one(90, 0), one(110, 500)], "", ""),
        ([one(90, 0), one(100, 0, (7, 2, 1)), one(110, 500, (7, 2, 1))], "", ""),  # what moved before the base
        ([one(90, 0), one(110, 0, None), one(120, 500, None), one(130, 600, (7, 9, 9))], "", ""),  # later: not ours
        ([one(90, 0), one(110, 0, (7, 2, 1)), one(120, 500, (7, 2, 1))], "1 updated", ""),
        ([one(90, 0), one(110, 500, (7, 1, 4))], "3 deleted", ""),
        ([one(90, 0), one(110, 499, None)], "", "may not be counted"),
        ([one(90, 0), one(110, 0, None, unseen=2)], "", "2 sessions"),
        ([one(90, 0)], "", "nothing was counted since"),
        ([one(90, 0), one(110, 500, epoch="f")], "anew", ""),
        ([one(90, 0), one(110, 500, (8, 1, 1))], "another table", ""),
        ([one(110, 500)], "before the snapshot", ""),
        ([], "before the snapshot", ""),
    ],
)
def test_what_is_said_of_a_table(samples: list[Sample], moved: str, unknown: str) -> None:
    """Moved, not yet known, or proven. Never proven by a look that may not have counted all of the moment."""
    said = judge_counts(samples, [LOG], BASE, 500)
    assert moved in said.moved.get(LOG, "") and bool(moved) == bool(said.moved)
    assert unknown in said.unknown and bool(unknown) == bool(said.unknown)


def test_a_table_that_nobody_counted_is_not_believed() -> None:
    """Not in the look from before the base."""
    said: Judged = judge_counts([one(90, 0), one(110, 500)], [LOG, OTHER], BASE, 500)
    assert set(said.moved) == {OTHER}


def test_what_is_told_can_be_read_from_any_whole_look_on() -> None:
    """All at first and now and then, what moved in between."""
    telling = Telling()
    counts = (1, 0, 0)
    wholes = 0
    known: dict[QualifiedName, tuple[int, int, int]] = {}
    for n in range(100):
        if n % 7 == 0:
            counts = (1, n, 0)
        tables = {LOG: counts, OTHER: (2, 0, 0)}
        record = telling.tell(Counted(until=n, unseen=0, epoch="e" if n < 50 else "f", tables=tables))
        told = sample(record, "1:1:", n)
        assert told is not None
        wholes += told.whole
        known = dict(told.tables) if told.whole else known | dict(told.tables)
        assert known == tables
        assert told.whole == (n in (0, 32, 50, 82))
    assert wholes == 4 and telling.tell(None) is None
