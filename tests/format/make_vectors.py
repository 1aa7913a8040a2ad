"""Makes the stored test vectors: a small real backup by the product of its day, kept for ever.

python -m tests.format.make_vectors 1     (writes tests/format/v1/; never run again for a version that was released)
"""

import shutil
import sys
from pathlib import Path

import psycopg
from tests.support.cli import Desk
from tests.support.servers import server, stop_all

SQL = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE "odd ""name\t" (id int PRIMARY KEY, mood mood, note text);
INSERT INTO "odd ""name\t"
SELECT n, (enum_range(NULL::mood))[1 + n % 2], CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE E'tab\tn\\n🎧 ' || n END
FROM generate_series(1, 50) n;
CREATE TABLE empty ();
INSERT INTO empty DEFAULT VALUES;
SELECT lo_from_bytea(4711, 'a large object');
"""


def main() -> None:
    """Into tests/format/v<N>/."""
    folder = Path(__file__).parent / f"v{sys.argv[1]}"
    if folder.exists():
        sys.exit(f"{folder} exists: stored vectors are never made again")
    try:
        url = server(15).create_database("vectors")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SQL)
        desk = Desk(folder)
        desk.run("init").expect()
        desk.run("backup", env={"DATABASE_URL": url}).expect()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE later (id int); INSERT INTO later VALUES (1)")
        desk.run("backup", env={"DATABASE_URL": url}).expect()
        shutil.rmtree(folder / ".cache", ignore_errors=True)
    finally:
        stop_all()


if __name__ == "__main__":
    main()
