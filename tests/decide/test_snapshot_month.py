"""A month of small changes: in which order layers are read, and when a range is read whole."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.snapshot.booked import Booked
from pgkura.snapshot.detector import Before, Policy, Verdict, judge
from pgkura.snapshot.places import gone
from pgkura.snapshot.units import StoredChunk

RANGES, DAYS, PER_OBJECT = 16, 30, 4


def _ref(held: str, rows: int, mac: int) -> ChunkRef:
    where = ObjectRef(id=held, cipher_bytes=1, sha256="0" * 64)
    return ChunkRef(object=where, offset=0, stored=1, length=1, rows=rows, mac=f"{mac:064x}")


def _object(day: int, number: int) -> str:
    return f"{(day * 2654435761 + number * 40503) % (1 << 128):032x}"


def test_each_object_is_opened_once() -> None:
    """Every day every range gets a layer, those of neighbouring ranges in one object."""
    booked = Booked()
    for piece in range(RANGES):
        chunks = [
            StoredChunk(piece=piece, position=day, layer=Layer(chunk=_ref(_object(day, piece // PER_OBJECT), 1, piece)))
            for day in range(DAYS)
        ]
        booked.add(0, chunks, ())
    layers = list(booked.layers(0))
    assert len(layers) == RANGES * DAYS
    opened = [layer.chunk.object.id for layer in layers]
    changes = sum(a != b for a, b in pairwise(opened))
    assert changes + 1 == len(set(opened)) == DAYS * RANGES // PER_OBJECT
    days = [next(d for d in range(DAYS) if held in {_object(d, n) for n in range(4)}) for held in opened]
    assert days == sorted(days), "older rows first"
    assert [int(layer.chunk.mac, 16) for layer in layers[:RANGES]] == list(range(RANGES)), "as they lie in the table"
    booked.close()


def test_tables_of_one_layer_a_range_are_read_as_they_lie() -> None:
    """Whatever objects hold them."""
    booked = Booked()
    for piece in (2, 0, 1):
        layer = Layer(chunk=_ref(_object(piece % 2, 0), 1, piece))
        booked.add(0, [StoredChunk(piece=piece, position=0, layer=layer)], ())
    assert [int(layer.chunk.mac, 16) for layer in booked.layers(0)] == [0, 1, 2]
    booked.close()


def _before(*rows: int, dropped: int = 0) -> Before:
    layers = tuple(
        Layer(chunk=_ref("0" * 32, n, n), dropped=dropped if not place else 0, places=_ref("1" * 32, 0, 0))
        for place, n in enumerate(rows)
    )
    return Before(rows=sum(rows) - dropped, end=10, since="2026-11-26", layers=layers)


@pytest.mark.parametrize(
    ("before", "count", "new", "verdict"),
    [
        (_before(100), 100, 0, Verdict.QUIET),
        (_before(100), 101, 1, Verdict.GROWN),
        (_before(100), 900, 800, Verdict.GROWN),  # what was there is not stored again
        (_before(100), 100, 20, Verdict.CHANGED),
        (_before(100), 100, 50, Verdict.CHANGED),
        (_before(100), 100, 51, Verdict.WHOLE),
        (_before(100), 500, 410, Verdict.CHANGED),
        (_before(100), 500, 500, Verdict.WHOLE),
        (_before(0), 500, 500, Verdict.WHOLE),
        (_before(100, 5, dropped=45), 60, 0, Verdict.QUIET),
        (_before(100, 5, dropped=45), 60, 1, Verdict.WHOLE),
        (_before(*[2] * 48), 97, 1, Verdict.WHOLE),
    ],
)
def test_when_a_range_is_read_whole(before: Before, count: int, new: int, verdict: Verdict) -> None:
    """When much is stored in vain, nothing would be kept, or its layers are many."""
    assert judge(before, count, new, Policy()) is verdict


@given(st.data())
def test_what_is_left_is_what_was_kept(data: st.DataObject) -> None:
    """Whatever of it has another row in its place now."""
    places = data.draw(st.lists(st.integers(0, 200), unique=True, max_size=60))
    cut = data.draw(st.integers(0, len(places)))
    layers = [(np.array(sorted(some), np.int64), np.zeros(0, np.int64)) for some in (places[:cut], places[cut:])]
    kept = [p for p in places if data.draw(st.booleans())]
    new = data.draw(st.lists(st.integers(0, 300).filter(lambda p: p not in kept), unique=True, max_size=20))
    visible = np.array(sorted(kept + new), np.int64)
    dropped = gone(layers, visible, np.array(sorted(new), np.int64))
    left = sum(len(p) for p, _ in layers) - sum(map(len, dropped))
    assert left == len(kept)
