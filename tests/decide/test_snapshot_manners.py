"""How long to pause, and what to say of a snapshot's age."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.snapshot_facts import table

from pgkura.cli.durations import seconds
from pgkura.core.errors import SourceBusy, UsageError
from pgkura.snapshot.budget import Capacity, ConnectionPlan, Lockable, plan_connections, plan_locks
from pgkura.snapshot.manners import Age, Held, age_of, age_told, ahead_of, pause_for, spoken
from pgkura.snapshot.options import Options
from pgkura.snapshot.pacing import Pacer


@given(st.floats(0, 1e6), st.floats(0.05, 1))
def test_worked_and_paused_add_up_to_the_share(worked: float, share: float) -> None:
    paused = pause_for(worked, share)
    assert paused >= 0
    assert worked == pytest.approx(share * (worked + paused))


def test_a_whole_share_never_pauses() -> None:
    assert pause_for(1e9, 1.0) == 0


def test_bytes_that_came_too_early() -> None:
    assert ahead_of(1000, 0.5, 1000) == 0.5
    assert ahead_of(1000, 2.0, 1000) == -1.0
    assert ahead_of(10**12, 0.0, 0) == 0.0


@given(st.floats(0, 1e6), st.floats(1, 1e6))
def test_an_age_is_young_then_half_then_over(age: float, limit: float) -> None:
    said = age_of(age, limit)
    assert (said is Age.OVER) == (age >= limit)
    assert (said is Age.YOUNG) == (age < limit / 2)


def test_the_warning_has_the_numbers_that_matter() -> None:
    held = Held(transactions=1_234_567, dead=89_000)
    half = age_told(3 * 3600, 6 * 3600, held, ends=False)
    assert "3 h old" in half and "age(backend_xmin) is 1,234,567" in half and "89,000 dead rows" in half
    assert "at 6 h this is said again" in half
    assert "at 6 h the backup ends" in age_told(3 * 3600, 6 * 3600, held, ends=True)
    assert "--end-at-snapshot-age" in age_told(6 * 3600, 6 * 3600, None, ends=False)


def test_durations_spoken() -> None:
    assert [spoken(s) for s in (0.5, 90, 1800, 6 * 3600, 5400)] == ["0.5 s", "1.5 min", "30 min", "6 h", "1.5 h"]


def test_durations_read() -> None:
    said = [seconds(t, "--x", least=0) for t in ("500ms", "90", "90s", "30min", "30m", "1.5h", "2d", "")]
    assert said == [0.5, 90, 90, 1800, 1800, 5400, 172800, 0]
    for wrong in ("soon", "-1s", "1y", "1h30m"):
        with pytest.raises(UsageError, match="no duration"):
            seconds(wrong, "--x", least=0)
    with pytest.raises(UsageError, match="too short"):
        seconds("1ms", "--x", least=1)


def test_the_pace_owes_until_it_rests_and_stops_when_asked() -> None:
    stopped = False
    pacer = Pacer(bytes_per_second=1_000_000, share=1.0, stopped=lambda: stopped)
    began = time.monotonic()
    with pacer.statement():
        pacer.received(300_000)
    pacer.rest()
    assert time.monotonic() - began >= 0.3
    stopped = True
    pacer.received(10**9)
    pacer.rest()
    assert time.monotonic() - began < 60


def test_a_share_is_kept_over_statements() -> None:
    pacer = Pacer(bytes_per_second=0, share=0.25, stopped=lambda: False)
    began = time.monotonic()
    for _ in range(4):
        with pacer.statement():
            time.sleep(0.05)
    pacer.rest()
    assert time.monotonic() - began >= 4 * 0.2 - 0.01


def test_a_lock_timeout_replaces_what_follows_from_the_bound() -> None:
    assert Options().lock_wait_ms == 500
    given_ = Options(lock_timeout_seconds=3)
    assert (given_.lock_wait_ms, given_.queue_wait_ms) == (3000, 3000)
    assert Options(lock_timeout_seconds=0.05).queue_wait_ms == 2000


@pytest.mark.parametrize(
    "wrong", [{"cpu_share": 0.04}, {"cpu_share": 1.1}, {"statement_timeout_seconds": -1}, {"lock_timeout_seconds": -1}]
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Options(**wrong)  # type: ignore[arg-type]


def test_ten_thousand_tables_on_a_hundred_connections_are_refused_with_numbers_and_options() -> None:
    known = table()
    tables = [Lockable(oid=i, qname=known.qname, kind="r", bytes=1) for i in range(10_000)]
    room = Capacity(free_connections=97, lock_slots=64 * 100)
    connections = ConnectionPlan(holders=4, workers=2)
    with pytest.raises(SourceBusy) as caught:
        plan_locks(tables, room, share=0.25, connections=connections, tables_per_unit=64)
    said = str(caught.value)
    for part in (
        "10,000 tables",
        "10,150 locks",
        "1,600 may",
        "6,400 locks",
        "25%",
        "max_locks_per_transaction",
        "6.3 times",
    ):
        assert part in said
    assert "--lock-share" not in said, "no share of it would do"
    enough = Capacity(free_connections=97, lock_slots=256 * 100)
    with pytest.raises(SourceBusy, match=r"--lock-share 0\.4"):
        plan_locks(tables, enough, share=0.25, connections=connections, tables_per_unit=64)
    assert plan_locks(tables, enough, share=0.4, connections=connections, tables_per_unit=64).late


def test_too_few_connections_are_refused_with_the_share_that_would_do() -> None:
    with pytest.raises(SourceBusy, match=r"--connection-share 0\.63\)"):
        plan_connections(Capacity(free_connections=8, lock_slots=0), share=0.25, workers=2)
    assert plan_connections(Capacity(free_connections=8, lock_slots=0), share=0.63, workers=2).total == 5
    with pytest.raises(SourceBusy) as caught:
        plan_connections(Capacity(free_connections=4, lock_slots=0), share=1, workers=2)
    assert "--connection-share" not in str(caught.value)
