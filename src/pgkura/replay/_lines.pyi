from collections.abc import Iterator

from pgkura.changes.pgoutput import Row

def write(rows: Iterator[tuple[Row, ...]], enough: int, /) -> bytes: ...
