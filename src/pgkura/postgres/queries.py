"""SQL by name: `queries/<file>.sql` holds sections that begin with `-- name: x`, each with its purpose below it."""

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def _sections(file: str) -> dict[str, str]:
    text = files("pgkura.postgres").joinpath("queries", f"{file}.sql").read_text("utf-8")
    parts = _NAME.split(text)
    return {name: sql.strip().rstrip(";") for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


def query(file: str, name: str) -> str:
    """One statement. Raises KeyError for an unknown name: a programming error."""
    return _sections(file)[name]
