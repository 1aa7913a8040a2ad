"""`find`: which transaction was it, and how to get back before it."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pgkura.changes.log import Log, read_chain
from pgkura.changes.searching import KINDS, Found, Question, search
from pgkura.core.errors import UsageError
from pgkura.core.wal import lsn_text
from pgkura.replay.moments import Kind, parse_moment, time_text
from pgkura.repository.repository import Repository

_EVENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FindResult:
    """Transactions: the most harmful first, or in order where the history of rows was asked for."""

    found: tuple[tuple[str, Found], ...]

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": "ok",
            "transactions": [
                {
                    "chain": chain,
                    "xid": f.xid,
                    "lsn": lsn_text(f.lsn),
                    "time": time_text(f.time),
                    "changes": f.changes,
                    "tables": f.counts,
                    "restore_before": f"before xid {f.xid}",
                    "ddl": [told.as_json() for told in f.ddl],
                    "rows": [{"kind": e.kind, "table": e.table, "old": e.old, "new": e.new} for e in f.events],
                }
                for chain, f in self.found
            ],
        }


def question_of(*, table: str, kinds: Sequence[str], where: Sequence[str], since: str, until: str) -> Question:
    """Raises UsageError."""
    values = {}
    for one in where:
        column, equals, value = one.partition("=")
        if not equals or not column:
            raise UsageError(f"--where {one!r} is no COLUMN=VALUE")
        values[column] = value
    wrong = [k for k in kinds if k not in KINDS]
    if wrong:
        raise UsageError(f"--kind {wrong[0]!r} is none of insert, update, delete, truncate, ddl")
    made = Question(table=table, values=values, since=_time(since, 0), until=_time(until, 1 << 62))
    return (
        made
        if not kinds
        else Question(table=table, values=values, since=made.since, until=made.until, kinds=frozenset(kinds))
    )


def find(repo: Repository, question: Question, *, limit: int) -> FindResult:
    """Over all chains. Needs the identity."""
    repo.need_identity("searching the change log")
    history = bool(question.values)
    found = (
        (chain, one)
        for chain in repo.chain_ids()
        if (facts := read_chain(repo, chain)) is not None
        for one in search(Log(repo, facts), question, keep_events=_EVENTS if history else 0)
    )
    if history:
        return FindResult(found=tuple(islice(found, limit)))
    return FindResult(found=tuple(heapq.nlargest(limit, found, key=lambda f: f[1].harm)))


def _time(text: str, default: int) -> int:
    if not text:
        return default
    moment = parse_moment(text)
    if moment.kind is not Kind.TIME:
        raise UsageError(f"{text!r} is no time", hint="for example 2026-11-26T10:17Z")
    return moment.number
