"""A pg_dump archive as structure: its table of contents, never its text split by patterns."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from typing import IO

from pgkura.catalog.archive import ArchiveReader, LaterArchive, RawEntry
from pgkura.catalog.kinds import KINDS, Section
from pgkura.core.errors import FormatTooNew, Tampered


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry. `tag` and `schema` are bare names; `defn` is SQL that ends in a newline.

    `subject` is the kind of the object that a COMMENT, SECURITY LABEL or ACL belongs to, else ''.
    """

    dump_id: int
    desc: str
    tag: str
    schema: str
    owner: str
    defn: str
    drop: str
    deps: tuple[int, ...]
    table_am: str
    relkind: str
    catalog: int
    oid: int
    subject: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity across dumps: kind, schema, tag."""
        return (self.desc, self.schema, self.tag)

    @property
    def title(self) -> str:
        """For people: `TRIGGER public.t on_insert`."""
        return f"{self.desc} {self.schema + '.' if self.schema else ''}{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toc:
    """All entries in the order pg_dump sorted them: by dependency, definitions before what follows the rows."""

    entries: tuple[Entry, ...]
    dump_version: str
    server_version: str

    def before_rows(self) -> tuple[Entry, ...]:
        """Everything up to the first entry that belongs after the rows."""
        return self.entries[: self._boundary()]

    def after_rows(self) -> tuple[Entry, ...]:
        """The rest."""
        return self.entries[self._boundary() :]

    def _boundary(self) -> int:
        for place, entry in enumerate(self.entries):
            if KINDS[entry.desc].section is Section.AFTER:
                return place
        return len(self.entries)


def read_archive(source: IO[bytes] | bytes) -> Toc:
    """Raises Tampered for no archive, FormatTooNew for one of a later pg_dump or with unknown kinds of entries.

    A file is one of `new_scratch`, and stays open.
    """
    if isinstance(source, bytes):
        return _read(source)
    source.flush()
    if source.seek(0, os.SEEK_END) == 0:
        return _read(b"")
    with mmap(source.fileno(), 0, access=ACCESS_READ) as data:
        return _read(data)


def _read(data: bytes | mmap) -> Toc:
    try:
        archive = ArchiveReader(data)
        entries = _with_subjects(_entry(e) for e in archive.entries())
    except LaterArchive as error:
        raise FormatTooNew(f"a pg_dump archive of format {error}", hint="use a newer pgkura") from error
    except ValueError as error:  # text that is no UTF-8 and numbers that are none are such errors too
        raise Tampered("this is no pg_dump archive", detail=f"{type(error).__name__}: {error}") from error
    unknown = sorted({e.desc for e in entries} - KINDS.keys())
    if unknown:
        raise FormatTooNew(
            f"the archive holds kinds of objects this program does not know: {', '.join(unknown)}",
            hint="use a newer pgkura; nothing is skipped silently",
        )
    return Toc(entries=entries, dump_version=archive.dump_version, server_version=archive.server_version)


def _entry(e: RawEntry) -> Entry:
    return Entry(
        dump_id=e.dump_id,
        desc=e.desc,
        tag=e.tag,
        schema=e.schema,
        owner=e.owner,
        defn=e.defn,
        drop=e.drop,
        deps=e.deps,
        table_am=e.table_am,
        relkind=e.relkind,
        catalog=int(e.table_oid or 0),
        oid=int(e.oid or 0),
    )


def _with_subjects(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Fill `subject`: what a comment, label or privilege belongs to is what it depends on."""
    known: dict[int, str] = {}
    done: list[Entry] = []
    for entry in entries:
        known[entry.dump_id] = entry.desc
        if entry.desc in ("COMMENT", "SECURITY LABEL", "ACL"):
            subjects = [known[d] for d in entry.deps if d in known]
            done.append(replace(entry, subject=subjects[0] if subjects else entry.tag.split(" ", 1)[0]))
        else:
            done.append(entry)
    return tuple(done)
