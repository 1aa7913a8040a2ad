"""Makes the stored test vectors: a small real backup by the product of its day, kept for ever.

python -m tests.format.make_vectors 1-layers   (format 2 lists: layers, states; a tombstone; rows expected beside it)
python -m tests.format.make_vectors 1-changes  (change logs: a bundle, parts, segments, a cut; expected beside it)
python -m tests.format.make_vectors 1-epochs   (two epochs, a person, a revoked host that made the first snapshot)
python -m tests.format.make_vectors 1     (writes tests/format/v1/; never run again for a version that was released)
"""

import shutil
import sys
from pathlib import Path

import psycopg
from tests.format import changed, layered
from tests.support.cli import Desk
from tests.support.servers import server, stop_all

from pgkura.repository.keys import new_identity

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


def first_epoch(desk: Desk, url: str) -> None:
    """The first snapshot by a second host, which is revoked; then a new epoch."""
    keys = desk.identity.parent
    desk.run("hosts", "add", "second", "--write", str(keys / "second.key")).expect()
    desk.run("backup", env={"DATABASE_URL": url, "PGKURA_HOST_KEY": str(keys / "second.key")}).expect()
    person = new_identity()
    added = desk.run("people", "add", "aiko", person.recipient, "--json").expect().json
    (keys / "person.txt").write_text(f"{added['identity_lines']}{person.secret}\n")
    desk.run("hosts", "revoke", "second").expect()
    desk.run("epoch", "new").expect()


def execute(url: str, sql: str) -> None:
    """In one transaction."""
    with psycopg.connect(url) as connection:
        connection.execute(sql)


def layers(folder: Path, url: str) -> None:
    """A snapshot that is pruned, and three that stay: whole, with layers, with layers of layers."""
    desk = Desk(folder)
    desk.run("init").expect()
    execute(url, layered.SETUP)
    execute(url, layered.EARLY)
    environment = {"DATABASE_URL": url}
    desk.run("backup", env=environment).expect()
    execute(url, "DROP TABLE early")
    for number, sql in enumerate(("", layered.CHANGES, layered.MORE_CHANGES)):
        if sql:
            execute(url, sql)
        made = desk.run("backup", "--json", env=environment).expect().json
        layered.keep(folder / "expected" / made["snapshot"], layered.rows_of(url))
        assert number == 0 or made["chunks_unchanged"], made
    desk.run("prune", "--keep-last", "3", "--yes").expect()


def main() -> None:
    """Into tests/format/v<N>/."""
    folder = Path(__file__).parent / f"v{sys.argv[1]}"
    if folder.exists():
        sys.exit(f"{folder} exists: stored vectors are never made again")
    try:
        url = server(15).create_database("vectors")
        if sys.argv[1].endswith("-layers"):
            layers(folder, url)
            return
        if sys.argv[1].endswith("-changes"):
            desk = Desk(folder)
            desk.run("init").expect()
            execute(url, changed.SETUP)
            changed.keep(folder / "expected", changed.make(desk, url))
            return
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SQL)
        desk = Desk(folder)
        desk.run("init").expect()
        if sys.argv[1].endswith("-epochs"):
            first_epoch(desk, url)
        else:
            desk.run("backup", env={"DATABASE_URL": url}).expect()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE later (id int); INSERT INTO later VALUES (1)")
        desk.run("backup", env={"DATABASE_URL": url}).expect()
    finally:
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        stop_all()


if __name__ == "__main__":
    main()
