"""Files of a later format than this program reads: each kind is told as such, never as damage and never passed over."""

from typing import Any

from pgkura.core.errors import FormatTooNew
from pgkura.repository.container import MAGIC, magic_version
from pgkura.storage.base import KeyNotFound, Storage

_HEADER = 64
HINT = "use a newer pgkura"


def refuse_later_record(record: Any, key: str, *, known: int = 1) -> None:
    """Raises FormatTooNew for a record whose `version` is later than `known`. One without a version is of version 1."""
    version = record.get("version", 1) if isinstance(record, dict) else 1
    if isinstance(version, int) and version > known:
        raise FormatTooNew(f"{key} has version {version}; this program reads version {known}", hint=HINT)


def refuse_later_writers(storage: Storage, *, by_writer: str, by_time: str) -> None:
    """Raises FormatTooNew if the newest file of a writer (`<writer>-…`), or the newest of all, is of a later format.

    For those who add: beside what they cannot read they may not know the rules any more. One look per writer.
    """
    newest: dict[str, str] = {}
    for stored in storage.list(by_writer):
        writer = stored.key.removeprefix(by_writer).partition("-")[0]
        newest[writer] = max(newest.get(writer, ""), stored.key)
    last = max((stored.key for stored in storage.list(by_time)), default="")
    for key in (*newest.values(), *([last] if last else [])):
        try:
            head = storage.get(key)[:_HEADER].split(b" ")[0]
        except KeyNotFound:
            continue  # taken away in this moment
        version = magic_version(head)
        if head != MAGIC and version is not None and version > 1:
            raise FormatTooNew(f"{key} has format {version}; this program reads format 1", hint=HINT)
