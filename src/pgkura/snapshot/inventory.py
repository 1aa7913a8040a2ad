"""The inventory of the whole catalog as a file: one JSON object per line, written as it is read."""

import json
from typing import IO

from pgkura.postgres.inventory import read_inventory
from pgkura.postgres.session import Session


def write_inventory(session: Session, file: IO[bytes]) -> None:
    """Read in the session's transaction; memory stays bounded whatever the number of objects."""
    for item in read_inventory(session):
        line = {"class": item.cls, "identity": item.identity, "attributes": item.attributes}
        file.write(json.dumps(line, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n")
