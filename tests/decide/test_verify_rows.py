"""Multisets of rows: the order and the cuts of the text mean nothing, any other difference is seen."""

import hashlib
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.core.errors import Tampered
from pgkura.verify.rows import Multiset, RowHasher, added, multiset, new_key

KEY = bytes(range(32))
ROW = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"\\n"))


def cut(text: bytes, places: list[int]) -> list[bytes]:
    """The text in pieces."""
    ends = sorted({p % (len(text) + 1) for p in places} | {len(text)})
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@given(st.lists(ROW), st.lists(st.integers(min_value=0)), st.randoms(use_true_random=False))
def test_order_and_cuts_mean_nothing(rows: list[bytes], places: list[int], shuffled: Random) -> None:
    """The same rows, shuffled and cut anywhere, sum alike."""
    other = rows.copy()
    shuffled.shuffle(other)
    text = b"".join(row + b"\n" for row in other)
    assert multiset(cut(text, places), KEY) == multiset([row + b"\n" for row in rows], KEY)


@given(st.lists(ROW), st.lists(ROW))
def test_equal_exactly_when_the_rows_are(rows: list[bytes], others: list[bytes]) -> None:
    """Equality is that of counted sets."""
    same = Counter(rows) == Counter(others)
    texts = [b"".join(row + b"\n" for row in some) for some in (rows, others)]
    assert (multiset([texts[0]], KEY) == multiset([texts[1]], KEY)) is same


@given(st.lists(ROW, max_size=60))
def test_the_sum_is_that_of_keyed_digests(rows: list[bytes]) -> None:
    """As the decision record says: keyed BLAKE2b-256 of each row, added as little-endian integers."""
    digests = [hashlib.blake2b(row, key=KEY, digest_size=32).digest() for row in rows]
    total = sum(int.from_bytes(d, "little") for d in digests)
    assert multiset([row + b"\n" for row in rows], KEY) == Multiset(len(rows), total)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=200))
def test_folding_is_adding(digests: list[bytes]) -> None:
    """Carries never reach a neighbour."""
    assert added(digests) == sum(int.from_bytes(d, "little") for d in digests)


def test_folding_carries_at_their_widest() -> None:
    """All bits set: the largest carries there are."""
    assert added([b"\xff" * 32] * 5000) == 5000 * (2**256 - 1)


def test_rows_without_columns_are_counted() -> None:
    """COPY prints an empty line for each."""
    assert multiset([b"\n\n", b"\n"], KEY).rows == 3
    assert multiset([b"\n\n"], KEY) != multiset([b"\n\n\n"], KEY)


def test_a_row_twice_is_not_a_row_once_nor_two_others() -> None:
    """Counts matter."""
    assert multiset([b"a\na\nb\n"], KEY) != multiset([b"a\nb\nb\n"], KEY)
    assert multiset([b"a\na\n"], KEY) != multiset([b"a\n"], KEY)


def test_another_key_gives_another_sum() -> None:
    """Nothing about one proof helps to forge for the next."""
    assert multiset([b"a\n"], KEY) != multiset([b"a\n"], new_key())
    assert len(new_key()) == 32


def test_text_that_ends_within_a_row_is_damage() -> None:
    """Never a silently shorter table."""
    hasher = RowHasher(KEY)
    hasher.update(b"whole\nhalf")
    with pytest.raises(Tampered):
        hasher.result()
