"""When a slot is warned of and given up: pure."""

from dataclasses import replace

import pytest

from pgkura.changes.budget import Level, budget_of, judge, refuse_source
from pgkura.core.errors import DatabaseError, PgkuraError, RightsError, SourceBusy
from pgkura.postgres.slots import SlotState, SourceState

MB = 1024**2
SLOT = SlotState(
    reader=1,
    confirmed="0/1",
    status="reserved",
    retained=0,
    behind=0,
    limit=-1,
    published=True,
    appended=True,
)
SOURCE = SourceState(
    wal_level="logical",
    standby=False,
    may_replicate=True,
    may_create=True,
    slots=5,
    slots_used=3,
    senders=5,
    senders_used=4,
    keep=-1,
)


@pytest.mark.parametrize(
    ("limit", "asked", "warn", "give_up"),
    [
        (1000 * MB, None, 500 * MB, 800 * MB),
        (-1, None, 2048 * MB, 0.8 * 4096 * MB),
        (-1, 100 * MB, 62.5 * MB, 100 * MB),
        (1000 * MB, 100 * MB, 62.5 * MB, 100 * MB),
        (1000 * MB, 900 * MB, 500 * MB, 800 * MB),  # the server's own limit comes first
        (-1, 0, 2048 * MB, 0),
        (1000 * MB, 0, 500 * MB, 0),
    ],
)
def test_the_budget(limit: int, asked: int | None, warn: float, give_up: float) -> None:
    """Shares of the server's limit, of ours, or what was asked for."""
    made = budget_of(limit, asked)
    assert (made.warn, made.give_up) == (int(warn), int(give_up))


def test_levels() -> None:
    """Fine, warned of, given up; never given up where that was asked for."""
    slot = replace(SLOT, limit=1000 * MB)
    for retained, level in ((0, Level.FINE), (499, Level.FINE), (500, Level.WARN), (799, Level.WARN)):
        assert judge(replace(slot, retained=retained * MB, behind=retained * MB), None).level is level
    full = replace(slot, retained=800 * MB, behind=10)
    assert judge(full, None).level is Level.GIVE_UP and "open for long" in judge(full, None).text
    assert judge(full, 0).level is Level.WARN
    assert judge(replace(slot, status="unreserved"), None).level is Level.GIVE_UP
    assert judge(replace(slot, status="unreserved"), 0).level is Level.FINE


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"standby": True}, DatabaseError, "standby"),
        ({"wal_level": "replica"}, DatabaseError, "wal_level"),
        ({"may_replicate": False}, RightsError, "replicate"),
        ({"may_create": False}, RightsError, "publication"),
        ({"slots_used": 4}, SourceBusy, "only one of the server's 5 replication slots"),
        ({"slots_used": 5}, SourceBusy, "all 5 replication slots"),
        ({"senders_used": 5}, SourceBusy, "only one of the server's 5 senders"),
    ],
)
def test_sources_that_are_refused(change: dict[str, object], error: type[PgkuraError], word: str) -> None:
    """Each by name. Our own sender counts as free where it is connected already."""
    refuse_source(SOURCE, last_slot=False, connected=True)
    with pytest.raises(error, match=word):
        refuse_source(replace(SOURCE, **change), last_slot=False, connected=True)  # type: ignore[arg-type]


def test_the_last_slot_by_consent() -> None:
    """Only then."""
    refuse_source(replace(SOURCE, slots_used=4), last_slot=True, connected=True)
    with pytest.raises(SourceBusy):
        refuse_source(replace(SOURCE, slots_used=5), last_slot=True, connected=True)
