"""The database of the vectors `v1-layers`, the rows that it held at each snapshot, and the form they are kept in.

Expected rows are COPY text, sorted, as the server itself printed them at the time: one xz file per table.
"""

import lzma
from pathlib import Path

import psycopg

# Text travels as text (inet, ranges), the rest in binary form; `ranged` is longer than two ranges of 512 pages.
SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'so-so', 'happy');
CREATE TABLE letters (id int, place inet, span int4range, note text);
INSERT INTO letters SELECT n, '10.0.0.1', int4range(n, n + 2), E'tab\t\\\\ 🎧' || repeat('letter ', 30)
FROM generate_series(1, 2000) n;
CREATE TABLE quiet (id int, net cidr, note text);
INSERT INTO quiet SELECT n, '10.0.0.0/8', repeat('quiet ', 40) FROM generate_series(1, 2000) n;
CREATE TABLE grown (id int, note text);
INSERT INTO grown SELECT n, repeat('grown ', 40) FROM generate_series(1, 2000) n;
CREATE TABLE numbers (
    id int8, yes bool, two int2, four int4, half float8, third float4, amount numeric, short numeric(12, 3), mood mood,
    note text, code varchar(20), fixed char(8), raw bytea, one uuid, day date, at timestamp, zoned timestamptz,
    doc json, docb jsonb, twice int GENERATED ALWAYS AS (four * 2) STORED
);
INSERT INTO numbers SELECT n, n % 2 = 0, n % 100 - 50, 7 - n % 50,
    n % 50 / 2.0, n % 50 / 4.0, (n % 50 - 25) * 100000.0001, n % 50 / -8.0,
    (enum_range(NULL::mood))[1 + n % 3], CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE E'a\tb\nc\\\\ é' END
    || repeat('x', 60), 'code ' || n % 10, 'ab', decode('00ff0a5c', 'hex'), '00000000-0000-4000-8000-00000000000a',
    date '2000-02-29' + n % 5, timestamp '1999-12-31 23:59:59.5' + n % 5 * interval '1 hour',
    timestamptz '2026-03-29 00:59:59.000001+00' + n % 3 * interval '1 day', '{"a": [1, null]}', '{"b": "\\u00e9\\n"}'
FROM generate_series(1, 2000) n;
INSERT INTO numbers (id, amount, day, at, zoned) VALUES
    (-1, 'NaN', 'infinity', '-infinity', 'infinity'), (-2, 0, NULL, NULL, NULL),
    (-3, 12345678901234567890.000000000000, NULL, NULL, NULL),
    (-4, 0.000012, '0044-03-15 BC', '0001-01-01 00:00:00 BC', NULL), (-5, 'Infinity', '9999-12-31', NULL, NULL);
CREATE TABLE ranged (id int, filler text) WITH (fillfactor = 90);
ALTER TABLE ranged ALTER filler SET STORAGE PLAIN;
INSERT INTO ranged SELECT n, repeat('r', 1700) FROM generate_series(1, 4600) n;
CREATE TABLE small (id int, note text);
INSERT INTO small VALUES (1, 'one'), (2, 'two');
CREATE TABLE empty ();
INSERT INTO empty DEFAULT VALUES;
SELECT lo_from_bytea(4711, 'a large object');
"""

# The first snapshot has this alone beside them; the prune takes the snapshot and marks what only it needed.
EARLY = "CREATE TABLE early AS SELECT n AS id, repeat('early ', 20) AS note FROM generate_series(1, 3000) n"

# Few rows of each change, so that they become layers; a whole range of `ranged` is emptied; `small` is read whole.
CHANGES = """
UPDATE letters SET note = 'updated ' || id WHERE id % 20 = 0;
DELETE FROM letters WHERE id % 50 = 7;
INSERT INTO letters SELECT n, NULL, 'empty', E'new\n' || n FROM generate_series(2001, 2100) n;
INSERT INTO grown SELECT n, NULL FROM generate_series(2001, 2010) n;
UPDATE numbers SET note = NULL, amount = amount + 0.5, yes = NULL WHERE id % 25 = 0;
DELETE FROM numbers WHERE id % 40 = 3 OR id = -2;
INSERT INTO numbers (id, mood, raw, doc) VALUES (5001, 'so-so', '', '[]'), (5002, NULL, NULL, NULL);
DELETE FROM ranged WHERE ctid >= '(512,0)' AND ctid < '(1024,0)';
DELETE FROM ranged WHERE id IN (1, 5, 4600);
UPDATE ranged SET filler = 'updated' WHERE id BETWEEN 20 AND 25;
UPDATE small SET note = 'three' WHERE id = 2;
"""

# The last one drops rows of layers that had dropped rows already, and rows of a layer that was new the last time.
MORE_CHANGES = """
DELETE FROM letters WHERE id % 50 = 8 OR id IN (20, 2001);
UPDATE numbers SET note = 'again' WHERE id % 100 = 0;
DELETE FROM numbers WHERE id = 5002;
"""

COPY_SETTINGS = """
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 3;
SET bytea_output = 'hex'; SET search_path = '';
"""


def rows_of(url: str) -> dict[str, list[bytes]]:
    """Per table: the lines of its COPY text, sorted."""
    found = {}
    with psycopg.connect(url) as connection:
        connection.execute(COPY_SETTINGS)
        query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        for (name,) in connection.execute(query).fetchall():
            with connection.cursor().copy(f'COPY public."{name}" TO STDOUT') as rows:
                found[str(name)] = sorted(b"".join(map(bytes, rows)).splitlines(keepends=True))
    return found


def keep(folder: Path, rows: dict[str, list[bytes]]) -> None:
    """One xz file per table."""
    folder.mkdir(parents=True)
    for name, lines in rows.items():
        (folder / f"{name}.xz").write_bytes(lzma.compress(b"".join(lines)))


def kept(folder: Path) -> dict[str, list[bytes]]:
    """The inverse."""
    return {
        path.name.removesuffix(".xz"): lzma.decompress(path.read_bytes()).splitlines(keepends=True)
        for path in folder.iterdir()
    }
