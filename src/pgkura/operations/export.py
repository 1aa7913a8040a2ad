"""`export`: a snapshot as the plan's files, for stock tools. Clear text: 0700 folder, 0600 files."""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from pgkura.catalog.components import component_of
from pgkura.catalog.render import definition, in_passes, ownership
from pgkura.catalog.toc import Entry, Toc, read_archive
from pgkura.core.errors import UsageError
from pgkura.core.progress import Progress
from pgkura.repository.lists import BLOBS, TableData
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository

# The plan's file for each component; what it does not name goes to other.sql.
_FILES = {
    "extensions": "extensions.sql",
    "types": "custom_types.sql",
    "schema": "schema.sql",
    "views": "views.sql",
    "functions": "functions.sql",
    "triggers": "triggers.sql",
    "indexes": "indexes.sql",
    "constraints": "constraints.sql",
    "rls": "rls_policies.sql",
    "permissions": "permissions.sql",
    "sequences": "sequence_definitions.sql",
    "other": "other.sql",
}
_HEADER = """SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = off;
SET search_path = '';
SET row_security = off;
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET TimeZone = 'UTC';
SET bytea_output = 'hex';
SET xmloption = 'content';
SET client_min_messages = warning;
SET statement_timeout = 0;
"""
_README = """This is snapshot {id} of database {database}, in CLEAR TEXT: every row, every password
hash. Guard it, then delete it.

Load all of it into a new, empty database with psql alone:

    psql -X -v ON_ERROR_STOP=1 -d postgresql://USER:PASSWORD@HOST:5432/DATABASE -f load.sql

The files named after kinds (schema.sql, functions.sql, …) are for reading and for taking parts. What depends on what
crosses kinds, so load.sql uses the same statements in the order of their dependencies, from parts/.
data/ holds each table twice: NAME.copy.zst (COPY text, zstd) and NAME.sql (for psql).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    snapshot: str
    directory: Path
    tables: int
    rows: int
    files: int

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": "ok",
            "snapshot": self.snapshot,
            "directory": str(self.directory),
            "tables": self.tables,
            "rows": self.rows,
            "files": self.files,
        }


def export(repo: Repository, manifest: Manifest, directory: Path, progress: Progress) -> Exported:
    """Write into a sibling and rename at the end: a folder of this name is whole. Raises UsageError if it exists."""
    directory = directory.expanduser().absolute()
    if directory.exists():
        raise UsageError(
            f"{directory} exists already", hint="name a new folder; an export is never mixed with other files"
        )
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    mask = os.umask(0o077)
    try:
        exported = _write(repo, manifest, unfinished, directory, progress)
        unfinished.rename(directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    finally:
        os.umask(mask)
    return exported


def _write(repo: Repository, manifest: Manifest, folder: Path, named: Path, progress: Progress) -> Exported:
    (folder / "data").mkdir(parents=True)
    (folder / "parts").mkdir()
    toc = read_archive(repo.component(manifest, "archive"))
    progress.stage("definitions")
    _definitions(folder, toc)
    (folder / "roles.sql").write_bytes(repo.component(manifest, "before.sql"))
    (folder / "sequences.sql").write_bytes(repo.component(manifest, "after.sql"))
    (folder / "README.txt").write_text(_README.format(id=manifest.id, database=manifest.database))
    tables = list(repo.chunk_list(manifest))
    progress.stage("rows", total=sum(t.bytes for t in tables), unit="bytes")
    data = [_table(repo, folder / "data", table, progress) for table in tables if table.chunks]
    (folder / "load.sql").write_text("".join(_master(data)))
    return Exported(
        snapshot=manifest.id,
        directory=named,
        tables=len(data),
        rows=sum(t.rows for t in tables),
        files=sum(1 for path in folder.rglob("*") if path.is_file()),
    )


def _master(data: Iterable[str]) -> Iterator[str]:
    yield "\\set ON_ERROR_STOP on\n"
    yield "\\ir roles.sql\n\\ir parts/1-definitions.sql\n"
    for name in data:
        yield f"\\ir data/{name}\n"
    yield "\\ir parts/2-after-rows.sql\n\\ir sequences.sql\n"
    yield "\\ir parts/3-permissions.sql\n\\ir parts/4-event-triggers.sql\n"
    # Statistics alone: a type of the database whose own analysis fails costs no data and is shown as the error it is.
    yield "\\set ON_ERROR_STOP off\nANALYZE;\n"


def _definitions(folder: Path, toc: Toc) -> None:
    before, privileges_a, _ = in_passes(_wanted(toc.before_rows()))
    after, privileges_b, last = in_passes(_wanted(toc.after_rows()))
    parts = {
        "1-definitions.sql": before,
        "2-after-rows.sql": after,
        "3-permissions.sql": [*privileges_a, *privileges_b],
        "4-event-triggers.sql": last,
    }
    for name, entries in parts.items():
        (folder / "parts" / name).write_text(_HEADER + "".join(_sql(e) for e in entries))
    grouped: dict[str, list[Entry]] = {name: [] for name in _FILES}
    for entry in _wanted(toc.entries):
        grouped[component_of(entry)].append(entry)
    for component, name in _FILES.items():
        (folder / name).write_text(_HEADER + "".join(_sql(e) for e in grouped[component]))


def _wanted(entries: Iterable[Entry]) -> list[Entry]:
    settings = ("ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES")
    return [e for e in entries if e.desc not in settings and e.subject != "DATABASE"]


def _sql(entry: Entry) -> str:
    return f"\n{definition(entry)}{ownership(entry)}"


def _table(repo: Repository, folder: Path, table: TableData, progress: Progress) -> str:
    """Both forms of one table's rows; returns the name of the SQL file."""
    blobs = table.number == BLOBS
    stem = "large_objects" if blobs else f"{table.number:05d}-{_file_name(table.name)}"
    with (folder / f"{stem}.sql").open("wb") as plain, (folder / f"{stem}.copy.zst").open("wb") as packed:
        compressor = zstandard.ZstdCompressor(level=3).stream_writer(packed, closefd=False)
        with compressor:
            if not blobs:
                plain.write(f"{_HEADER}COPY {table.target} {table.columns} FROM stdin;\n".encode())
            else:
                plain.write(_HEADER.encode() + b"\\o /dev/null\nBEGIN;\n")
            for piece in _rows(repo, table, progress):
                compressor.write(piece)
                plain.write(b"".join(_put_statements(piece)) if blobs else piece)
            plain.write(b"COMMIT;\n\\o\n" if blobs else b"\\.\n")
    return f"{stem}.sql"


def _rows(repo: Repository, table: TableData, progress: Progress) -> Iterator[bytes]:
    """Whole rows per piece."""
    for ref in table.chunks:
        rest = b""
        for piece in repo.read_chunk(ref):
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            if newline:
                yield whole + newline
        progress.advance(ref.length)


def _put_statements(piece: bytes) -> Iterator[bytes]:
    for line in piece.splitlines():
        oid, start, data = line.split(b"\t")
        if start == b"0":
            yield b"SELECT pg_catalog.lo_create(%s);\n" % oid
        yield b"SELECT pg_catalog.lo_put(%s, %s, '%s');\n" % (oid, start, data.removeprefix(b"\\"))


def _file_name(name: str) -> str:
    return "".join(ch if ch.isalnum() or ch in "._-" else "_" for ch in name)[:80]
