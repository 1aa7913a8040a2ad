"""The inventory of the whole catalog as a file: one JSON object per line, written as it is read."""

from typing import IO

from pgkura.postgres.inventory import read_inventory_lines
from pgkura.postgres.session import Session


def write_inventory(session: Session, file: IO[bytes]) -> None:
    """Read in the session's transaction; memory stays bounded whatever the number of objects."""
    for lines in read_inventory_lines(session):
        file.write(lines)
