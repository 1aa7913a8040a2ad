"""Rows as lines of COPY text, in bulk. Pure. (PostgreSQL manual, COPY, "Text Format".)

A Python loop costs 1.4 µs for each row, four times that where a value is NULL, the compiled part (_lines.c) 0.1 to 0.3;
it is not there where a package was built without a C compiler.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from pgkura.changes.pgoutput import Row, Unchanged, Value
from pgkura.core.errors import Tampered

compiled: Callable[[Iterator[tuple[Row, ...]], int], bytes] | None
try:
    from pgkura.replay._lines import write as compiled
except ImportError:
    compiled = None

_PIECE = 256 * 1024


def pieces(rows: Iterable[tuple[Row, ...]]) -> Iterator[bytes]:
    """The lines, many at a time. What stands side by side in a line comes as parts. Raises Tampered."""
    waiting = iter(rows)
    return iter(lambda: write(waiting, _PIECE), b"")


def write(rows: Iterator[tuple[Row, ...]], enough: int) -> bytes:
    """Lines until there are enough bytes; none when there are no rows. Raises Tampered for a value that is not told."""
    if compiled is None:
        return write_in_python(rows, enough)
    try:
        return compiled(rows, enough)
    except ValueError as error:
        raise _not_told() from error


def write_in_python(rows: Iterator[tuple[Row, ...]], enough: int) -> bytes:
    """The same, without the compiled part."""
    found: list[bytes] = []
    size = 0
    while size < enough and (parts := next(rows, None)) is not None:
        line = _line(parts[0] if len(parts) == 1 else tuple(chain.from_iterable(parts)))
        found.append(line)
        size += len(line)
    return b"".join(found)


def _line(values: Row) -> bytes:
    try:
        line = b"\t".join(values)  # type: ignore[arg-type]
    except TypeError:  # a NULL
        line = b""
    # Most rows have nothing to be escaped: one look at all of it.
    if line and line.count(b"\t") == len(values) - 1 and not (b"\\" in line or b"\n" in line or b"\r" in line):
        return line + b"\n"
    return b"\t".join([_field(v) for v in values]) + b"\n"


def _field(value: Value) -> bytes:
    if value is None:
        return b"\\N"
    if isinstance(value, Unchanged):
        raise _not_told()
    if b"\\" in value:
        value = value.replace(b"\\", b"\\\\")
    if b"\n" in value or b"\t" in value or b"\r" in value:
        value = value.replace(b"\n", b"\\n").replace(b"\t", b"\\t").replace(b"\r", b"\\r")
    return value


def _not_told() -> Tampered:
    return Tampered("a value of the change log is not told")
