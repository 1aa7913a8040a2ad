"""What is unpacked in one go is exactly as long as its record says, or damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkura.core.errors import Tampered
from pgkura.repository.seal import compress, unpack


@given(st.binary(max_size=5000), st.integers(-3, 3))
def test_only_the_length_of_the_record(content: bytes, more: int) -> None:
    room = bytearray(max(0, len(content) + more))
    if len(room) == len(content):
        unpack(compress(content), "it", memoryview(room))
        assert room == content
    else:
        with pytest.raises(Tampered, match=r"it unpacks to (more|less) than its record says"):
            unpack(compress(content), "it", memoryview(room))


@pytest.mark.parametrize("cut", [0, 4, 9, -1])
def test_damage_is_named_and_the_next_one_is_read(cut: int) -> None:
    frame = compress(b"rows " * 1000)
    with pytest.raises(Tampered, match="it"):
        unpack(frame[:cut], "it", memoryview(bytearray(5000)))
    with pytest.raises(Tampered, match="it is damaged"):
        unpack(b"nothing of the kind", "it", memoryview(bytearray(5000)))
    room = bytearray(5000)
    unpack(frame, "it", memoryview(room))
    assert room == b"rows " * 1000


def test_a_record_that_says_little_holds_little_memory() -> None:
    """A frame of a gigabyte is given up at the first byte too many."""
    with pytest.raises(Tampered, match="more than its record says"):
        unpack(compress(bytes(1 << 28)), "it", memoryview(bytearray(100)))
