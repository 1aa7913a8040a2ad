"""Messages taken apart in bulk are what reading them one by one gives, compiled or not, whole or damaged."""

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.servers import needs

from pgkura.changes import messages, pgoutput
from pgkura.changes.messages import batches, take, take_in_python
from pgkura.changes.pgoutput import DELETE, INSERT, UNCHANGED, UPDATE, Change, Parts, Row, Value
from pgkura.changes.segment import FRAME, frames
from pgkura.core.errors import Tampered

Taken = tuple[list[bytes | Parts], int]

VALUES: st.SearchStrategy[Value] = st.one_of(st.binary(max_size=40), st.none(), st.just(UNCHANGED))
ROWS: st.SearchStrategy[Row] = st.lists(VALUES, max_size=5).map(tuple)
OTHERS = st.one_of(st.sampled_from([b"B" + bytes(20), b"C" + bytes(25), b"R", b"T" + bytes(9), b"M", b"\0"]))


def value(one: Value) -> bytes:
    """As the server writes it."""
    if isinstance(one, bytes):
        return b"t" + len(one).to_bytes(4, "big") + one
    return b"n" if one is None else b"u"


def row(one: Row) -> bytes:
    """The same."""
    return len(one).to_bytes(2, "big") + b"".join(map(value, one))


def message(change: Change) -> bytes:
    """The same."""
    before = b"" if change.old is None else (b"O" if change.whole else b"K") + row(change.old)
    after = b"" if change.new is None else b"N" + row(change.new)
    return bytes([change.kind]) + change.relation.to_bytes(4, "big") + before + after


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """An Insert, Update or Delete."""
    kind = draw(st.sampled_from([INSERT, UPDATE, DELETE]))
    told = kind == DELETE or (kind == UPDATE and draw(st.booleans()))
    made = Change(
        kind,
        draw(st.integers(0, 2**32 - 1)),
        draw(ROWS) if told else None,
        draw(ROWS) if kind != DELETE else None,
        told and draw(st.booleans()),
    )
    return made._replace(size=len(message(made)))


def framed(payload: bytes) -> bytes:
    """A frame of the log."""
    return FRAME.pack(len(payload), 77) + payload


def outcome(way: Callable[[bytes], Taken], data: bytes) -> Taken | str:
    """What came, or why nothing did."""
    try:
        found, stop = way(data)
    except Tampered as error:
        return f"{error.msg}: {error.detail}"
    return [one if isinstance(one, bytes) else (*one,) for one in found], stop


MESSAGES = st.lists(st.one_of(changes(), OTHERS), max_size=12)


@given(MESSAGES, st.binary(max_size=15))
def test_what_was_written_is_what_is_read(told: list[bytes | Change], rest: bytes) -> None:
    """All fields, and where the next frame begins."""
    data = b"".join(framed(one if isinstance(one, bytes) else message(one)) for one in told)
    for way in (take, take_in_python):
        assert outcome(way, data + rest[:3]) == (
            [tuple(one) if isinstance(one, Change) else one for one in told],
            len(data),
        )
    assert outcome(take, data + rest) == outcome(take_in_python, data + rest)


@given(MESSAGES, st.data())
def test_damage_is_refused_alike(told: list[bytes | Change], data: st.DataObject) -> None:
    """Bytes that flipped, messages that lost their end: the same, or the same refusal."""
    damaged = []
    for one in told:
        payload = bytearray(one if isinstance(one, bytes) else message(one))
        for _ in range(data.draw(st.integers(0, 2))):
            place = data.draw(st.integers(0, len(payload) - 1))
            payload[place] = data.draw(st.sampled_from([0, 1, 255, *b"KONntuIUDb", payload[place] ^ 1]))
        damaged.append(framed(bytes(payload[: data.draw(st.integers(0, len(payload)))])))
    whole = b"".join(damaged)
    assert outcome(take, whole) == outcome(take_in_python, whole)


@given(MESSAGES, st.lists(st.integers(1, 60)))
def test_pieces_break_anywhere(told: list[bytes | Change], sizes: list[int]) -> None:
    """A message that is spread over many pieces comes once, whole; half of one is damage."""
    data = b"".join(framed(one if isinstance(one, bytes) else message(one)) for one in told)

    def pieces(whole: bytes) -> Iterator[bytes]:
        at = 0
        for size in (*sizes, len(whole)):
            yield whole[at : at + size]
            at += size

    found = [one for batch in batches(pieces(data)) for one in batch]
    assert [tuple(one) for one in found] == [tuple(one) for one in told]
    assert [payload for _, payload in frames(pieces(data))] == [m if isinstance(m, bytes) else message(m) for m in told]
    for reading in (batches, frames):
        with pytest.raises(Tampered) as caught:
            list(reading(pieces(data + framed(b"Bx")[:-1])))
        assert caught.value.detail == "it ends within a message"


def test_random_bytes_are_read_or_refused() -> None:
    """Whatever stands in a frame."""
    chance = random.Random(9)
    heads = [b"", b"I\0\0\0\1N\0\2", b"U\0\0\0\1K\0\1n", b"U\0\0\0\1O\0\1n", b"D\0\0\0\1K\0\1", b"D\0\0\0\1N\0\1n"]
    for _ in range(3000):
        body = chance.choice(heads) + bytes(chance.choice(b"tnuN\0\0\0\1\2\xff") for _ in range(chance.randint(0, 20)))
        data = framed(body) + chance.randbytes(chance.randint(0, 14))
        assert outcome(take, data) == outcome(take_in_python, data)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "an empty message"),
        (b"I\0\0\0\1", "it is cut short"),
        (b"I\0\0\0\1N\0", "it is cut short"),
        (b"I\0\0\0\1N\0\1", "it is cut short"),
        (b"I\0\0\0\1N\0\1t\0\0\0\2x", "it is cut short"),
        (b"I\0\0\0\1N\0\1t\xff\xff\xff\xffx", "it is cut short"),
        (b"I\0\0\0\1N\xff\xff", "it is cut short"),
        (b"U\0\0\0\1K\0\1n", "it is cut short"),
        (b"I\0\0\0\1N\0\1b\0\0\0\1x", "a value of an unknown kind"),
        (b"I\0\0\0\1K\0\0", "an update or insert without a row"),
        (b"U\0\0\0\1K\0\0K\0\0", "an update or insert without a row"),
        (b"D\0\0\0\1N\0\0", "an update or insert without a row"),
    ],
)
def test_damaged_messages(payload: bytes, why: str) -> None:
    """Each is named."""
    for way in (take, take_in_python):
        assert outcome(way, framed(payload)) == f"a message of the change log is damaged: {why}"
    if payload:
        with pytest.raises(Tampered) as caught:
            pgoutput.change(payload)
        assert caught.value.detail == why


def test_the_compiled_part_is_what_is_tested() -> None:
    """Where it could be built."""
    needs("a C compiler when `make setup` runs", messages.compiled is not None)
    assert messages.compiled is not None
    with pytest.raises(TypeError):
        messages.compiled("no bytes", UNCHANGED)  # type: ignore[arg-type]
    found, stop = messages.compiled(framed(b"B") + b"\xff\xff\xff\xff" + bytes(9), UNCHANGED)
    assert (found, stop) == ([b"B"], 13), "a length of nearly 4 GiB is waited for, not read"


def test_without_the_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, in Python."""
    monkeypatch.setattr(messages, "compiled", None)
    assert take(framed(b"D\0\0\0\1O\0\1u")) == ([Change(DELETE, 1, (UNCHANGED,), None, True, 9)], 21)
