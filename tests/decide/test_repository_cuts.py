"""What is noted of layers with dropped rows: in memory, in a file, and on its way from a worker."""

import pickle

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from pgkura.repository.cuts import CutBook, CutPile, Cuts

KEY = bytes(32)
ROWS = st.lists(st.lists(st.binary(max_size=20), max_size=4), max_size=12)


def noted(layers: list[list[bytes]], *, few: int) -> Cuts:
    """What goes through comes out."""
    pile = CutPile(lambda: blake3(key=KEY), few)
    for pieces in layers:
        assert list(pile.through(pieces)) == pieces
    return pile.take()


def wanted(layers: list[list[bytes]]) -> list[tuple[int, str]]:
    """By hand."""
    rows = [b"".join(pieces) for pieces in layers]
    return [(len(row), blake3(row, key=KEY).hexdigest()) for row in rows]


@given(st.lists(ROWS, max_size=4), st.integers(0, 300), st.integers(0, 300))
def test_any_number_in_memory_or_in_files(tables: list[list[list[bytes]]], few: int, held: int) -> None:
    book = CutBook(few=held)
    for number, layers in enumerate(tables):
        cuts = noted(layers, few=few)
        assert list(cuts) == list(cuts) == wanted(layers) and len(cuts) == len(layers)
        sent = pickle.loads(pickle.dumps(cuts))
        assert list(sent) == wanted(layers)
        book.add(number, sent if number % 2 else cuts)
    for number, layers in enumerate(tables):
        found = book.of(number)
        assert (found is None) == (not layers)
        if found is not None:
            assert list(found) == wanted(layers)
    assert book.of(-1) is None


def test_many_are_read_in_blocks() -> None:
    layers = [[b"%d" % n] for n in range(4000)]
    assert list(noted(layers, few=1000)) == wanted(layers)
    assert len(pickle.dumps(noted(layers, few=1000))) < 41 * 4000
