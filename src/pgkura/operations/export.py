"""`export`: a snapshot as the plan's files, for stock tools. Clear text: 0700 folders, 0600 files."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from pgkura.catalog.components import component_of
from pgkura.catalog.inventory import Items, read_items
from pgkura.catalog.platform import detect
from pgkura.catalog.render import definition, in_passes, ownership
from pgkura.catalog.toc import Entry, Toc, read_archive
from pgkura.catalog.unstated import unstated_privileges
from pgkura.core.errors import StoreError, StoreFull, UsageError
from pgkura.core.facts import SourceFacts, TableFacts
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding
from pgkura.core.platform import PLAIN as PLAIN_PLATFORM
from pgkura.core.progress import Progress
from pgkura.operations.export_texts import HOSTED, ORDER, PARTS, PLAIN, README, file_name, master
from pgkura.postgres.binary_text import copy_text
from pgkura.postgres.messages import BINARY_HEADER, BINARY_TRAILER
from pgkura.repository.lists import BLOBS, TableData
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository
from pgkura.snapshot.hosted import around_rows, hosted_scripts, is_loaded, is_platforms
from pgkura.snapshot.scripts import (
    HEADER,
    as_script,
    database_blocks,
    large_object_blocks,
    role_blocks,
    sequence_blocks,
    setting_blocks,
    view_blocks,
)

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
    "sequences": "sequences.sql",
    "other": "other.sql",
}
_SETTINGS = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written. `skipped` is what the snapshot itself lacks."""

    snapshot: str
    directory: Path
    result: str
    tables: int
    rows: int
    large_objects: int
    files: int
    bytes: int
    skipped: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result,
            "snapshot": self.snapshot,
            "directory": str(self.directory),
            "clear_text": True,
            "tables": self.tables,
            "rows": self.rows,
            "large_objects": self.large_objects,
            "files": self.files,
            "bytes": self.bytes,
            "skipped": [f.as_json() for f in self.skipped],
        }


def export(repo: Repository, manifest: Manifest, directory: Path, progress: Progress) -> Exported:
    """Write into a sibling and rename at the end: a folder of this name is whole.

    Raises UsageError unless `directory` is new or empty; StoreFull, StoreError, Tampered; then nothing is left.
    """
    repo.need_identity("an export")
    directory = directory.expanduser().absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(
            f"{directory} exists already", hint="name a new folder; an export is never mixed with other files"
        )
    progress.note(f"{directory} will hold CLEAR TEXT: every row and password hash; guard it, then delete it")
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    mask = os.umask(0o077)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "data").mkdir(parents=True)
        (unfinished / "parts").mkdir()
        exported = _Export(repo, manifest, unfinished, progress).write(directory)
        unfinished.rename(directory)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError):
            kind = StoreFull if error.errno == errno.ENOSPC else StoreError
            raise kind(f"cannot write {directory}", detail=error.strerror or str(error)) from error
        raise
    finally:
        os.umask(mask)
    return exported


class _Export:
    def __init__(self, repo: Repository, manifest: Manifest, folder: Path, progress: Progress) -> None:
        self._repo = repo
        self._manifest = manifest
        self._folder = folder
        self._progress = progress
        self._facts = SourceFacts.from_json(json.loads(repo.component(manifest, "facts")))
        self._toc = read_archive(repo.component(manifest, "archive"))
        # As the backup saw it: a platform whose administrator may not log in is gone (postgres/queries/facts.sql).
        names = (r.name for r in self._facts.roles if r.login or r.name != "supabase_admin")
        self._platform = detect(names, _schemas(self._toc))

    @property
    def _is_hosted(self) -> bool:
        return self._platform.name != "plain"

    def write(self, named: Path) -> Exported:
        """All files."""
        self._progress.stage("definitions")
        self._definitions()
        hosted_roles = HEADER + role_blocks(self._facts, self._platform)
        plain_roles = self._repo.component(self._manifest, "before.sql").decode()
        self._text("roles.sql", hosted_roles if self._is_hosted else plain_roles)
        words = {
            "id": self._manifest.id,
            "database": self._manifest.database,
            "kind": HOSTED if self._is_hosted else PLAIN,
        }
        self._text("README.txt", README.format(**words))
        self._text("restore-order.txt", ORDER)
        tables = list(self._repo.chunk_list(self._manifest))
        self._progress.stage("rows", total=sum(t.bytes for t in tables), unit="bytes")
        loaded = self._data(tables)
        self._text("load.sql", "".join(master(loaded)))
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        own = [t for t in tables if t.number != BLOBS]
        return Exported(
            snapshot=self._manifest.id,
            directory=named,
            result=self._manifest.result,
            tables=len(own),
            rows=sum(t.rows for t in own),
            large_objects=len(self._facts.large_objects),
            files=len(files),
            bytes=sum(path.stat().st_size for path in files),
            skipped=self._manifest.skipped,
        )

    def _text(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text, encoding="utf-8")

    # --- definitions

    def _definitions(self) -> None:
        entries = [e for e in self._toc.entries if e.desc not in _SETTINGS and e.subject != "DATABASE"]
        theirs = [e for e in entries if is_platforms(e, self._platform)]
        ours = [e for e in entries if not is_platforms(e, self._platform)]
        items = read_items(self._repo.component(self._manifest, "inventory"))
        more_privileges = "".join(unstated(items))
        parts = self._hosted(items) if self._is_hosted else self._plain(ours, more_privileges)
        for name, text in zip(PARTS, parts, strict=True):
            self._text(f"parts/{name}", text)
        more = {"permissions": more_privileges, "sequences": sequence_blocks(self._facts)}
        for component, name in _FILES.items():
            self._text(name, _sql(e for e in ours if component_of(e) == component) + more.get(component, ""))
        if theirs:
            self._text("platform.sql", _sql(theirs))

    def _plain(self, ours: Sequence[Entry], unstated: str) -> tuple[str, ...]:
        after = {e.dump_id for e in self._toc.after_rows()}
        before, early, _ = in_passes(e for e in ours if e.dump_id not in after)
        later, late, last = in_passes(e for e in ours if e.dump_id in after)
        matviews = [QualifiedName(e.schema, e.tag) for e in before if e.desc == "MATERIALIZED VIEW"]
        return (
            _sql(before),
            as_script(sequence_blocks(self._facts) + large_object_blocks(self._facts)),
            _sql(later),
            _sql((*early, *late)) + unstated,
            as_script(view_blocks(self._facts, matviews)),
            as_script(database_blocks(self._facts) + setting_blocks(self._facts, PLAIN_PLATFORM)),
            _sql(last),
        )

    def _hosted(self, items: Items) -> tuple[str, ...]:
        """Where refusals are expected, the verdict waits for the last part."""
        made = hosted_scripts(self._facts, self._toc, items, self._platform)
        texts = (made.definitions, made.values, made.after_rows, made.permissions, made.views, made.database)
        return (*(HEADER + text for text in texts), as_script(made.last))

    # --- rows

    def _data(self, tables: Sequence[TableData]) -> list[str]:
        """Both forms of all rows; returns the SQL files to load."""
        loaded = []
        with (self._folder / "data" / "tables.tsv").open("w", encoding="utf-8") as listed:
            listed.write("file\ttable\tcolumns\trows\tbytes\tformat\n")
            for table in tables:
                blobs = table.number == BLOBS
                form = "binary" if table.binary else "text"
                stem = "large_objects" if blobs else file_name(table.number, table.name)
                listed.write(f"{stem}\t{table.name}\t{table.columns or '-'}\t{table.rows}\t{table.bytes}\t{form}\n")
                if not table.layers:
                    continue
                self._table(table, stem)
                if blobs or is_loaded(self._facts.tables[table.number], self._platform):
                    loaded.append(f"{stem}.sql")
        return loaded

    def _table(self, table: TableData, stem: str) -> None:
        folder = self._folder / "data"
        compressor = zstandard.ZstdCompressor(level=3)
        with (
            (folder / f"{stem}.sql").open("wb") as plain,
            (folder / f"{stem}.copy.zst").open("wb") as packed,
            compressor.stream_writer(packed, closefd=False) as compressed,
        ):
            if table.number == BLOBS:
                plain.write(HEADER.encode() + b"\\o /dev/null\nBEGIN;\n")
                self._blobs(table, plain, compressed)
                plain.write(b"COMMIT;\n\\o\n")
                return
            before, after = self._around(table, self._facts.tables[table.number])
            plain.write(f"{HEADER}{before}COPY {table.target} {table.columns} FROM stdin;\n".encode())
            types = [c.type for c in self._facts.tables[table.number].listed(table.columns)]
            compressed.write(BINARY_HEADER if table.binary else b"")
            for layer in table.layers:
                rows = b"".join(self._repo.read_rows(layer))
                compressed.write(rows)
                if table.binary:
                    plain.writelines(copy_text(rows, self._repo.read_sizes(layer).tolist(), types))
                else:
                    plain.write(rows)
                self._progress.advance(layer.chunk.length)
            compressed.write(BINARY_TRAILER if table.binary else b"")
            plain.write(f"\\.\n{after}".encode())

    def _around(self, table: TableData, facts: TableFacts) -> tuple[str, str]:
        """What must happen before and after the COPY."""
        if facts.managed:
            return around_rows(facts)
        if facts.config_of:
            # Rows that CREATE EXTENSION put there itself; the condition is the extension's own.
            return f"DELETE FROM ONLY {table.target} {facts.config_where};\n", ""
        return "", ""

    def _blobs(self, table: TableData, plain: BinaryIO, compressed: Any) -> None:
        for layer in table.layers:
            rest = b""
            for piece in self._repo.read_chunk(layer.chunk):
                compressed.write(piece)
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    plain.write(_put_statement(line))
            self._progress.advance(layer.chunk.length)


def _put_statement(line: bytes) -> bytes:
    oid, start, data = line.split(b"\t")
    made = b"SELECT pg_catalog.lo_create(%s);\n" % oid if start == b"0" else b""
    # COPY text doubles the backslash of bytea's \x form.
    return made + b"SELECT pg_catalog.lo_put(%s, %s, '%s');\n" % (oid, start, data.removeprefix(b"\\"))


def _sql(entries: Iterable[Entry]) -> str:
    return HEADER + "".join(f"\n{definition(e)}{ownership(e)}" for e in entries)


def _schemas(toc: Toc) -> list[str]:
    return [e.tag for e in toc.entries if e.desc == "SCHEMA"]


def unstated(items: Items) -> Iterator[str]:
    """What no archive states, or not whole: privileges of range constructors, of parameters, on schema public."""
    # An archive states them relative to a default that differs between majors of server and pg_dump.
    public = items.get(("schema", "public"), {}).get("acl")
    if isinstance(public, list):
        yield "REVOKE ALL ON SCHEMA public FROM PUBLIC;\n"
        for grantee, _, privilege in (str(one).partition("=") for one in public):
            if grantee == "PUBLIC":
                yield f"GRANT {privilege.split('/')[0]} ON SCHEMA public TO PUBLIC;\n"
    for statement in unstated_privileges(items):
        yield f"{statement.sql};\n"
