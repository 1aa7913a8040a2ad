"""The plain way to play a change log again: a statement for each change, a transaction for each transaction."""

import time
from collections.abc import Iterator

import psycopg
from benchmarks.bench import Ours
from benchmarks.results import Run, Wrong
from psycopg.sql import SQL, Composed, Identifier

from pgkura.changes import pgoutput
from pgkura.changes.log import Log, read_chain
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage


def messages(ours: Ours) -> Iterator[bytes]:
    """Of the only chain of a repository."""
    desk = ours.desk
    repo = Repository.open(
        LocalStorage(desk.repository),
        identity=Identity.parse(desk.identity.read_text()),
        host=HostKey.parse(desk.host_key.read_text()),
    )
    (chain,) = repo.chain_ids()
    facts = read_chain(repo, chain)
    if facts is None:
        raise Wrong("no change log")
    log = Log(repo, facts)
    return log.messages(0, len(log.names) - 1)


def apply(contestant: str, number: int, ours: Ours, url: str, *, most: int) -> Run:
    """Pipelined and prepared, as far as so many changes; `most` = 0: all."""
    begun, spent = time.monotonic(), time.process_time()
    relations: dict[int, pgoutput.Relation] = {}
    prepared: dict[tuple[int, int], Composed] = {}
    changes = transactions = 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        with connection.pipeline(), connection.cursor(binary=False) as cursor:
            for payload in messages(ours):
                kind = payload[0]
                if kind == pgoutput.RELATION:
                    relation = pgoutput.relation(payload)
                    relations[relation.oid] = relation
                elif kind == pgoutput.BEGIN:
                    cursor.execute("BEGIN")
                elif kind == pgoutput.COMMIT:
                    cursor.execute("COMMIT")
                    transactions += 1
                    if 0 < most <= changes:
                        break
                elif kind in pgoutput.CHANGES:
                    if kind == pgoutput.TRUNCATE:
                        raise Wrong("a TRUNCATE in pgbench's log")
                    change = pgoutput.change(payload)
                    relation = relations[change.relation]
                    key = (change.relation, kind)
                    if key not in prepared:
                        prepared[key] = _sql(relation, kind)
                    cursor.execute(prepared[key], _values(relation, change), prepare=True)
                    changes += 1
    wall = time.monotonic() - begun
    more = {"changes": float(changes), "transactions": float(transactions)}
    return Run(contestant=contestant, round=number, wall=wall, client_cpu=time.process_time() - spent, more=more)


def _sql(relation: pgoutput.Relation, kind: int) -> Composed:
    table = Identifier(relation.qname.schema, relation.qname.name)
    names = [Identifier(c.name) for c in relation.columns]
    where = SQL(" AND ").join(SQL("{} = %s").format(Identifier(c.name)) for c in relation.columns if c.key)
    if kind == pgoutput.INSERT:
        into, marks = SQL(", ").join(names), SQL(", ").join(SQL("%s") for _ in names)
        return SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(table, into, marks)
    if kind == pgoutput.DELETE:
        return SQL("DELETE FROM {} WHERE {}").format(table, where)
    sets = SQL(", ").join(SQL("{} = %s").format(Identifier(c.name)) for c in relation.columns if not c.key)
    return SQL("UPDATE {} SET {} WHERE {}").format(table, sets, where)


def _values(relation: pgoutput.Relation, change: pgoutput.Change) -> list[str | None]:
    if change.new is None:
        old = change.old or ()
        return [_text(v) for v, c in zip(old, relation.columns, strict=True) if c.key]
    if change.kind == pgoutput.INSERT:
        return [_text(v) for v in change.new]
    rest = [_text(v) for v, c in zip(change.new, relation.columns, strict=True) if not c.key]
    return rest + [_text(v) for v, c in zip(change.new, relation.columns, strict=True) if c.key]


def _text(value: pgoutput.Value) -> str | None:
    if isinstance(value, pgoutput.Unchanged):
        raise Wrong("a large value in pgbench's log")
    return None if value is None else value.decode()
