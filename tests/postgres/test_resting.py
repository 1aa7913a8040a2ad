"""A stream that rests while commits are many gives what one that never rests gives."""

import time
from collections.abc import Iterator

import psycopg
import pytest
from tests.postgres.test_watch_sql import read_all, up_to, without_repeated
from tests.support import ledger
from tests.support.servers import server, versions

from pgkura.core.wal import parse_lsn
from pgkura.postgres import resting
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.replication import Alive, Frame, Replication
from pgkura.postgres.resting import MANY_COMMITS_A_SECOND, Resting
from pgkura.postgres.session import SqlError


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A database with two slots of the same position, `one` and `two`; and that position."""
    home = server(request.param)
    name = f"resting_{request.param}"
    url = ledger.make(home, name)
    with psycopg.connect(home.url(name), autocommit=True) as admin:
        admin.execute("CREATE PUBLICATION p FOR ALL TABLES")
        row = admin.execute("SELECT lsn::text FROM pg_create_logical_replication_slot('one', 'pgoutput')").fetchone()
        assert row is not None
        admin.execute("SELECT pg_copy_logical_replication_slot('one', 'two')")
    yield url, parse_lsn(row[0])
    ledger.drop_slots(home, name)


def emit(url: str, prefix: str, *, transactional: bool = True) -> int:
    """A message that the server has flushed; its position."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = on")
        row = connection.execute(
            "SELECT pg_logical_emit_message(%s, %s, 'x')::text", (transactional, prefix)
        ).fetchone()
    assert row is not None
    return parse_lsn(str(row[0]))


@pytest.fixture(autouse=True)
def _never_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is just now, a beginning is not called dear."""
    monkeypatch.setattr(resting, "_DEAR", 1000.0)


class Reader:
    """Reads until told to end; `rests`: how often the stream rested."""

    def __init__(self, url: str, start: int, *, period: float) -> None:
        self.reader = Resting(lambda: Replication.open(Endpoint.parse(url), application_name="test"), period)
        self.frames: list[Frame] = []
        self.rests = self.begun = 0
        self.ended = start
        self.reader.start("one", ("p",), start, self._count)

    def _count(self) -> None:
        self.begun += 1

    def step(self) -> None:
        """One look; each commit is confirmed as it comes."""
        rested = self.reader.rested
        for message in self.reader.receive(0.02):
            if isinstance(message, Alive):
                continue
            self.frames.append(message)
            if message.payload[:1] == b"C":
                self.ended = message.lsn
        self.reader.confirm(self.ended)
        self.rests += self.reader.rested and not rested

    def until(self, last: int) -> None:
        """Up to a position."""
        end = time.monotonic() + 60
        while self.ended < last:
            assert time.monotonic() < end, (self.ended, last)
            self.step()


@pytest.mark.parametrize("source", versions(), indirect=True)
def test_the_same_frames_with_and_without_rests(source: tuple[str, int]) -> None:
    """Under load, with messages outside of transactions; nothing twice, nothing left out."""
    url, start = source
    made = Reader(url, start, period=0.3)
    with ledger.Load(url, clients=4) as load:
        end = time.monotonic() + 60
        while made.rests < 5 and time.monotonic() < end:
            emit(url, "aside", transactional=False)
            made.step()
    last = emit(url, "end")
    made.until(last)
    made.reader.close()
    assert len(load.committed) > MANY_COMMITS_A_SECOND
    assert made.rests >= 5 and made.begun >= made.rests
    plain = Resting(lambda: Replication.open(Endpoint.parse(url), application_name="test"), 600)
    whole = read_all(plain, "two", start, last)
    assert up_to(last, without_repeated(made.frames)) == up_to(last, without_repeated(whole))


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_few_commits_are_streamed(source: tuple[str, int]) -> None:
    """Each comes when it is committed."""
    url, start = source
    made = Reader(url, start, period=1.0)
    for _ in range(10):
        made.until(emit(url, "now and then"))
        time.sleep(0.2)
    assert not made.rests and made.begun == 1
    made.reader.close()


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_what_is_stored_is_confirmed_and_no_more(source: tuple[str, int]) -> None:
    """A stream begins where it was left, not where the server was told; what is not stored is never confirmed."""
    url, start = source
    made = Reader(url, start, period=0.2)
    stored = 0
    with ledger.Load(url, clients=4), psycopg.connect(url, autocommit=True) as connection:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for message in made.reader.receive(0.02):
                if not isinstance(message, Alive) and message.payload[:1] == b"C":
                    made.ended = message.lsn
            if not stored and made.begun == 3:
                stored = made.ended
                made.reader.confirm(stored)
            row = connection.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'one'"
            ).fetchone()
            assert row is not None and parse_lsn(row[0]) <= max(stored, start)
    assert made.begun > 5 and made.ended > stored > 0
    made.reader.close()


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_hurry_ends_a_rest_and_brings_what_came_in_it(source: tuple[str, int]) -> None:
    """A watcher that is asked to end stores what was committed until then."""
    url, start = source
    made = Reader(url, start, period=30.0)
    made.reader._since = time.monotonic() - 10  # as if it had looked for a while
    made.reader._commits = 1000
    emit(url, "first")
    while not made.reader.rested:
        made.step()
    last = emit(url, "second")
    begun = time.monotonic()
    while made.reader.hurry():
        made.step()
    assert made.ended >= last and time.monotonic() - begun < 10
    made.reader.close()


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_a_slot_that_somebody_moved_meanwhile(source: tuple[str, int]) -> None:
    """Whoever began the stream is asked each time whether the slot is where it was left."""
    url, start = source
    made = Reader(url, start, period=0.5)

    def refuse() -> None:
        raise SqlError("moved")

    with ledger.Load(url, clients=4):
        while not made.rests:
            made.step()
    made.reader._begun = refuse
    with pytest.raises(SqlError, match="moved"):
        made.until(emit(url, "end"))
    made.reader.close()


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_the_slot_is_free_in_a_rest_and_may_be_gone_after_it(source: tuple[str, int]) -> None:
    """That is told as an error."""
    url, start = source
    made = Reader(url, start, period=0.5)
    with ledger.Load(url, clients=4):
        while not made.rests:
            made.step()
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT active FROM pg_replication_slots WHERE slot_name = 'one'").fetchone() == (
            False,
        )
        connection.execute("SELECT pg_drop_replication_slot('one')")
    with pytest.raises(SqlError, match="does not exist"):
        made.until(emit(url, "end"))
    made.reader.close()


@pytest.mark.parametrize("source", versions()[-1:], indirect=True)
def test_where_a_beginning_is_dear_there_is_no_rest_for_a_while(
    source: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every beginning counts as dear here: one rest, then many periods without."""
    monkeypatch.setattr(resting, "_DEAR", 0.0)
    url, start = source
    made = Reader(url, start, period=0.4)
    made.reader._behind = False  # the first beginning is not judged
    with ledger.Load(url, clients=4):
        end = time.monotonic() + 4
        while time.monotonic() < end:
            made.step()
    assert made.rests == 1
    made.reader.close()
