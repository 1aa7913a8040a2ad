"""Multisets of rows: the order and the cuts of the text mean nothing, any other difference is seen."""

import pickle
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from tests.support.servers import needs

from pgkura.core.errors import Tampered
from pgkura.repository import rowarrays, rowsums
from pgkura.repository.rowarrays import LONG
from pgkura.repository.rowsums import Multiset, RowHasher, multiset, new_key

KEY = bytes(range(32))
COMPILED = "a C compiler when `make setup` runs, and a processor with instructions for AES"
ANY = st.binary(max_size=40)
ROW = ANY.map(lambda raw: raw.replace(b"\n", b"\\n"))
# Around every width at which rows are gathered, and on both sides of the longest of them.
LENGTHS = st.one_of(st.integers(0, 40), st.integers(0, LONG + 40), st.integers(LONG - 2, LONG + 2))
WIDE = st.tuples(LENGTHS, st.integers(0, 2**32)).map(lambda case: Random(case[1]).randbytes(case[0]))


WAYS = [("arrays", LONG), ("arrays", 3 * LONG), ("arrays", rowarrays.BATCH), ("compiled", 0), ("compiled", 16 << 10)]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{way[1]}", autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, and batches that end everywhere."""
    name, size = request.param
    if name == "arrays":
        monkeypatch.setattr(rowarrays, "BATCH", size)
        monkeypatch.setattr(rowarrays, "_ROWS", size // 16)
        monkeypatch.setattr(rowsums, "compiled", None)
    else:
        needs(COMPILED, rowsums.compiled is not None)
        monkeypatch.setattr(rowsums, "_ENOUGH", size)


def text_of(rows: list[bytes]) -> bytes:
    """COPY text."""
    return b"".join(row + b"\n" for row in rows)


def cut(text: bytes, places: list[int]) -> list[bytes]:
    """The text in pieces."""
    ends = sorted({p % (len(text) + 1) for p in places} | {len(text)})
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def whole(rows: list[bytes]) -> Multiset:
    """Rows that are already cut."""
    hasher = RowHasher(KEY)
    hasher.update_rows(b"".join(rows), np.array([len(row) for row in rows], np.int64))
    return hasher.result()


def slowly(rows: list[bytes]) -> Multiset:
    """As docs/decisions/0007-row-hashes-in-bulk.md says it, row by row and in plain integers."""
    keys = blake3(b"pgkura rows", key=KEY).digest(length=64 + LONG)
    inner, outer = (Cipher(algorithms.AES(keys[at : at + 16]), modes.ECB()).encryptor() for at in (0, 16))
    total = 0
    for row in rows:
        if len(row) > LONG:
            digest = number(blake3(row, key=keys[32:64]).digest(length=16))
        else:
            digest = len(row)
            padded = row.ljust(next(width for width in rowarrays._WIDTHS if width >= len(row)), b"\0")
            for at in range(0, len(padded), 16):
                block = number(padded[at : at + 16]) ^ number(keys[64 + at : 80 + at])
                digest ^= number(inner.update(block.to_bytes(16, "little")))
        total += number(outer.update(digest.to_bytes(16, "little")))
    return Multiset(len(rows), total)


def number(raw: bytes) -> int:
    """Little-endian."""
    return int.from_bytes(raw, "little")


@given(st.lists(WIDE, max_size=8) | st.lists(ANY, max_size=200))
def test_sums_are_those_of_the_slow_way(rows: list[bytes]) -> None:
    """Whatever the lengths, and whether rows are cut by us or not."""
    assert whole(rows) == slowly(rows)
    lines = [row.replace(b"\n", b"n") for row in rows]
    assert multiset([text_of(lines)], KEY) == slowly(lines)


@given(st.lists(ROW | WIDE, max_size=20), st.lists(st.integers(min_value=0)), st.randoms(use_true_random=False))
def test_order_and_cuts_mean_nothing(rows: list[bytes], places: list[int], shuffled: Random) -> None:
    """The same rows, shuffled and cut anywhere, sum alike."""
    rows = [row.replace(b"\n", b"n") for row in rows]
    other = rows.copy()
    shuffled.shuffle(other)
    pieces = cut(text_of(other), places)
    assert multiset(pieces, KEY) == multiset(map(memoryview, pieces), KEY) == whole(rows)
    assert multiset([text_of(rows)], KEY) == whole(rows)


@given(st.lists(ROW), st.lists(ROW))
def test_equal_exactly_when_the_rows_are(rows: list[bytes], others: list[bytes]) -> None:
    """Equality is that of counted sets."""
    same = Counter(rows) == Counter(others)
    assert (multiset([text_of(rows)], KEY) == multiset([text_of(others)], KEY)) is same


@given(st.lists(WIDE, max_size=9), st.integers(0, 9))
def test_parts_add_up(rows: list[bytes], place: int) -> None:
    """Workers hash disjoint parts; what they send back is pickled."""
    first, second = (pickle.loads(pickle.dumps(whole(part))) for part in (rows[:place], rows[place:]))
    assert first + second == second + first == whole(rows)


@given(st.lists(WIDE, min_size=1, max_size=4), st.integers(0), st.integers(1, 255))
def test_every_changed_byte_is_seen(rows: list[bytes], place: int, flip: int) -> None:
    """Anywhere in a row of any length."""
    text = bytearray(b"".join(rows) or b"x")
    lengths = np.array([len(row) for row in rows] if any(rows) else [1], np.int64)
    before, after = RowHasher(KEY), RowHasher(KEY)
    before.update_rows(bytes(text), lengths)
    text[place % len(text)] ^= flip
    after.update_rows(bytes(text), lengths)
    assert before.result() != after.result()


def neighbours(text: bytes) -> Iterator[bytes]:
    """Everything that differs from a text in one bit."""
    for at in range(len(text)):
        for bit in range(8):
            yield text[:at] + bytes([text[at] ^ (1 << bit)]) + text[at + 1 :]


def test_every_changed_bit_of_some_lines_is_seen() -> None:
    """Newlines too: another number of rows, or an end within a row."""
    text = b"1\tseventeen bytes\t\\N\n\n2\tx\n" + b"y" * 40 + b"\n"
    want = multiset([text], KEY)
    for other in neighbours(text):
        hasher = RowHasher(KEY)
        hasher.update(other)
        if other.endswith(b"\n"):
            assert hasher.result() != want
        else:
            with pytest.raises(Tampered):
                hasher.result()


@given(st.integers(2, LONG + 20), st.data())
def test_bytes_exchanged_between_rows_are_seen(length: int, data: st.DataObject) -> None:
    """A sum of a linear hash would be blind to this: what one row loses, the other has."""
    at = data.draw(st.integers(1, length - 1))
    one, two = (Random(seed).randbytes(length) for seed in (1, 2))
    assert whole([one, two]) != whole([one[:at] + two[at:], two[:at] + one[at:]])


def test_equal_sums_of_powers_are_seen() -> None:
    """Blind to this would be a sum of polynomials of low degree (Prouhet, Tarry and Escott)."""
    even = [n for n in range(256) if n.bit_count() % 2 == 0]
    odd = [n for n in range(256) if n.bit_count() % 2]
    assert all(sum(n**d for n in even) == sum(n**d for n in odd) for d in range(8))
    assert whole([bytes([n]) for n in even]) != whole([bytes([n]) for n in odd])


def test_zeros_behind_a_row_are_part_of_it() -> None:
    """Rows are padded with zeros when they are gathered."""
    sums = {whole([b"a" + bytes(n)]).total for n in range(200)} | {whole([bytes(n)]).total for n in range(200)}
    assert len(sums) == 400
    assert whole([bytes(LONG)]) != whole([bytes(LONG + 1)])


def test_rows_without_columns_are_counted() -> None:
    """COPY prints an empty line for each."""
    assert multiset([b"\n\n", b"\n"], KEY) == whole([b""] * 3)
    assert multiset([b"\n\n", b"\n"], KEY).rows == 3
    assert multiset([b"\n\n"], KEY) != multiset([b"\n\n\n"], KEY)
    assert multiset([], KEY) == whole([]) == Multiset(0, 0)


def test_a_row_twice_is_not_a_row_once_nor_two_others() -> None:
    """Counts matter; nothing cancels out."""
    assert multiset([b"a\na\nb\n"], KEY) != multiset([b"a\nb\nb\n"], KEY)
    assert multiset([b"a\na\n"], KEY) != multiset([b"a\n"], KEY)
    assert multiset([b"a\na\n"], KEY) != multiset([b"b\nb\n"], KEY)


def test_another_key_gives_another_sum() -> None:
    """Nothing about one proof helps to forge for the next."""
    for row in (b"a\n", b"a" * (LONG + 1) + b"\n"):
        assert multiset([row], KEY) != multiset([row], new_key())
    assert len(new_key()) == 32


def test_sums_never_wrap() -> None:
    """The sum is exact: a row more than a thousand times is that many of its digests."""
    assert whole([b"a"] * 5000) == Multiset(5000, 5000 * whole([b"a"]).total)


def test_text_that_ends_within_a_row_is_damage() -> None:
    """Never a silently shorter table."""
    for text in (b"whole\nhalf", b"whole\n" + b"half" * LONG):
        hasher = RowHasher(KEY)
        hasher.update(text)
        with pytest.raises(Tampered):
            hasher.result()


@pytest.mark.parametrize(
    "lengths",
    [
        *([2, 2], [1, 1], [3, 1], [4, -1], [-1, 4], [], [3, LONG + 1], [LONG + 1, 3], [2**63 - 1], [-(2**63)]),
        # The sums of these wrap: to what would fit.
        *([2**62] * 4 + [3], [2**63 - 1, 2**63 - 1, 5], [3, -(2**63), -(2**63)]),
    ],
)
def test_lengths_that_do_not_fit_are_damage(lengths: list[int]) -> None:
    """Never other rows than those meant, nor bytes that are not theirs."""
    with pytest.raises(Tampered):
        RowHasher(KEY).update_rows(b"abc", np.array(lengths, np.int64))


def test_lengths_may_lie_anyhow() -> None:
    """With gaps, at odd places, of another size, not to be written."""
    rows = [b"a" * n for n in (3, 0, 70, LONG + 1, 5)]
    lengths = np.array([len(row) for row in rows], np.int64)
    odd = np.frombuffer(b"x" + lengths.tobytes(), np.int64, offset=1)
    others: list[Any] = [
        np.repeat(lengths, 2)[::2],
        lengths.astype(np.int32),
        odd,
        lengths.astype(">i8"),
        lengths.tolist(),
    ]
    for other in others:
        hasher = RowHasher(KEY)
        hasher.update_rows(memoryview(b"".join(rows)), other)
        assert hasher.result() == whole(rows)


def test_a_long_value_is_never_held() -> None:
    """Neither as pieces nor when it comes whole, and short rows cost little each."""
    piece = b"x" * (1 << 20)
    long, empty = RowHasher(KEY), RowHasher(KEY)
    tracemalloc.start()
    for _ in range(64):
        long.update(piece)
    long.update(b"\n")
    empty.update(b"\n" * (1 << 20))
    assert (long.result().rows, empty.result().rows) == (1, 1 << 20)
    long.update_rows(piece * 64, np.array([64 << 20], np.int64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (64 + 16 << 20)
    result = long.result()
    assert result == Multiset(2, 2 * (result.total // 2))


def test_order_and_repetition_within_a_row_are_seen() -> None:
    """A row's blocks are added by XOR: each place has its own mask, or equal blocks would cancel out."""
    one, two = b"a" * 16, b"b" * 16
    rows = [one + two, two + one, one + one, two + two, one + one + two + two, two + one + one + two]
    assert len({whole([row]).total for row in rows}) == len(rows)
