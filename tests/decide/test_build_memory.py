"""Memory for the sort of an index: one merge is enough, and more is of no use."""

import pytest

from pgkura.restore.building import LEAST, MIB, MOST, sort_memory

GIB = 1024 * MIB
# Of tuplesort.c: a run that is being merged has 32 pages as its buffer, and one more.
BUFFER = 33 * 8192


@pytest.mark.parametrize("largest", [0, 1, 200 * MIB, 3 * GIB, 15 * GIB, 100 * GIB, 1024 * GIB, 3000 * GIB])
def test_the_largest_table_is_sorted_in_one_merge(largest: int) -> None:
    memory = sort_memory(largest=largest, processes=1, share=MOST)
    runs = -(-largest // memory)
    assert LEAST <= memory <= MOST
    assert runs * BUFFER <= memory + BUFFER
    # Half of it would not be enough, where it is more than the least.
    assert memory == LEAST or -(-largest // (memory // 2)) * BUFFER > memory // 2


def test_what_it_may_never_pass() -> None:
    assert sort_memory(largest=1 << 60, processes=1, share=8 * GIB) == MOST
    assert sort_memory(largest=1 << 60, processes=1, share=100 * MIB) == 100 * MIB
    # Each process that takes part in a sort needs 32 MiB, or it does not take part.
    assert sort_memory(largest=0, processes=4, share=MOST) == 128 * MIB
    assert sort_memory(largest=0, processes=4, share=70 * MIB) == 70 * MIB
