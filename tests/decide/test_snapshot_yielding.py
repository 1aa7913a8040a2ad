"""Whom we give way to, and what we give up."""

from pgkura.snapshot.yielding import Concessions, Part, Wait, application_name, decide_concessions


def _wait(part: Part, seconds: float = 5.0, *, kind: str = "relation", blocker: int = 10, stuck: bool = False) -> Wait:
    return Wait(waiter=99, kind=kind, relation=1, seconds=seconds, blocker=blocker, part=part, stuck=stuck)


def _decide(*waits: Wait, cancelled: frozenset[int] = frozenset()) -> Concessions:
    return decide_concessions(waits, bound=1.0, cancelled=cancelled)


def test_young_waits_are_left_alone() -> None:
    assert _decide(_wait(Part.HOLDER, 0.5)) == Concessions()


def test_a_holder_is_released_and_a_worker_cancelled_then_ended() -> None:
    given = _decide(_wait(Part.HOLDER), _wait(Part.WORKER, blocker=11))
    assert given == Concessions(release=frozenset({10}), cancel=frozenset({11}))
    assert _decide(_wait(Part.WORKER, blocker=11), cancelled=frozenset({11})).terminate == {11}


def test_pg_dump_and_the_reader_are_ended() -> None:
    assert _decide(_wait(Part.DUMP)).terminate == {10}
    assert _decide(_wait(Part.READER)).terminate == {10}


def test_what_may_be_a_deadlock_does_not_wait_for_the_bound() -> None:
    assert _decide(_wait(Part.DUMP, 0.4, stuck=True)).terminate == {10}
    assert _decide(_wait(Part.DUMP, 0.4)) == _decide(_wait(Part.WORKER, 0.4, stuck=True)) == Concessions()


def test_who_waits_for_the_snapshot_itself_is_named_only() -> None:
    given = _decide(_wait(Part.EXPORTER, kind="virtualxid"), _wait(Part.WORKER, kind="virtualxid"))
    assert given == Concessions(patient=frozenset({99}))
    assert not given.any


def test_drop_index_concurrently_waits_for_holders_and_they_can_be_released() -> None:
    assert _decide(_wait(Part.HOLDER, kind="virtualxid")).release == {10}


def test_names_fit_the_server() -> None:
    assert all(len(application_name("0123456789ab", part)) < 64 for part in Part)
