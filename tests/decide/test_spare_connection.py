"""When a restore opens a connection that keeps the WAL writer awake."""

from pgkura.restore.wal_writer import LEAST_BYTES, worth_it


def test_it_is_opened_for_a_large_restore_where_there_is_room() -> None:
    assert worth_it(data_bytes=LEAST_BYTES, pooled=False, free=13, parallel=2)
    assert worth_it(data_bytes=1 << 50, pooled=False, free=97, parallel=16)


def test_it_is_not_where_nobody_waits_for_the_log_or_somebody_could_for_a_connection() -> None:
    assert not worth_it(data_bytes=LEAST_BYTES - 1, pooled=False, free=1000, parallel=2)
    assert not worth_it(data_bytes=1 << 40, pooled=True, free=1000, parallel=2)
    assert not worth_it(data_bytes=1 << 40, pooled=False, free=12, parallel=2)
    assert not worth_it(data_bytes=1 << 40, pooled=False, free=96, parallel=16)
    assert not worth_it(data_bytes=1 << 40, pooled=False, free=-3, parallel=1), "a server that is overfull"
