"""Working files without a name: what must lie in clear while we work is gone with the process, however it ends."""

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import IO


def new_scratch() -> IO[bytes]:
    """An empty file that nobody else can open and that no killed process leaves behind; close it after use."""
    return tempfile.TemporaryFile(prefix="pgkura-")


def scratch_path(file: IO[bytes]) -> Path:
    """A path by which this process can open it again, for libraries that want one; read from the beginning."""
    file.flush()
    file.seek(0, os.SEEK_SET)
    return Path(f"/dev/fd/{file.fileno()}")


def new_database() -> sqlite3.Connection:
    """An empty SQLite database in a file that loses its name at once; autocommit, close it after use.

    For what is looked up while a run lasts and would outgrow memory. One thread at a time.
    """
    with tempfile.TemporaryDirectory(prefix="pgkura-") as folder:
        database = sqlite3.connect(Path(folder) / "database", check_same_thread=False, isolation_level=None)
        # Nobody reads it after a crash; without a name there can be no journal beside it either.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA temp_store = MEMORY")
        database.execute("CREATE TABLE opened (never)")  # the file is made by the first write: now
    return database
