"""What no logical backup of this data can go below: two sessions of psql that read every row as binary COPY, the
cheapest format there is, and throw it away; and the same with zstd at its level 1 behind, which stores nothing either.

Nothing is locked, looked at, sealed, hashed or written here, so it is no contestant: it is the limit of the goals.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
from benchmarks.measure import Cost, run
from benchmarks.peers import tool

READ = "floor: every row as binary COPY, thrown away"
PACKED = "floor: the same, through zstd -1"
SESSIONS = 2
# In one go; larger tables are divided among the sessions.
_LARGE_PAGES = 4096
_TABLES = """
SELECT c.oid::regclass::text, pg_relation_size(c.oid) / current_setting('block_size')::int FROM pg_class c
WHERE relkind = 'r' AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema') ORDER BY 2 DESC, 1
"""


def scripts(url: str) -> list[str]:
    """For each session its COPYs."""
    made: list[list[str]] = [[] for _ in range(SESSIONS)]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = ''")
        for number, (table, pages) in enumerate(connection.execute(_TABLES).fetchall()):
            if pages < _LARGE_PAGES:
                made[number % SESSIONS].append(f"COPY {table} TO STDOUT (FORMAT binary);")
                continue
            bounds = [pages * part // SESSIONS for part in range(1, SESSIONS)]
            for part, (start, end) in enumerate(zip([0, *bounds], [*bounds, 1 << 31], strict=True)):
                where = f"ctid >= '({start},0)' AND ctid < '({end},0)'"
                made[part].append(f"COPY (SELECT * FROM ONLY {table} WHERE {where}) TO STDOUT (FORMAT binary);")
    return ["\n".join(script) for script in made]


def floor(url: str, statements: Sequence[str], server_cpu: Callable[[], float], *, packed: bool) -> Cost:
    """One run of all sessions at once. Raises Wrong when one fails."""
    after = "| zstd -q -1 -c " if packed else ""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.sql" for number in range(len(statements))]
        for file, script in zip(files, statements, strict=True):
            file.write_text(script)
        each = f'"$0" -Xq -v ON_ERROR_STOP=1 -f "$file" "$1" {after}> /dev/null & running+=($!)'
        wait = 'for one in "${running[@]}"; do wait "$one"; done'
        script = f'set -eo pipefail; running=(); for file in "${{@:2}}"; do {each}; done; {wait}'
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        return run(["bash", "-c", script, tool("psql"), url, *map(str, files)], server_cpu=server_cpu, env=env)
