"""Packs go into the store while the next one is made: nothing counts before it is there, and no error is lost."""

import os
from dataclasses import dataclass, field
from threading import Event

import pytest
from tests.support.shelf import Shelf
from tests.support.watchers import soon

from pgkura.core.errors import StoreFull
from pgkura.repository.packs import PACK_BYTES, PackWriter
from pgkura.storage.memory import MemoryStorage


@dataclass(slots=True)
class Slow(MemoryStorage):
    """Takes a pack when it is let, and as often as it is let."""

    let: Event = field(default_factory=Event)
    full: bool = False
    holds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        MemoryStorage.__init__(self)

    def create(self, key: str, data: bytes, *, storage_class: str = "") -> None:
        if key.startswith("data/"):
            self.holds.append(key)
            assert self.let.wait(60)
            if self.full:
                raise StoreFull(f"no space left for {key}")
        MemoryStorage.create(self, key, data, storage_class=storage_class)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def writer(slow: Slow) -> PackWriter:
    return Shelf(slow).host().pack_writer()


def _chunk(writer: PackWriter, tag: str, data: bytes) -> None:
    writer.begin(tag)
    writer.write(data)
    writer.end(1)


def test_the_next_pack_is_made_meanwhile(slow: Slow, writer: PackWriter) -> None:
    """As far as to the next one that is full; a twin of what is on its way is not stored twice."""
    first, second = os.urandom(PACK_BYTES), os.urandom(1000)
    _chunk(writer, "first", first)
    _chunk(writer, "twin", first)
    _chunk(writer, "second", second)
    assert not writer.drain(), "it was waited for, or counts before it is there"
    soon(lambda: len(slow.holds) == 1)  # it is hashed before, beside us
    slow.let.set()
    writer.flush()
    done = {tag: (ref, new) for tag, ref, new in writer.drain()}
    assert {tag: new for tag, (_, new) in done.items()} == {"first": True, "twin": False, "second": True}
    assert done["first"][0] == done["twin"][0] and len(slow.holds) == 2
    assert {ref.length for ref, _ in done.values()} == {len(first), len(second)}


def test_never_two_on_their_way(slow: Slow, writer: PackWriter) -> None:
    """Or memory would grow with a store's slowness."""
    slow.let.set()
    for number in range(4):
        _chunk(writer, str(number), os.urandom(PACK_BYTES))
        assert len(writer.drain()) == (1 if number else 0)
    writer.flush()
    assert [tag for tag, *_ in writer.drain()] == ["3"] and len(slow.holds) == 4


@pytest.mark.parametrize("more", [0, 1000, PACK_BYTES])
def test_what_goes_wrong_is_raised_by_the_next_call(slow: Slow, writer: PackWriter, more: int) -> None:
    slow.full = True
    _chunk(writer, "first", os.urandom(PACK_BYTES))
    slow.let.set()
    with pytest.raises(StoreFull):
        if more:
            _chunk(writer, "second", os.urandom(more))
        writer.flush()
    assert not writer.drain()
    with pytest.raises(StoreFull):
        writer.flush()
    assert not writer.drain()
