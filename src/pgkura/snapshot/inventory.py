"""The inventory of the whole catalog as a file: one JSON object per line, written as it is read."""

from typing import IO

from pgkura.postgres.inventory import CLASSES, read_inventory_lines
from pgkura.postgres.patience import Patience
from pgkura.postgres.session import Session


def write_inventory(session: Session, file: IO[bytes], patience: Patience) -> None:
    """Read in the session's transaction; memory stays bounded whatever the number of objects."""
    for cls in CLASSES:
        place = file.tell()

        def write(cls: str = cls, place: int = place) -> None:
            file.seek(place)
            file.truncate()
            for lines in read_inventory_lines(session, (cls,)):
                file.write(lines)

        patience.again(write)
