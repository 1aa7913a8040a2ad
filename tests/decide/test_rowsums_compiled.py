"""The compiled part adds up what the arrays do, and reads nothing but what it was given."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest
from blake3 import blake3
from tests.support.servers import needs

from pgkura.core.errors import Tampered
from pgkura.repository import rowarrays, rowsums
from pgkura.repository.rowarrays import LONG, ArrayAdder
from pgkura.repository.rowsums import CompiledAdder, Multiset, RowHasher

KEY = bytes(range(32))
KEYS = blake3(b"pgkura rows", key=KEY).digest(length=64 + LONG)
# On both sides of every width, and of what is worked on at a time.
EDGES = sorted({n + by for n in (0, 64, 128, *rowarrays._WIDTHS) for by in (-1, 0, 1) if n + by >= 0})


@pytest.fixture(autouse=True)
def compiled() -> None:
    """Nothing here means anything without it."""
    needs(
        "a C compiler when `make setup` runs, and a processor with instructions for AES", rowsums.compiled is not None
    )


def adder() -> CompiledAdder:
    """The compiled part."""
    assert rowsums.compiled is not None
    return CompiledAdder(KEYS, rowsums.compiled(KEYS))


def line_of(row: bytes) -> bytes:
    """COPY text."""
    return row.replace(b"\n", b"n") + b"\n"


def test_rows_of_every_length() -> None:
    """Alone, so that each ends where its buffer does; as rows and as lines."""
    random = Random(1)
    ours, other = adder(), ArrayAdder(KEYS)
    for length in range(5001):
        row = random.randbytes(length)
        for each in (ours, other):
            each.rows(memoryview(row), np.array([length], np.int64))
            assert each.lines(memoryview(line_of(row))) == length + 1
        assert ours.total() == other.total()
    assert ours.total()[0] == 2 * 5001


def test_many_rows_of_any_lengths() -> None:
    """One after the other, with lines that are not whole behind them."""
    random = Random(2)
    for most in (3, 20, 300, 5000):
        rows = [random.randbytes(random.choice([*EDGES, random.randrange(most)]) % (most + 1)) for _ in range(1500)]
        lengths = np.array([len(row) for row in rows], np.int64)
        text = b"".join(map(line_of, rows)) + bytes(most)
        ours, other = adder(), ArrayAdder(KEYS)
        for each in (ours, other):
            each.rows(memoryview(b"".join(rows)), lengths)
            assert each.lines(memoryview(text)) == len(text) - most
        assert ours.total() == other.total()


def test_every_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text in two pieces, wherever it is cut; and in many."""
    monkeypatch.setattr(rowsums, "_ENOUGH", 0)
    random = Random(3)
    lengths = (0, 1, 5000, 0, 63, 64, 65, 15, 16, 17, LONG, 127, 3, LONG + 1, LONG - 1, 0)
    text = b"".join(line_of(random.randbytes(length)) for length in lengths)
    want = added(text)
    assert want.rows == len(lengths)
    for at in range(len(text) + 1):
        assert added(text[:at], text[at:]) == want
    for size in (1, 7, LONG, LONG + 1, LONG + 2, 10_000):
        assert added(*(text[at : at + size] for at in range(0, len(text), size))) == want
    with monkeypatch.context() as patch:
        patch.setattr(rowsums, "compiled", None)
        assert added(text) == added(text[:777], text[777:]) == want


def added(*pieces: bytes) -> Multiset:
    """Of text."""
    hasher = RowHasher(KEY)
    for piece in pieces:
        hasher.update(piece)
    return hasher.result()


def test_what_is_no_buffer_of_rows_is_refused() -> None:
    """By the compiled part itself, whatever stands before it."""
    assert rowsums.compiled is not None
    for wrong in (KEYS[:-1], KEYS + b"x", b""):
        with pytest.raises(ValueError, match="keys of another size"):
            rowsums.compiled(wrong)
    sums = rowsums.compiled(KEYS)
    one, text = np.array([3], np.int64), memoryview(b"abc")
    for first, start in ((-1, 0), (2, 0), (0, -1), (0, 4), (0, 1), (1, 0), (2**62, 0), (0, 2**62)):
        with pytest.raises(ValueError):
            sums.rows(text, one, first, start)
    for start in (-1, 4, 2**62):
        with pytest.raises(ValueError):
            sums.lines(text, start)
    for other in (one.astype(np.int32), one.astype(np.float64), one.reshape(1, 1), one.astype(">i8"), b"3" * 8):
        with pytest.raises((TypeError, ValueError)):
            sums.rows(text, other, 0, 0)  # type: ignore[arg-type]
    with pytest.raises((BufferError, ValueError)):
        sums.rows(text, np.array([3, 0, 0, 0], np.int64)[::2], 0, 0)
    with pytest.raises(ValueError):
        sums.digests(bytes(17))
    with pytest.raises(TypeError):
        sums.lines("abc", 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        rowsums.compiled(keys=KEYS)  # type: ignore[call-arg]
    # Nothing of all that was counted.
    assert sums.total() == (0, bytes(24))


def test_random_lengths_never_reach_beyond() -> None:
    """Refused, whatever they are; those that fit are not."""
    random = Random(4)
    for _ in range(2000):
        row = random.randbytes(random.choice(EDGES[:40]))
        lengths = [random.choice([0, 1, len(row), 64, -1, random.getrandbits(64) - 2**63]) for _ in range(3)]
        numbers = np.array(lengths, np.int64)
        if min(lengths) >= 0 and sum(lengths) == len(row):
            RowHasher(KEY).update_rows(row, numbers)
        else:
            with pytest.raises(Tampered):
                RowHasher(KEY).update_rows(row, numbers)


def test_several_threads() -> None:
    """Each with a table of its own, and all with the same one."""
    random = Random(5)
    text = b"".join(line_of(random.randbytes(random.randrange(400))) for _ in range(5000))
    want, together = added(text * 4), adder()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: added(*[text] * 4), range(8))) == [want] * 8
        list(threads.map(lambda _: together.lines(memoryview(text)), range(400)))
    assert Multiset(*together.total()) == Multiset(100 * want.rows, 100 * want.total)


@pytest.mark.parametrize("there", ["None", "types.SimpleNamespace(available=False)"])
def test_without_it(there: str) -> None:
    """Not built, or built where nothing knows AES."""
    program = f"""
import sys, types
sys.modules["pgkura.repository._rowsums"] = {there}
from pgkura.repository import rowsums
assert rowsums.compiled is None
print(rowsums.multiset([b"one\\n" * 9, b"\\n"], bytes(range(32))).total)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) == added(b"one\n" * 9, b"\n").total
