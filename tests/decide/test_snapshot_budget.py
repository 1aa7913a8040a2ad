"""Locks and connections: never above the share, and a refusal comes before the first lock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.core.errors import SourceBusy
from pgkura.core.names import QualifiedName
from pgkura.snapshot.budget import Capacity, ConnectionPlan, Lockable, plan_connections, plan_locks


def _tables(count: int) -> list[Lockable]:
    return [
        Lockable(oid=20000 + i, qname=QualifiedName("public", f"t{i}"), kind="r", bytes=i * 1000) for i in range(count)
    ]


@given(st.integers(0, 500), st.floats(0.05, 1.0), st.integers(1, 16))
def test_connections_stay_within_the_share(free: int, share: float, workers: int) -> None:
    try:
        plan = plan_connections(Capacity(free_connections=free, lock_slots=0), share=share, workers=workers)
    except SourceBusy:
        assert int(free * share) < 5
        return
    assert plan.total <= int(free * share)
    assert 1 <= plan.workers <= workers
    assert 1 <= plan.holders <= 4


def test_the_default_fits_a_small_hosted_database() -> None:
    plan = plan_connections(Capacity(free_connections=40, lock_slots=0), share=0.25, workers=2)
    assert plan == ConnectionPlan(holders=2, workers=2, beside=True)
    assert plan.total == 10


@given(st.integers(0, 3000), st.integers(100, 20000), st.integers(0, 200), st.booleans())
def test_locks_stay_within_the_share(tables: int, slots: int, views: int, beside: bool) -> None:
    connections = ConnectionPlan(holders=3, workers=2, beside=beside)
    given_tables = _tables(tables)
    try:
        plan = plan_locks(
            given_tables,
            Capacity(free_connections=40, lock_slots=slots),
            share=0.25,
            connections=connections,
            views=views,
            tables_per_unit=64,
        )
    except SourceBusy:
        assert tables + views + 150 > slots // 4 or slots // 4 < 2 * 84
        return
    early = [t.oid for group in plan.holders for t in group]
    assert len(early) + plan.reserved <= plan.budget <= slots / 4
    assert len(set(early)) == len(early)
    assert set(early) | plan.late == {t.oid for t in given_tables}
    assert not set(early) & plan.late
    dump, working = tables + views + 150, 2 * 84
    assert plan.reserved == (dump + working + views + 150 if plan.together else max(dump, working))
    assert not plan.together or beside


def test_what_does_not_fit_is_locked_late_smallest_first() -> None:
    plan = plan_locks(
        _tables(1000),
        Capacity(free_connections=40, lock_slots=6400),
        share=0.25,
        connections=ConnectionPlan(holders=4, workers=2),
        tables_per_unit=64,
    )
    assert len(plan.late) == 1000 - (1600 - 1150)
    assert max(plan.late) < min(t.oid for group in plan.holders for t in group)


def test_a_full_lock_table_is_refused_with_numbers() -> None:
    with pytest.raises(SourceBusy) as caught:
        plan_locks(
            _tables(3000),
            Capacity(free_connections=40, lock_slots=6400),
            share=0.25,
            connections=ConnectionPlan(holders=4, workers=2),
            tables_per_unit=64,
        )
    assert "3,000 tables" in caught.value.msg
    assert "1,600" in caught.value.msg
    assert "max_locks_per_transaction" in caught.value.hint


@pytest.mark.parametrize(
    ("slots", "together"),
    [
        (4 * (2 * 1000 + 300 + 168), True),  # everything fits at once
        (4 * (2 * 1000 + 300 + 168) - 4, False),  # a table would be locked late for it
        (4 * (2 * 1000 + 150 - 4), True),  # some are in any case
        (4 * (1000 + 300 + 168 - 1), False),  # not even those who read
    ],
)
def test_rows_are_read_beside_pg_dump_where_no_table_pays_for_it(slots: int, together: bool) -> None:
    plan = plan_locks(
        _tables(1000),
        Capacity(free_connections=40, lock_slots=slots),
        share=0.25,
        connections=ConnectionPlan(holders=3, workers=2, beside=True),
        tables_per_unit=64,
    )
    assert plan.together is together
