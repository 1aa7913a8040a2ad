"""The independent comparison of two databases: shares no code with src/, only pg_dump, pg_dumpall and COPY.

Schema by pg_dump of both sides with the same client, entry by entry; rows by a multiset hash of COPY text; sequences,
large objects, database properties and materialized views by queries of its own; roles by pg_dumpall when the two
databases live in different clusters.
"""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier
from tests.support.psql import client, run_program

SECTIONS = ("schema", "rows", "sequences", "large objects", "materialized views", "database", "roles")
PINNED = (
    "-c row_security=off -c search_path= -c TimeZone=UTC -c DateStyle=ISO,YMD -c IntervalStyle=postgres "
    "-c extra_float_digits=3 -c bytea_output=hex -c lc_monetary=C -c client_encoding=UTF8 -c statement_timeout=0 "
    "-c lock_timeout=0 -c xmloption=content -c quote_all_identifiers=off"
)
# a database may set these, and pg_dump prints DDL by them
PINNED_DDL = (
    "-c quote_all_identifiers=off -c TimeZone=UTC -c xmlbinary=base64 -c standard_conforming_strings=on "
    "-c statement_timeout=0"
)
_HEADER = re.compile(r"^--\n-- Name: (.*)\n--\n\n", re.MULTILINE)
_NOISE = re.compile(r"^(\\(un)?restrict .*|-- Dumped (from|by) .*|-- Started on .*|-- Completed on .*)\n", re.MULTILINE)
_METHOD = re.compile(r"^SET default_(?:table_access_method|tablespace) = (.*);\n\n?", re.MULTILINE)
_AS_OTHER = re.compile(r"SET SESSION AUTHORIZATION .*?RESET SESSION AUTHORIZATION;\n|[^\n]*;\n", re.DOTALL)
_POLICY_ROLES = re.compile(r" TO ([^()]*?)( USING | WITH CHECK |;)")
_SHOWN_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same: `where` names it, `what` shows both sides."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"* {self.where}\n{self.what}"


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's rows as a multiset: their number and the sum of their hashes."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A stated exception: what `pattern` finds in entries whose header `where` finds is replaced, on both sides."""

    where: str
    pattern: str
    by: str = ""


def assert_same(
    source_url: str,
    target_url: str,
    *,
    ignore: Sequence[str] = (),
    rewrite: Sequence[Rewrite] = (),
    sections: Sequence[str] = SECTIONS,
) -> None:
    """Fail with a readable list unless both databases are the same.

    ignore   regular expressions searched in "where" and "what" of a difference, each a stated exception of the test
    rewrite  stated exceptions within entries of the schema, and within the statements of roles (`where` is "roles")
    """
    found = [
        d
        for d in differences(source_url, target_url, sections=sections, rewrite=rewrite)
        if not any(re.search(pattern, f"{d.where}\n{d.what}") for pattern in ignore)
    ]
    assert not found, f"{len(found)} differences:\n" + "\n".join(str(d) for d in found)[:20000]


def differences(
    source_url: str, target_url: str, *, sections: Sequence[str] = SECTIONS, rewrite: Sequence[Rewrite] = ()
) -> list[Difference]:
    """All differences, section by section."""
    unknown = set(sections) - set(SECTIONS)
    assert not unknown, unknown
    found: list[Difference] = []
    major = max(_major(source_url), _major(target_url))
    if "schema" in sections:
        found += _entries_differ(
            _rewritten(schema_entries(source_url, major), rewrite),
            _rewritten(schema_entries(target_url, major), rewrite),
        )
    if "rows" in sections:
        found += _rows_differ(source_url, target_url)
    queries = {"sequences": sequences, "large objects": large_objects, "materialized views": populated}
    for section, read in queries.items():
        if section in sections:
            found += _maps_differ(section, read(source_url), read(target_url))
    if "database" in sections:
        found += _maps_differ("database", database_properties(source_url), database_properties(target_url))
    if "roles" in sections and _cluster(source_url) != _cluster(target_url):
        ours, theirs = (_rewritten_roles(roles(url, major), rewrite) for url in (source_url, target_url))
        found += [Difference("roles", f"  only in source: {line}") for line in (ours - theirs).elements()]
        found += [Difference("roles", f"  only in target: {line}") for line in (theirs - ours).elements()]
    return found


def _rewritten(entries: dict[str, list[str]], rewrite: Sequence[Rewrite]) -> dict[str, list[str]]:
    def one(header: str, body: str) -> str:
        for rule in rewrite:
            if re.search(rule.where, header):
                body = re.sub(rule.pattern, rule.by, body)
        # Statements that grant are sorted by their text, which may be another now.
        return "".join(sorted(_AS_OTHER.findall(body))) if "Type: ACL" in header else body

    return {header: [one(header, body) for body in bodies] for header, bodies in entries.items()}


def _rewritten_roles(lines: Counter[str], rewrite: Sequence[Rewrite]) -> Counter[str]:
    made: Counter[str] = Counter()
    for line, times in lines.items():
        for rule in rewrite:
            if rule.where == "roles":
                line = re.sub(rule.pattern, rule.by, line)
        made[line] += times
    return made


# --- schema ----------------------------------------------------------------------------------------------------------


def schema_dump(url: str, major: int | None = None) -> str:
    """pg_dump --schema-only without the lines that differ on every run."""
    program = client("pg_dump", major or _major(url))
    return _NOISE.sub("", run_program([str(program), "--schema-only", "-d", url], options=PINNED_DDL).stdout)


def schema_entries(url: str, major: int | None = None) -> dict[str, list[str]]:
    """The entries of `schema_dump` by header; the order of entries, which follows OIDs in places, does not count.

    Nor does the order of statements in an entry that grants (that of an array), nor that of the columns of a child
    table (pg_dump cannot keep it after ALTER TABLE … INHERIT; PostgreSQL's own upgrade test says the same).
    """
    pieces = _HEADER.split(schema_dump(url, major))
    entries: dict[str, list[str]] = {}
    method = ""
    for header, body in zip(["preamble", *pieces[1::2]], pieces[::2], strict=True):
        text = _METHOD.sub("", body)
        if "Type: ACL" in header or "Type: DEFAULT ACL" in header:
            text = "".join(sorted(_AS_OTHER.findall(text)))
        if "Type: POLICY;" in header:
            # the order of its roles is that of their OIDs
            text = _POLICY_ROLES.sub(lambda m: " TO " + ", ".join(sorted(m[1].split(", "))) + m[2], text)
        if "Type: TABLE;" in header or "Type: MATERIALIZED VIEW;" in header:
            text = _columns_by_name(text) + f"-- settings before: {method}\n"
        entries.setdefault(header, []).append(text.strip() + "\n")
        for setting in _METHOD.finditer(body):
            method = setting.group(0).strip()
    return {header: sorted(bodies) for header, bodies in entries.items()}


def _columns_by_name(table: str) -> str:
    head, opened, rest = table.partition("(\n")
    columns, closed, tail = rest.partition("\n)")
    if not (opened and closed and tail.lstrip().startswith("INHERITS")):
        return table
    return head + opened + "\n".join(sorted(line.rstrip(",") for line in columns.split("\n"))) + closed + tail


def _entries_differ(source: dict[str, list[str]], target: dict[str, list[str]]) -> Iterator[Difference]:
    for header in sorted(source.keys() | target.keys()):
        ours, theirs = source.get(header, []), target.get(header, [])
        if ours != theirs:
            lines = difflib.unified_diff(
                "".join(ours).splitlines(), "".join(theirs).splitlines(), "source", "target", lineterm="", n=1
            )
            yield Difference(f"schema: {header}", "\n".join(f"    {line}" for line in lines))


def roles(url: str, major: int | None = None) -> Counter[str]:
    """The statements of pg_dumpall --roles-only."""
    program = client("pg_dumpall", major or _major(url))
    text = _NOISE.sub("", run_program([str(program), "--roles-only", "-d", url], options=PINNED_DDL).stdout)
    return Counter(line for line in text.splitlines() if line and not line.startswith(("--", "SET ")))


# --- rows ------------------------------------------------------------------------------------------------------------


def checksums(url: str) -> dict[str, Rows]:
    """The rows of every table of users: heap tables by themselves, partitioned ones as the sum of their leaves."""
    with _connect(url) as connection:
        return {name: _sum(connection, queries) for name, queries in _tables(connection)}


def _rows_differ(source_url: str, target_url: str) -> Iterator[Difference]:
    with _connect(source_url) as source, _connect(target_url) as target:
        ours, theirs = dict(_tables(source)), dict(_tables(target))
        for name in sorted(ours.keys() | theirs.keys()):
            if name not in ours or name not in theirs:
                yield Difference(f"rows: {name}", f"    only in {'target' if name not in ours else 'source'}")
                continue
            left, right = _sum(source, ours[name]), _sum(target, theirs[name])
            if left != right:
                shown = _row_diff(source, ours[name], target, theirs[name]) if left.count <= _SHOWN_ROWS else ""
                yield Difference(f"rows: {name}", f"    source {left}\n    target {right}\n{shown}")


def _tables(connection: psycopg.Connection[tuple[Any, ...]]) -> Iterator[tuple[str, list[Composed]]]:
    """Printed name and row queries of each table; virtual columns are left out, since reading them runs code.

    Columns go by name: pg_dump itself does not keep the order of a child's columns (ALTER TABLE … INHERIT).
    A partitioned table is the sum of its leaves, so that the leaf a row lies in does not count; foreign leaves are
    somebody else's rows. Plain COPY where it can be: planning a SELECT runs functions in predicates of indexes.
    """
    found = connection.execute(
        """
        SELECT n.nspname, c.relname, c.relkind,
               array(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
                     ORDER BY a.attname),
               EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 's'),
               array(SELECT l.oid::pg_catalog.regclass::text FROM pg_catalog.pg_partition_tree(c.oid) t
                     JOIN pg_catalog.pg_class l ON l.oid = t.relid WHERE t.isleaf AND l.relkind = 'r' ORDER BY 1)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE (c.relkind IN ('r', 'p') AND NOT c.relispartition OR c.relkind = 'm' AND c.relispopulated)
          AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
        ORDER BY 1, 2
        """
    ).fetchall()
    for schema, table, kind, columns, generated, leaves in found:
        listed = SQL(", ").join(Identifier(c) for c in columns)
        name = Identifier(schema, table)
        # regclass prints every name qualified and quoted under the empty search_path, fit to be used as SQL
        sources: list[Composable] = [SQL(leaf) for leaf in leaves] if kind == "p" else [name]
        if kind == "m" or generated or not columns:
            only = SQL("" if kind == "m" else "ONLY ")
            queries = [SQL("COPY (SELECT {} FROM {}{}) TO STDOUT").format(listed, only, s) for s in sources]
        else:
            queries = [SQL("COPY {} ({}) TO STDOUT").format(s, listed) for s in sources]
        yield name.as_string(connection), queries


def _lines(connection: psycopg.Connection[tuple[Any, ...]], queries: Sequence[Composed]) -> Iterator[bytes]:
    for query in queries:
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            for data in copy:
                yield bytes(data)


def _sum(connection: psycopg.Connection[tuple[Any, ...]], queries: Sequence[Composed]) -> Rows:
    count, total = 0, 0
    for line in _lines(connection, queries):
        count += 1
        total += int.from_bytes(hashlib.sha256(line).digest(), "big")
    return Rows(count, f"{total % (1 << 256):064x}"[:32])


def _row_diff(
    source: psycopg.Connection[tuple[Any, ...]],
    ours: Sequence[Composed],
    target: psycopg.Connection[tuple[Any, ...]],
    theirs: Sequence[Composed],
) -> str:
    left, right = Counter(_lines(source, ours)), Counter(_lines(target, theirs))
    shown = [f"    - {line[:200]!r}" for line in list((left - right).elements())[:10]]
    return "\n".join(shown + [f"    + {line[:200]!r}" for line in list((right - left).elements())[:10]])


# --- what pg_dump of one database does not show ----------------------------------------------------------------------


def sequences(url: str) -> dict[str, str]:
    """Position of every sequence: last value and whether it was handed out."""
    with _connect(url) as connection:
        found = connection.execute(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
            "ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND c.relpersistence <> 't'"
        ).fetchall()
        positions = {}
        for schema, name in found:
            row = connection.execute(
                SQL("SELECT last_value, is_called FROM {}").format(Identifier(schema, name))
            ).fetchone()
            positions[Identifier(schema, name).as_string(connection)] = str(row)
        return positions


def large_objects(url: str) -> dict[str, str]:
    """Owner, grants, comment and hash of every large object."""
    return _read_map(
        url,
        "SELECT m.oid::text, pg_catalog.concat_ws(' ', pg_catalog.pg_get_userbyid(m.lomowner), "
        f"({_GRANTS.format('m.lomacl')}), "
        "pg_catalog.obj_description(m.oid, 'pg_largeobject'), pg_catalog.md5(pg_catalog.lo_get(m.oid))) "
        "FROM pg_catalog.pg_largeobject_metadata m",
    )


def populated(url: str) -> dict[str, str]:
    """Whether each materialized view holds rows."""
    return _read_map(
        url,
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relispopulated::text FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'",
    )


def database_properties(url: str) -> dict[str, str]:
    """Owner, grants, encoding, limit, comment and settings (also per role) of the database."""
    facts = _read_map(
        url,
        "SELECT f.key, f.value FROM pg_catalog.pg_database d, LATERAL (VALUES "
        "('owner', pg_catalog.pg_get_userbyid(d.datdba)::text), ('encoding', d.encoding::text), "
        "('collate', d.datcollate::text), ('ctype', d.datctype::text), ('limit', d.datconnlimit::text), "
        "('comment', pg_catalog.shobj_description(d.oid, 'pg_database')), "
        f"('grants', ({_GRANTS.format('d.datacl')}))) AS f (key, value) "
        "WHERE d.datname = pg_catalog.current_database()",
    )
    settings = _read_map(
        url,
        "SELECT 'settings of ' || coalesce(r.rolname, 'all'), "
        "(SELECT pg_catalog.string_agg(c, E'\\n' ORDER BY c) FROM pg_catalog.unnest(s.setconfig) c) "
        "FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase "
        "LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole WHERE d.datname = pg_catalog.current_database()",
    )
    return facts | settings


_GRANTS = (
    "SELECT pg_catalog.string_agg(pg_catalog.format('%s=%s%s/%s', coalesce(ge.rolname, 'PUBLIC'), a.privilege_type, "
    "CASE WHEN a.is_grantable THEN '*' END, gr.rolname), ', ' ORDER BY ge.rolname, a.privilege_type, gr.rolname) "
    "FROM pg_catalog.aclexplode({}) a LEFT JOIN pg_catalog.pg_roles ge ON ge.oid = a.grantee "
    "LEFT JOIN pg_catalog.pg_roles gr ON gr.oid = a.grantor"
)


def _maps_differ(section: str, source: dict[str, str], target: dict[str, str]) -> Iterator[Difference]:
    for key in sorted(source.keys() | target.keys()):
        ours, theirs = source.get(key, "(absent)"), target.get(key, "(absent)")
        if ours != theirs:
            yield Difference(f"{section}: {key}", f"    source {ours}\n    target {theirs}")


def _read_map(url: str, query: str) -> dict[str, str]:
    with _connect(url) as connection:
        return {str(key): str(value) for key, value in connection.execute(query.encode())}


def _connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(url, autocommit=True, options=PINNED)


def _major(url: str) -> int:
    with _connect(url) as connection:
        return connection.info.server_version // 10000


def _cluster(url: str) -> object:
    with _connect(url) as connection:
        row = connection.execute("SELECT system_identifier FROM pg_catalog.pg_control_system()").fetchone()
        return row[0] if row else None
