"""The statements of this room, one file each, by name."""

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    """The text of `name`.sql."""
    return (files(__package__) / f"{name}.sql").read_text(encoding="utf-8")
