"""Every object of a database counted and compared with another's, by queries of our own and not the product's."""

import hashlib

import psycopg
from benchmarks.results import Wrong

_OURS = "nspname !~ '^(pg_|information_schema)'"
_RELATION = f"pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}"
_QUERIES = {
    "schemas": f"SELECT nspname FROM pg_namespace WHERE {_OURS}",
    "relations": f"SELECT relkind, nspname, relname, relpersistence FROM {_RELATION} AND relkind <> 'i'",
    "columns": "SELECT nspname, relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, "
    "pg_get_expr(adbin, adrelid) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid "
    "JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum "
    f"WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm', 'f') AND {_OURS}",
    "indexes": "SELECT pg_get_indexdef(indexrelid), indisvalid, indisready FROM pg_index i "
    f"JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}",
    "constraints": "SELECT nspname, conrelid::regclass, conname, pg_get_constraintdef(k.oid), convalidated "
    f"FROM pg_constraint k JOIN pg_namespace n ON n.oid = connamespace WHERE {_OURS}",
    "sequences": "SELECT schemaname, sequencename, last_value, increment_by FROM pg_sequences",
    "functions": f"SELECT nspname, proname, proargtypes::text FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace "
    f"WHERE {_OURS}",
    "triggers": "SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE NOT tgisinternal",
    "types": "SELECT nspname, typname, typtype FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace "
    f"WHERE {_OURS}",
    "policies": "SELECT schemaname, tablename, policyname, qual FROM pg_policies",
}
_TABLES = f"SELECT format('%I.%I', nspname, relname) FROM {_RELATION} AND relkind = 'r' ORDER BY 1"


def census(url: str) -> dict[str, tuple[int, str]]:
    """By kind: how many, and a digest of what they are; of rows, how many in each table."""
    found: dict[str, tuple[int, str]] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = ''")
        for kind, sql in _QUERIES.items():
            lines = sorted(repr(row) for row in connection.execute(sql.encode()).fetchall())
            found[kind] = (len(lines), _digest(lines))
        counts = []
        for (table,) in connection.execute(_TABLES.encode()).fetchall():
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
            assert row is not None
            counts.append((str(table), int(row[0])))
        found["rows"] = (sum(n for _, n in counts), _digest([f"{table} {n}" for table, n in counts]))
    return found


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def same(one: dict[str, tuple[int, str]], other: dict[str, tuple[int, str]], what: str) -> str:
    """A sentence that tells what was equal. Raises Wrong naming the kinds that differ."""
    wrong = [f"{kind}: {one[kind][0]} and {other[kind][0]}" for kind in one if one[kind] != other[kind]]
    if wrong:
        raise Wrong(f"{what} differ in {'; '.join(wrong)}")
    counts = ", ".join(f"{count:,} {kind}" for kind, (count, _) in one.items() if count)
    return f"{what}: equal in {counts}"
