"""Slots: looked at, made, dropped. What follows from what is seen is decided elsewhere."""

import time
from dataclasses import dataclass

from pgkura.core.errors import SourceBusy
from pgkura.core.names import quote_ident
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.shape import INSERTS

# Making a slot waits for every transaction that writes, in all databases of the server.
SLOT_SECONDS = 120
# From this version on a slot can be carried over to a standby.
_FAILOVER_SINCE = 170000
_IN_USE, _GONE = "55006", "42704"
_CANCELED, _LOCK_TIMEOUT = "57014", "55P03"
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """A slot as the server tells it.

    reader     process that reads it, 0 = nobody
    status     `reserved`, `extended`, `unreserved` (lost at the next checkpoint) or `lost`
    retained   bytes of log that the server keeps for it; behind: how many of them were not confirmed yet
    limit      max_slot_wal_keep_size in bytes, -1 = none
    published  whether its publication is there; appended: whether the one for inserts alone is
    """

    reader: int
    confirmed: str
    status: str
    retained: int
    behind: int
    limit: int
    published: bool
    appended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """What a change log needs of a server. `keep`: max_slot_wal_keep_size in bytes, -1 = none."""

    wal_level: str
    standby: bool
    may_replicate: bool
    may_create: bool
    slots: int
    slots_used: int
    senders: int
    senders_used: int
    keep: int


def read_source(session: Session) -> SourceState:
    """One look."""
    level, standby, replicate, create, slots, used, senders, sending, keep = session.one(query("slots", "server"))
    return SourceState(
        wal_level=level,
        standby=standby,
        may_replicate=replicate,
        may_create=create,
        slots=slots,
        slots_used=used,
        senders=senders,
        senders_used=sending,
        keep=keep * _MB if keep > 0 else keep,
    )


def read_slot(session: Session, slot: str) -> SlotState | None:
    """None where there is none."""
    rows = session.rows(query("slots", "slot"), (slot + INSERTS, slot))
    if not rows:
        return None
    reader, confirmed, status, retained, behind, limit, published, appended = rows[0]
    return SlotState(
        reader=reader,
        confirmed=confirmed,
        status=status,
        retained=max(retained, 0),
        behind=max(behind, 0),
        limit=limit * _MB if limit > 0 else limit,
        published=published,
        appended=appended,
    )


def our_slots(session: Session) -> list[str]:
    """Slots and publications in this database that look like ours, by the slot's name."""
    slots = {str(name) for (name,) in session.rows(query("slots", "ours"))}
    publications = {str(name).removesuffix(INSERTS) for (name,) in session.rows(query("slots", "our_publications"))}
    return sorted(slots | publications)


def make_slot(session: Session, slot: str) -> str:
    """Where it begins. Waits for everybody who writes, and not for long. Raises SourceBusy.

    On a server that can carry slots over to a standby it is made so that it is.
    """
    more = ", failover => true" if session.server_version >= _FAILOVER_SINCE else ""
    # To the server this wait is one for a lock: a short limit of ours on those must not end it.
    before = str(session.one("SELECT pg_catalog.current_setting('lock_timeout')")[0])
    session.script(f"SET lock_timeout = 0; SET statement_timeout = '{SLOT_SECONDS}s'")
    try:
        session.rows(f"SELECT pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput'{more})", (slot,))
    except SqlError as error:
        if error.sqlstate not in (_CANCELED, _LOCK_TIMEOUT):
            raise
        raise SourceBusy(
            f"the slot could not be made within {SLOT_SECONDS} seconds",
            detail="the server waits for every transaction that writes, in all of its databases" + _oldest(session),
            hint="end that transaction, then try again",
        ) from error
    finally:
        if not session.broken:
            session.script(f"SET statement_timeout = 0; SET lock_timeout = '{before}'")
    state = read_slot(session, slot)
    if state is None:
        raise SqlError("the slot is gone that was just made")
    return state.confirmed


def _oldest(session: Session) -> str:
    rows = session.rows(query("slots", "open_for_long"))
    if not rows:
        return ""
    pid, user, name, state, seconds = rows[0]
    told = f", {state} for {seconds:,.0f} seconds" if seconds >= 0 else ""
    return f"; the oldest is of process {pid} ({user}{', ' + name if name else ''}{told})"


def drop_slot(session: Session, slot: str, *, unseat: bool = False) -> None:
    """Whatever is left of it on the server. `unseat`: end whoever reads it, rather than fail."""
    for attempt in range(100):
        try:
            session.rows(query("slots", "drop"), (slot,))
            break
        except SqlError as error:
            if error.sqlstate == _GONE:
                break
            # A reader's process that was just told to end may take a moment.
            if error.sqlstate != _IN_USE or attempt == (99 if unseat else 20):
                raise
            if unseat:
                session.rows(query("slots", "unseat"), (slot,))
            time.sleep(0.1)
    for name in (slot, slot + INSERTS):
        session.execute(f"DROP PUBLICATION IF EXISTS {quote_ident(name)}")
