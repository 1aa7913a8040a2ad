"""When a restore opens a connection that keeps the WAL writer awake."""

from pgkura.restore.wal_writer import room


def test_twice_as_many_as_the_restore_could_want() -> None:
    assert room(13, 2) and not room(12, 2)
    assert room(97, 16) and not room(96, 16)
    assert not room(-3, 1), "a server that is overfull"
