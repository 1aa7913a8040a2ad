"""A text that comes in pieces is stored as zstd frames that any reader joins."""

import random
import subprocess

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pgkura.core.errors import Tampered
from pgkura.repository.seal import PIECE, Frames, decompress, new_compressor, unpack

COMPRESSOR = new_compressor()


def _text(length: int) -> bytes:
    """Rows of some kind: half of it compresses."""
    chance = random.Random(length)
    return b"".join(b"row %d %s\n" % (n, chance.randbytes(40)) for n in range(length // 40 + 1))[:length]


def _frames(*pieces: bytes | memoryview) -> bytes:
    made = Frames(COMPRESSOR)
    for piece in pieces:
        made.write(piece)
    return made.end()


def _unpacked(stored: bytes, length: int) -> bytes:
    """Both ways of reading, which must agree."""
    room = bytearray(length)
    unpack(stored, "it", memoryview(room))
    assert b"".join(decompress(stored, "it", limit=length)) == room
    return bytes(room)


def _count(stored: bytes) -> int:
    """How many frames there are, each with its length at its head."""
    count = 0
    while stored:
        assert zstandard.get_frame_parameters(stored).content_size <= 2 * PIECE
        one = zstandard.ZstdDecompressor().decompressobj()
        one.decompress(stored)
        stored, count = one.unused_data, count + 1
    return count


@given(st.lists(st.integers(0, 3 * PIECE // 2), max_size=6), st.integers(1, 200_000))
def test_any_pieces_come_back(lengths: list[int], step: int) -> None:
    texts = [_text(length) for length in lengths]
    whole = b"".join(texts)
    assert _unpacked(_frames(*texts), len(whole)) == whole
    view = memoryview(whole)
    assert _unpacked(_frames(*(view[at : at + step] for at in range(0, len(whole), step))), len(whole)) == whole


@pytest.mark.parametrize(
    ("length", "count"),
    [(0, 1), (1, 1), (PIECE - 1, 1), (PIECE, 1), (2 * PIECE - 1, 1), (2 * PIECE, 2), (9 * PIECE + 5, 9)],
)
def test_a_piece_of_any_length_is_in_frames_of_some_size(length: int, count: int) -> None:
    text = _text(length)
    stored = _frames(text)
    assert _count(stored) == count
    assert _unpacked(stored, length) == text


def test_the_stock_tool_reads_them_as_restore_sh_does() -> None:
    text = _text(3 * PIECE)
    stored = _frames(*(text[at : at + 5000] for at in range(0, len(text), 5000)))
    assert _count(stored) == 3
    assert subprocess.run(["zstd", "-dcq"], input=stored, capture_output=True, check=True).stdout == text


def test_one_frame_of_any_length_is_read_as_before() -> None:
    text = _text(3 * PIECE)
    growing = zstandard.ZstdCompressor(level=1).compressobj()
    stored = b"".join((growing.compress(text[:100_000]), growing.compress(text[100_000:]), growing.flush()))
    assert _unpacked(stored, len(text)) == text


@pytest.mark.parametrize("damage", ["a frame less", "half a frame less", "a frame more", "something else behind"])
def test_damage_between_frames_is_named(damage: str) -> None:
    text = _text(3 * PIECE)
    first = _frames(text[: 2 * PIECE - 1])
    stored = {
        "a frame less": first,
        "half a frame less": first + _frames(text[2 * PIECE - 1 :])[:1000],
        "a frame more": _frames(text, b"and more"),
        "something else behind": _frames(text) + b"something else",
    }[damage]
    with pytest.raises(Tampered, match="it"):
        unpack(stored, "it", memoryview(bytearray(len(text))))
    # What is read in pieces is compared with the length and the MAC of its record by whoever reads.
    try:
        read = b"".join(decompress(stored, "it", limit=len(text)))
    except Tampered:
        return
    assert len(read) < len(text)
