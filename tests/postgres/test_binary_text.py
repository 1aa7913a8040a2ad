"""Binary rows as text: whatever the server sends in binary form reads back as the same value."""

import numpy as np
import psycopg
from tests.support.servers import server, versions

from pgkura.postgres.binary_text import copy_text
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect

TYPES = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "0", "32767"],
    "integer": ["-2147483648", "7"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["1.1", "-0.0", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "123456.79"],
    "double precision": ["0.1", "-0.0", "NaN", "-Infinity", "5e-324", "1.7976931348623157e308", "1e16"],
    "numeric": [
        "0", "0.00", "1", "-1.50", "10000", "100000000", "0.0001", "0.00001", "123456789.123456789", "NaN", "Infinity",
        "-Infinity", "1e-20", "1e40", "-0.12000", "9999.9999", "12345678901234567890123456789.1",
    ],
    "numeric(12,2)": ["1.5", "-99999.99"],
    "text": ["", "a\tb\nc\\d\re", "日本語 🗾", "\\N", "\\."],
    "character varying(20)": ["x", ""],
    "character(5)": ["ab", ""],
    "bytea": ["\\x", "\\x00ff5c"],
    "uuid": ["01234567-89ab-cdef-0123-456789abcdef"],
    "date": [
        "2000-01-01", "1999-12-31", "0001-01-01", "0001-12-31 BC", "4713-01-01 BC", "5874897-12-31", "infinity",
        "-infinity", "1900-02-28", "2000-02-29", "2024-12-31",
    ],
    "timestamp without time zone": [
        "2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "0044-03-15 12:00:00.1 BC", "294276-12-31 23:59:59.999999",
        "infinity", "-infinity",
    ],
    "timestamp with time zone": ["2026-11-25 20:38:00.000001+09", "0001-01-01 00:00:00+00 BC", "infinity"],
    "json": ['{"a": [1, 2.50], "b": "\\t"}'],
    "jsonb": ['{"a": [1, 2.50], "b": "\\t\\u0000x"}'.replace("\\u0000", "")],
    "t.mood": ["so so", "a\tb"],
}  # fmt: skip


def test_values_read_back_as_they_were() -> None:
    """Through binary COPY, our text, and COPY again: the same rows by the server's own comparison of their text."""
    url = server(versions()[-1]).create_database("binary_text")
    columns = ", ".join(f"c{i} {name}" for i, name in enumerate(TYPES))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA t")
        connection.execute("CREATE TYPE t.mood AS ENUM ('so so', E'a\tb')")
        for name in ("one", "two"):
            connection.execute(f"CREATE TABLE t.{name} ({columns})".encode())
        longest = max(map(len, TYPES.values()))
        for row in range(longest + 1):
            values = [texts[row] if row < len(texts) else None for texts in TYPES.values()]
            marks = ", ".join(f"%s::{name}" for name in TYPES)
            connection.execute(f"INSERT INTO t.one VALUES ({marks})".encode(), values)
        with connect(Endpoint.parse(url), application_name="test") as session:
            batches = list(session.copy_out("COPY t.one TO STDOUT WITH (FORMAT binary)", binary=True))
        data = b"".join(b.data for b in batches)
        sizes = [size for b in batches for size in b.sizes]
        assert len(sizes) == longest + 1 and sum(sizes) == len(data)
        with connection.cursor().copy("COPY t.two FROM STDIN") as copy:
            for line in copy_text(data, np.array(sizes).tolist(), list(TYPES)):
                copy.write(line)
        for way in ("EXCEPT ALL",):
            for a, b in (("one", "two"), ("two", "one")):
                shown = "(SELECT x::text FROM t.{} x)"
                query = f"{shown.format(a)} {way} {shown.format(b)}"
                assert connection.execute(query.encode()).fetchall() == []
