"""Rows added up while they go by, whatever the pieces; portions of layers, and what lies outside of runs."""

import random

import numpy as np
import pytest

from pgkura.core.errors import Tampered
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.repository.rowsums import Multiset, RowHasher, new_key
from pgkura.repository.spool import LayerPile, Layers, outside, portions
from pgkura.repository.sums import Sums, summed


def _cut(text: bytes, rng: random.Random) -> list[bytes]:
    places = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def test_binary_rows_are_added_up_in_any_pieces() -> None:
    rng = random.Random(7)
    for _ in range(300):
        rows = [rng.randbytes(rng.choice((0, 1, 2, 16, 40, 300, 5000))) for _ in range(rng.randrange(40))]
        key, text, sizes = new_key(), b"".join(rows), np.array([len(r) for r in rows], np.int64)
        whole, passing = RowHasher(key), RowHasher(key)
        whole.update_rows(text, sizes)
        assert b"".join(summed(_cut(text, rng), sizes, passing)) == text
        assert passing.result() == whole.result()


def test_text_rows_too() -> None:
    rng = random.Random(8)
    text = b"".join(b"%d\t%s\n" % (n, b"x" * rng.randrange(300)) for n in range(500))
    key = new_key()
    whole, passing = RowHasher(key), RowHasher(key)
    whole.update(text)
    assert b"".join(summed(_cut(text, rng), None, passing)) == text
    assert passing.result() == whole.result()


@pytest.mark.parametrize("sizes", [[3, 3], [3, 3, 4, 1], [3, 3, 5], [3, 3, 3]])
def test_sizes_that_do_not_fit_are_refused(sizes: list[int]) -> None:
    with pytest.raises(Tampered):
        list(summed([b"abcdef", b"ghij"], np.array(sizes, np.int64), RowHasher(new_key())))


def test_sums_of_parts_are_those_of_the_whole() -> None:
    one = Sums(rows=Multiset(2, 5), covered={0: 2})
    other = Sums(rows=Multiset(3, 7), covered={2: 4})
    assert one + other == Sums(rows=Multiset(5, 12), covered={0: 2, 2: 4})


def _layer(number: int) -> Layer:
    ref = ObjectRef(id=f"{number:032x}", cipher_bytes=1, sha256="0" * 64)
    chunk = ChunkRef(object=ref, offset=0, stored=1, length=10 + number % 7, rows=1, mac="0" * 64)
    return Layer(chunk=chunk, dropped=number % 2, drops=chunk if number % 2 else None)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("size", [1, 35, 100, 10**9])
@pytest.mark.parametrize("head", [0, 1, 333])
def test_portions_are_neighbours_and_all(few: int, size: int, head: int) -> None:
    """In memory and in a file."""
    layers = [_layer(n) for n in range(500)]
    pile = LayerPile(few)
    for layer in layers:
        pile.append(layer)
    held = pile.take()
    assert isinstance(held, Layers) == (few == 0)
    found = list(portions(held, size, head))
    assert [x for _, some in found for x in some] == layers
    at = 0
    for first, some in found:
        assert first == at and len(some) == len(list(some))
        at += len(some)
        wanted = size if first or not head else head
        assert sum(x.chunk.length for x in some) >= wanted or at == len(layers)
        assert sum(x.chunk.length for x in list(some)[:-1]) < wanted


def test_outside_of_runs() -> None:
    layers = [_layer(n) for n in range(20)]
    assert list(outside(layers, {})) == layers
    assert list(outside(layers, {0: 20})) == []
    assert list(outside(layers, {12: 3, 2: 4})) == [*layers[:2], *layers[6:12], *layers[15:]]
    assert list(outside(layers, {12: 3, 10: 1}, at=10)) == [layers[1], *layers[5:]]
    assert list(outside(layers, {5: 0})) == layers
