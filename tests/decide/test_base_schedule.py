"""When a watcher takes a base: migrations are waited out, patience ends, and pauses grow."""

from pgkura.changes.rebasing import Schedule
from pgkura.postgres.shape import Shape


def shape(rows: str, definitions: str = "d") -> Shape:
    """A shape."""
    return Shape(rows=rows, definitions=definitions)


def test_a_change_is_waited_out() -> None:
    """Each change begins the wait anew, but not for ever."""
    one = Schedule(after=10)
    assert not one.look(shape("a"), 0)
    one.found(shape("a"), now=0)
    assert not one.due(1000)
    assert one.look(shape("b"), 1000) and not one.due(1009) and one.due(1010)
    one.look(shape("c"), 1009)
    assert not one.due(1018) and one.due(1019)
    for second in range(1010, 1070):
        one.look(shape(f"s{second}"), second)
    assert one.due(1070)


def test_definitions_count_too() -> None:
    """A new view needs a base, or moments after it would have the definitions of before."""
    one = Schedule(after=10)
    one.look(shape("a"), 0)
    one.found(shape("a"), now=0)
    one.look(shape("a", "e"), 100)
    assert one.due(110)


def test_where_a_backup_is_the_base_already_nothing_is_due() -> None:
    """Somebody's `pgkura backup` counts like one of ours, and costs no pause."""
    one = Schedule(after=10)
    one.look(shape("a"), 0)
    assert one.due(10)
    one.found(shape("a"), now=11)
    assert not one.due(10_000)
    one.look(shape("b"), 10_000)
    assert one.due(10_010)


def test_the_first_backup_is_asked_for_now_and_then() -> None:
    """Nobody has backed this database up: that is looked at again, not every second."""
    one = Schedule(after=10)
    one.look(shape("a"), 0)
    one.found(None, now=10)
    assert not one.due(300) and one.due(311)
    one.look(shape("b"), 50)
    assert not one.due(59) and one.due(60)


def test_pauses_grow_and_are_forgotten() -> None:
    """Tables that come and go all day: some nine bases an hour, and never more than a quarter of the time."""
    one = Schedule(after=10)
    began = []
    for second in range(7200):
        one.look(shape(str(second // 5)), second)
        if one.due(second):
            one.ended(shape("gone"), began=second, now=second + 4)
            began.append(second)
    first = [b for b in began if b < 3600]
    assert 5 <= len(first) <= 11 and len(began) <= 18
    one.look(shape("quiet"), 20_000)
    assert one.due(20_010)
    one.ended(shape("quiet"), began=20_010, now=20_110)
    one.look(shape("again"), 20_111)
    assert not one.due(20_130) and one.due(20_110 + 300)


def test_never_is_never() -> None:
    """Without a time nothing is taken."""
    one = Schedule(after=0)
    one.look(shape("a"), 0)
    assert not one.due(1e9)
