"""A day of a learning platform: appends, updates of old and of new rows, some deletes. The same for the same seed.

1 % of the rows are appended, 0.5 % are updated at random, 30 % of the newest 2 % are updated, 0.02 % are deleted at
random: on each of the large tables. The small tables see a handful of changes, half of them none.
"""

import psycopg
from benchmarks.data import INSERT_DOCUMENTS, INSERT_EVENTS, INSERT_MESSAGES
from psycopg.sql import SQL, Identifier, Literal

_CHANGES = {
    "lesson_events": (INSERT_EVENTS, "score = coalesce(score, 0) + 0.5", "duration_ms = coalesce(duration_ms, 0) + 1"),
    "messages": (INSERT_MESSAGES, "body = body || ' edited'", "read_at = sent_at + interval '2 hours'"),
    "documents": (INSERT_DOCUMENTS, "body = 'Revised. ' || body", "title = title || ' (draft)'"),
}


def one_day(url: str, seed: int, *, retire: bool = False) -> dict[str, int]:
    """Change the database of `url`; returns how many rows were changed, by verb.

    retire  as many of the oldest rows are deleted as were appended, so that the database stays as large as it was
    """
    counts = {"appended": 0, "updated": 0, "deleted": 0}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(SQL("SELECT setseed({})").format(Literal((seed % 997) / 1000)))
        for name, (insert, old_set, new_set) in _CHANGES.items():
            table = Identifier("lms", name)
            row = connection.execute(SQL("SELECT min(id), max(id) FROM {}").format(table)).fetchone()
            assert row is not None
            first, last = int(row[0]), int(row[1])
            share = max(1, (last - first + 1) // 100)
            counts["appended"] += connection.execute(
                SQL(insert).format(first=Literal(last + 1), last=Literal(last + share))
            ).rowcount
            some = SQL("(SELECT {low} + (random() * {span})::int FROM generate_series(1, {n}))")
            for what, low, span, n in (
                (old_set, first, last - first, max(1, share // 2)),
                (new_set, last - 2 * share, 2 * share - 1, max(1, share * 6 // 10)),
            ):
                picked = some.format(low=Literal(low), span=Literal(span), n=Literal(n))
                counts["updated"] += connection.execute(
                    SQL("UPDATE {} SET " + what + " WHERE id IN {}").format(table, picked)
                ).rowcount
            picked = some.format(low=Literal(first), span=Literal(last - first), n=Literal(max(1, share // 50)))
            counts["deleted"] += connection.execute(SQL("DELETE FROM {} WHERE id IN {}").format(table, picked)).rowcount
            if retire:
                counts["deleted"] += connection.execute(
                    SQL("DELETE FROM {} WHERE id < {}").format(table, Literal(first + share))
                ).rowcount
        connection.execute("SELECT setval('lms.messages_id_seq', (SELECT max(id) FROM lms.messages))")
        counts["updated"] += _small(connection)
    return counts


def _small(connection: "psycopg.Connection[tuple[object, ...]]") -> int:
    names = connection.execute(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'lms'::regnamespace "
        "AND relname LIKE 'small%' ORDER BY relname"
    ).fetchall()
    picked = "SELECT 1 + (random() * 9)::int FROM generate_series(1, 3)"
    changed = 0
    for (name,) in names[::2]:
        table = Identifier("lms", str(name))
        update = SQL("UPDATE {} SET amount = amount + 1 WHERE id IN (" + picked + ")").format(table)
        changed += connection.execute(update).rowcount
    return changed
