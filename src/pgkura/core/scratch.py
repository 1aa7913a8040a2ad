"""Working files without a name: what must lie in clear while we work is gone with the process, however it ends."""

import os
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
