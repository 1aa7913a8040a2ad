"""`doctor` about the change log: whether there can be one, which tables it would hold, why not others, what to change.

A backup needs none of this: what is missing is a note, until the database is watched.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pgkura.changes.budget import GIVE_UP_SHARE, WITHOUT_LIMIT, Level, judge, refuse_source
from pgkura.core.errors import PgkuraError
from pgkura.operations.doctor_transport import examine_transport
from pgkura.postgres.counting import COUNTS_SINCE
from pgkura.postgres.letting_go import installed
from pgkura.postgres.session import Session
from pgkura.postgres.shape import LoggedTable, read_tables
from pgkura.postgres.slots import SourceState, our_slots, read_slot, read_source

WHAT = "change log"
_NAMES = 12
_MAY_SEE = "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')"
_INSERTS = "its inserts are logged; updates and deletes are counted, and make it one of the base"
_CHANGES = {
    "key": "ADD PRIMARY KEY, or ALTER TABLE … REPLICA IDENTITY FULL (more log for each update)",
    "owner": "watch as its owner, or grant its owner's role to ours",
    "unlogged": "ALTER TABLE … SET LOGGED",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """As a check of the doctor's."""

    state: Literal["ok", "note", "warn"]
    found: str
    change: str = ""


def examine_log(session: Session) -> Iterator[Line]:
    """In no transaction."""
    slots = our_slots(session)
    source = read_source(session)
    yield from _possible(session, source, watched=bool(slots))
    for slot in slots:
        yield from _slot(session, slot)
    if source.wal_level != "logical":
        return
    counting = session.server_version >= COUNTS_SINCE
    tables = read_tables(session, slots[0] if slots else "")
    yield from _tables(tables, counting=counting)
    if counting and any(t.can_append for t in tables) and not session.one(_MAY_SEE)[0]:
        yield Line(
            state="note",
            found="sessions of other roles cannot be seen: while there are any, it is not known whether tables without "
            "key were updated",
            change="GRANT pg_read_all_stats TO this role",
        )
    if slots and not installed(session):
        yield Line(
            state="note",
            found="a table that loses its key refuses UPDATE and DELETE for a fraction of a second; for as long as no "
            "watcher runs, if none does",
            change="where event triggers are allowed: pgkura watch --event-triggers",
        )


def _possible(session: Session, source: SourceState, *, watched: bool) -> Iterator[Line]:
    by_sql = examine_transport(session)
    if by_sql is not None:
        yield Line(state="note", found=by_sql[0], change=by_sql[1])
    try:
        if not watched:
            refuse_source(source, last_slot=False, connected=False)
    except PgkuraError as error:
        detail = f" ({error.detail})" if error.detail else ""
        yield Line(state="note", found=f"there can be none: {error.msg}{detail}", change=error.hint)
        return
    free = f"{source.slots - source.slots_used} of {source.slots} replication slots and "
    free += f"{source.senders - source.senders_used} of {source.senders} senders are free"
    carried = ", slots can be carried over to a standby" if session.server_version >= 170000 else ""
    yield Line(state="ok", found=f"{'there is one' if watched else 'there can be one'}; {free}{carried}")
    if source.keep < 0:
        yield Line(
            state="note",
            found="max_slot_wal_keep_size is not set: a watcher gives its slot up at "
            f"{WITHOUT_LIMIT * GIVE_UP_SHARE / 1024**3:.1f} GiB, but while none runs nobody minds the disk",
            change="set max_slot_wal_keep_size to what the disk can spare",
        )
    else:
        yield Line(
            state="ok",
            found=f"max_slot_wal_keep_size is {source.keep / 1024**2:,.0f} MiB: a watcher gives its slot up at "
            f"{GIVE_UP_SHARE:.0%} of it",
        )


def _slot(session: Session, slot: str) -> Iterator[Line]:
    state = read_slot(session, slot)
    if state is None:
        yield Line(
            state="warn",
            found=f"publication {slot} has no slot any more",
            change="pgkura watch, or pgkura unwatch --all",
        )
        return
    kept = f"the server keeps {state.retained:,} bytes of log for it"
    if state.status == "lost":
        yield Line(
            state="warn", found=f"slot {slot} was given up by the server", change="pgkura watch begins a new chain"
        )
    elif not state.reader:
        yield Line(
            state="warn",
            found=f"no watcher reads slot {slot}: {kept}",
            change="start pgkura watch, or end the log by pgkura unwatch",
        )
    else:
        verdict = judge(state, None)
        state_word: Literal["ok", "warn"] = "ok" if verdict.level is Level.FINE else "warn"
        yield Line(state=state_word, found=f"slot {slot} is read by process {state.reader}; {kept}")


def would_be(table: LoggedTable, *, counting: bool) -> tuple[str, str]:
    """How a table is logged, or would be; and why not better."""
    if table.wanted:
        return table.identity, ""
    if counting and table.can_append:
        return "inserts", _INSERTS
    return "", replace(table, published=0, appended=0).why_not


def _tables(tables: Iterable[LoggedTable], *, counting: bool) -> Iterator[Line]:
    found = [(t, *would_be(t, counting=counting)) for t in tables if not t.member]
    words = {"key": "by key", "full": "by whole rows", "inserts": "by inserts alone", "": "not at all"}
    counts = Counter(logged for _, logged, _ in found)
    told = ", ".join(f"{counts[k]:,} {w}" for k, w in words.items() if counts[k])
    yield Line(state="ok", found=f"tables logged: {told or 'there are none'}")
    groups: dict[tuple[str, str], list[str]] = {}
    for table, logged, why in found:
        if why:
            change = _CHANGES["unlogged" if table.persistence != "p" else "owner" if not table.owned else "key"]
            groups.setdefault((why if logged else f"as of a base: {why}", change), []).append(str(table.qname))
    for (why, change), names in groups.items():
        more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
        yield Line(state="note", found=f"{', '.join(names[:_NAMES])}{more}: {why}", change=change)
