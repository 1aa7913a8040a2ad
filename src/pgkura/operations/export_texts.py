"""The words that stand in an export: headers, the order of loading, what a person must know. Pure."""

from collections.abc import Iterator, Sequence

README = """This is snapshot {id} of database {database}, in CLEAR TEXT: every row, every password
hash, every secret in a function. Guard this folder, then delete it.

Load all of it into a new, empty database with psql alone (of the server's major version or newer):

    psql -X -v ON_ERROR_STOP=1 -d postgresql://USER:PASSWORD@HOST:5432/DATABASE -f load.sql

psql ends with exit code 0 only if everything was loaded. {kind}

What lies here
  extensions.sql roles.sql custom_types.sql schema.sql views.sql functions.sql triggers.sql indexes.sql
  constraints.sql rls_policies.sql permissions.sql sequences.sql other.sql
      the definitions by kind, for reading, comparing and taking parts. What depends on what crosses these kinds (a
      view calls a function that returns rows of a table …), so they are not loaded one after the other.
  parts/
      the same statements once more, in the order of their dependencies; with values of sequences, large objects,
      materialized views and the database's own settings. load.sql runs these.
  data/
      each table twice: NAME.copy.zst is what COPY reads (`zstd -dc NAME.copy.zst | psql -c "COPY … FROM STDIN"`; where
      data/tables.tsv says binary, `… FROM STDIN WITH (FORMAT binary)`), NAME.sql is for psql as it stands. The list of
      tables with their columns, rows and formats is data/tables.tsv.
  restore-order.txt
      the order of loading in words.
"""

PLAIN = """Load as a superuser to get everything back; as another
role, what it may not do is a warning or the error that stops psql."""
HOSTED = """It comes from a hosted project: what the platform itself owns is in
platform.sql for reading only, and load.sql expects a target where the platform has made its own part. pgkura restore
knows more about such targets (rights, empty columns, secrets, jobs) and should be preferred."""

ORDER = """The order in which load.sql loads, and why

 1 roles.sql                   roles and memberships that the target does not have yet
 2 parts/1-definitions.sql     extensions, types, schemas, tables, sequences, functions, views: by dependency
 3 data/*.sql                  rows, before indexes and foreign keys: fast, and cycles of tables do no harm
 4 parts/2-values.sql          values of sequences; owners, comments and privileges of large objects
 5 parts/3-after-rows.sql      indexes, constraints, foreign keys (checked now), triggers, policies, publications
 6 parts/4-permissions.sql     privileges and default privileges
 7 parts/5-views.sql           materialized views are filled, by their owners' rights
 8 parts/6-database.sql        the database's own settings, privileges, comment
 9 parts/7-event-triggers.sql  last, so that they do not fire for what went before
10 ANALYZE                     planner statistics; a failure here costs no data
"""

PARTS = (
    "1-definitions.sql",
    "2-values.sql",
    "3-after-rows.sql",
    "4-permissions.sql",
    "5-views.sql",
    "6-database.sql",
    "7-event-triggers.sql",
)


def master(data: Sequence[str]) -> Iterator[str]:
    """The lines of load.sql."""
    yield "-- psql -X -v ON_ERROR_STOP=1 -d URL -f load.sql; the order is explained in restore-order.txt\n"
    yield "\\set ON_ERROR_STOP on\n"
    yield "\\ir roles.sql\n"
    yield f"\\ir parts/{PARTS[0]}\n"
    for name in data:
        yield f"\\ir data/{name}\n"
    for name in PARTS[1:]:
        yield f"\\ir parts/{name}\n"
    # A type of the database whose own analysis fails costs no data and is shown as the error it is.
    yield "\\set ON_ERROR_STOP off\nSET client_min_messages = error;\nANALYZE;\n"


def file_name(number: int, name: str) -> str:
    """A name that any file system takes and that no psql command line misreads."""
    readable = "".join(ch if ch.isascii() and (ch.isalnum() or ch in "._-") else "_" for ch in name.replace('"."', "."))
    return f"{number:05d}-{readable.strip('_')[:80]}"
