"""What a database holds by plain COPY, and what a snapshot of it holds by `pgkura export`.

Shares nothing with the product's reading: own catalog queries, psycopg, whole tables, sorted lines. Each line comes
with its tuple's identity (TID and xmin), from which history_models.py plays the incremental backup itself.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import zstandard
from psycopg.sql import SQL, Identifier
from tests.support.compare import PINNED

from pgkura.core.progress import Silent
from pgkura.operations.export import export
from pgkura.repository.repository import Repository
from pgkura.snapshot.taken import Taken

Connection = psycopg.Connection[tuple[Any, ...]]
_SHOWN = 6


class HistoryFailed(AssertionError):
    """A snapshot is not what a full read gave. Its message holds the seed and the story."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuple:
    """One visible row version: where it lies, who wrote it (raw 32-bit xmin), and its line of COPY text."""

    tid: str
    xmin: int
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSeen:
    """One table at one moment.

    `shape` is everything besides its tuples on which its text depends; where that can be any name in the database
    (reg* types, also inside arrays, domains and row types), `by_name`.
    """

    oid: int
    filenode: int
    columns: str
    shape: str
    by_name: bool
    tuples: tuple[Tuple, ...]

    @property
    def lines(self) -> Counter[bytes]:
        """Its rows as a multiset."""
        return Counter(t.line for t in self.tuples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """All tables at one moment, by quoted name."""

    system: int
    timeline: int
    xmin: int
    xmax: int
    running: frozenset[int]
    lsn: int
    started: str
    tables: dict[str, TableSeen]
    blobs: dict[int, bytes]

    @property
    def contents(self) -> dict[str, tuple[str, Counter[bytes]]]:
        """Columns and rows only: what must be equal between two readings."""
        return {name: (t.columns, t.lines) for name, t in self.tables.items()}


_TABLES = """
WITH RECURSIVE inside (root, type) AS (
  SELECT oid, oid FROM pg_type
  UNION SELECT i.root, x.type FROM inside i JOIN pg_type t ON t.oid = i.type LEFT JOIN pg_range r ON r.rngtypid = t.oid,
  LATERAL (SELECT unnest(ARRAY[t.typelem, t.typbasetype, r.rngsubtype]) UNION ALL
           SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
          ) x (type) WHERE x.type <> 0
)
SELECT c.oid::int8, pg_relation_filenode(c.oid)::int8, n.nspname, c.relname,
       array(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND a.attgenerated = '' ORDER BY a.attnum),
       (SELECT string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped,
                                    a.attmissingval::text), ',' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
       EXISTS (SELECT FROM pg_attribute a JOIN inside i ON i.root = a.atttypid JOIN pg_type t ON t.oid = i.type
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND (t.typname ~ '^reg' OR t.typname = 'aclitem')
               AND t.typnamespace = 'pg_catalog'::regnamespace)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1
"""
# Labels and members of every type of users: coarse on purpose, one change reads everything again.
_TYPES = """
SELECT concat((SELECT string_agg(concat_ws(' ', e.enumtypid, e.enumlabel), ',' ORDER BY e.oid) FROM pg_enum e),
 (SELECT string_agg(concat_ws(' ', c.reltype, a.attnum, a.atttypid, a.attisdropped), ',' ORDER BY c.oid, a.attnum)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE c.relkind IN ('c', 'r') AND a.attnum > 0 AND c.oid >= 16384))
"""
# The timeline of now: pg_control_checkpoint() tells the old one until the first checkpoint after a promotion.
_MOMENT = """
SELECT (SELECT system_identifier FROM pg_control_system()),
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8,
       pg_snapshot_xmin(s)::text::int8, pg_snapshot_xmax(s)::text::int8,
       array(SELECT x::text::int8 FROM pg_snapshot_xip(s) x),
       (pg_current_wal_insert_lsn() - '0/0')::int8, pg_postmaster_start_time()::text
FROM pg_current_snapshot() s
"""


def read_moment(url: str, *, by_name: bool = False) -> Moment:
    """Everything, in one REPEATABLE READ transaction.

    by_name  columns in the order of their names: pg_dump does not keep the order of an inherited column added later
    """
    with psycopg.connect(url, options=PINNED, application_name="oracle") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        system, timeline, xmin, xmax, running, lsn, started = connection.execute(_MOMENT).fetchall()[0]
        types = str(connection.execute(_TYPES).fetchall()[0][0])
        tables = {
            Identifier(schema, name).as_string(connection): TableSeen(
                oid=oid,
                filenode=filenode,
                columns="(" + ", ".join(Identifier(c).as_string(connection) for c in columns) + ")",
                shape=f"{shape}|{types}",
                by_name=named,
                tuples=tuple(_tuples(connection, Identifier(schema, name), columns)),
            )
            for oid, filenode, schema, name, given, shape, named in connection.execute(_TABLES).fetchall()
            for columns in [sorted(given) if by_name else given]
        }
        found = connection.execute("SELECT m.oid::int8, lo_get(m.oid) FROM pg_largeobject_metadata m").fetchall()
        connection.rollback()
    return Moment(
        system=system, timeline=timeline, xmin=xmin, xmax=xmax, running=frozenset(running), lsn=lsn, started=started,
        tables=tables, blobs={int(oid): bytes(data) for oid, data in found},
    )  # fmt: skip


def is_flushed(url: str, moment: Moment) -> bool:
    """Whether a crash of now would keep everything that was seen at the moment."""
    with psycopg.connect(url) as connection:
        query = "SELECT (pg_current_wal_flush_lsn() - '0/0')::int8 >= %s"
        return bool(connection.execute(query, (moment.lsn,)).fetchall()[0][0])


def _tuples(connection: Connection, table: Identifier, columns: list[str]) -> Iterator[Tuple]:
    listed = SQL(", ").join(map(Identifier, ["ctid", "xmin", *columns]))
    with (
        connection.cursor() as cursor,
        cursor.copy(SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(listed, table)) as copy,
    ):
        for row in copy:
            tid, xmin, line = bytes(row).rstrip(b"\n").split(b"\t", 2)
            yield Tuple(tid=tid.decode(), xmin=int(xmin), line=line)


def read_snapshot(
    repo: Repository, taken: Taken, folder: Path
) -> tuple[dict[str, tuple[str, Counter[bytes]]], dict[int, bytes]]:
    """Rows and large objects of a snapshot, through the files that `pgkura export` writes for stock tools."""
    shutil.rmtree(folder, ignore_errors=True)
    export(repo, taken.manifest, folder, Silent())
    tables: dict[str, tuple[str, Counter[bytes]]] = {}
    blobs: dict[int, bytearray] = {}
    for line in (folder / "data" / "tables.tsv").read_text().splitlines()[1:]:
        stem, name, columns, rows, *_ = line.split("\t")
        blob = stem == "large_objects"
        lines = _packed(folder / "data" / f"{stem}.copy.zst") if blob else _loaded(folder / "data" / f"{stem}.sql")
        assert len(lines) == int(rows), f"{name}: {len(lines)} lines, {rows} rows in tables.tsv"
        if blob:
            for oid, _start, data in (row.split(b"\t") for row in lines):
                blobs.setdefault(int(oid), bytearray()).extend(bytes.fromhex(data.removeprefix(b"\\\\x").decode()))
        else:
            tables[name] = (columns, Counter(lines))
    shutil.rmtree(folder)
    return tables, {oid: bytes(data) for oid, data in blobs.items()}


def _loaded(path: Path) -> list[bytes]:
    """The lines between COPY and its end, as psql would send them."""
    if not path.exists():
        return []
    _, _, rest = path.read_bytes().partition(b"\nCOPY ")
    _, began, rest = rest.partition(b" FROM stdin;\n")
    rows, ended, _ = (b"\n" + rest).partition(b"\n\\.\n")
    assert began and ended, (path, path.read_bytes()[:200], path.read_bytes()[-300:], len(rest))
    return rows.split(b"\n")[1:]


def _packed(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    assert data.endswith(b"\n"), path
    return data.split(b"\n")[:-1]


def differences(
    want: dict[str, tuple[str, Counter[bytes]]], got: dict[str, tuple[str, Counter[bytes]]], what: str
) -> list[str]:
    """Readable lines, one or more per table that is not the same."""
    found = [
        f"{what}: table {name} only in {'the source' if name in want else what}" for name in want.keys() ^ got.keys()
    ]
    for name in sorted(want.keys() & got.keys()):
        (columns, rows), (their_columns, theirs) = want[name], got[name]
        if columns != their_columns:
            found.append(f"{what}: {name} has columns {their_columns}, the source {columns}")
        if rows != theirs:
            lost, extra = list((rows - theirs).elements()), list((theirs - rows).elements())
            found.append(f"{what}: {name}: {len(lost)} rows lost, {len(extra)} false")
            found += [f"    - {line[:120]!r}" for line in lost[:_SHOWN]]
            found += [f"    + {line[:120]!r}" for line in extra[:_SHOWN]]
    return found
