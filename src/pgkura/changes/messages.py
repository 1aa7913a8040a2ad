"""Plain messages of a segment, taken apart in bulk. Pure.

A Python loop costs 3 µs for each change, the compiled part (_messages.c) a tenth of that; it is not there where a
package was built without a C compiler.
"""

from collections.abc import Callable, Iterable, Iterator

from pgkura.changes import pgoutput
from pgkura.changes.pgoutput import UNCHANGED, Parts, Unchanged
from pgkura.changes.segment import cut, whole

compiled: Callable[[bytes, Unchanged], tuple[list[bytes | Parts], int]] | None
try:
    from pgkura.changes._messages import take as compiled
except ImportError:
    compiled = None


def batches(pieces: Iterable[bytes]) -> Iterator[list[bytes | Parts]]:
    """Messages in order, as many at a time as a piece has: changes of rows taken apart, all others as they came.

    Raises Tampered.
    """
    return whole(pieces, take)


def take(data: bytes) -> tuple[list[bytes | Parts], int]:
    """The whole messages at the front, and where the first that is not whole begins. Raises Tampered."""
    if compiled is None:
        return take_in_python(data)
    try:
        return compiled(data, UNCHANGED)
    except ValueError as error:
        raise pgoutput.damaged(str(error)) from error


def take_in_python(data: bytes) -> tuple[list[bytes | Parts], int]:
    """The same, without the compiled part."""
    found, stop = cut(data)
    return [_told(payload) for _, payload in found], stop


def _told(payload: bytes) -> bytes | Parts:
    if not payload:
        raise pgoutput.damaged("an empty message")
    return pgoutput.change(payload) if payload[0] in pgoutput.ROWS else payload
