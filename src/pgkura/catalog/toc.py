"""A pg_dump archive as structure: its table of contents, never its text split by patterns."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import IO

from pgdumplib import exceptions
from pgdumplib.dump import Dump
from pgdumplib.models import Entry as ArchiveEntry

from pgkura.catalog.kinds import KINDS, Section
from pgkura.core.errors import FormatTooNew, Tampered
from pgkura.core.scratch import new_scratch, scratch_path

_NEWEST = (1, 16)
_OLDEST = (1, 12)


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
        with new_scratch() as file:
            file.write(source)
            return read_archive(file)
    dump = Dump()
    try:
        dump.load(scratch_path(source))
    except (exceptions.PgDumpLibError, ValueError, IndexError, EOFError, KeyError, UnicodeDecodeError) as error:
        raise _unreadable(source, error) from error
    finally:
        _let_go(dump)
    if not _OLDEST <= tuple(dump.version[:2]) <= _NEWEST:
        raise FormatTooNew(f"a pg_dump archive of format {dump.version}", hint="use a newer pgkura")
    unknown = sorted({e.desc for e in dump.entries} - KINDS.keys())
    if unknown:
        raise FormatTooNew(
            f"the archive holds kinds of objects this program does not know: {', '.join(unknown)}",
            hint="use a newer pgkura; nothing is skipped silently",
        )
    return Toc(
        entries=_with_subjects(_entry(e) for e in dump.entries),
        dump_version=str(dump.dump_version),
        server_version=str(dump.server_version),
    )


def _let_go(dump: Dump) -> None:
    # The library keeps the file and a temporary folder until it is collected, and has no public way to end that.
    if dump._handle is not None:
        dump._handle.close()
    dump._temp_dir.cleanup()


def _unreadable(source: IO[bytes], error: Exception) -> Tampered | FormatTooNew:
    source.seek(0)
    head = source.read(7)
    if head[:5] == b"PGDMP" and tuple(head[5:7]) > _NEWEST:
        return FormatTooNew(f"a pg_dump archive of format {head[5]}.{head[6]}", hint="use a newer pgkura")
    return Tampered("this is no pg_dump archive", detail=f"{type(error).__name__}: {error}")


def _entry(e: ArchiveEntry) -> Entry:
    return Entry(
        dump_id=e.dump_id,
        desc=e.desc,
        tag=e.tag or "",
        schema=e.namespace or "",
        owner=e.owner or "",
        defn=e.defn or "",
        drop=e.drop_stmt or "",
        deps=tuple(e.dependencies),
        table_am=e.tableam or "",
        relkind=e.relkind or "",
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
