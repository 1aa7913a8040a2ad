"""Working files without a name: what must lie in clear while we work is gone with the process, however it ends."""

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import IO


def new_scratch() -> IO[bytes]:
    """An empty file that nobody else can open and that no killed process leaves behind; close it after use."""
    return tempfile.TemporaryFile(prefix="pgkura-")


class LongFile:
    """Such a file that grows at its end and is read anywhere, by any thread; closed when nobody has it any more."""

    def __init__(self) -> None:
        self._file = new_scratch()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    def append(self, data: bytes) -> None:
        """At the end."""
        self._file.write(data)
        self._size += len(data)

    def flush(self) -> None:
        """What was appended can be read from now on."""
        self._file.flush()

    def read(self, start: int, length: int) -> bytes:
        """Some of it; at most so much."""
        return os.pread(self._file.fileno(), length, start)

    def __del__(self) -> None:
        self._file.close()


class _Database(sqlite3.Connection):
    def __del__(self) -> None:
        self.close()


def new_database() -> sqlite3.Connection:
    """An empty SQLite database in a file that loses its name at once; autocommit, closed when nobody has it any more.

    For what is looked up while a run lasts and would outgrow memory. One thread at a time. A process killed in the
    moment in which the file is made leaves an empty one.
    """
    with tempfile.TemporaryDirectory(prefix="pgkura-") as folder:
        database = sqlite3.connect(Path(folder) / "database", check_same_thread=False, isolation_level=None)
        # Nobody reads it after a crash; without a name there can be no journal beside it either.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        # What is sorted grows too: SQLite's own working files have no name either.
        database.execute("PRAGMA temp_store = FILE")
        database.execute("CREATE TABLE opened (never)")  # the file is made by the first write: now
    return database
