"""Chains: found again, begun, and ended with a reason where their slot is no longer what it was.

Order is law: the head names slot and publication before they exist, so that a crash leaves nothing unknown on the
server; then the publication, since a slot that is older than it never gets past the first change; then the slot; then
the start, with which the chain exists.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pgkura.core.errors import DatabaseError, RightsError, SourceBusy
from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.wal import lsn_text, parse_lsn
from pgkura.postgres.queries import query
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.shape import Poll, poll, read_tables
from pgkura.repository.changes import END, HEAD, START, SegmentName
from pgkura.repository.manifest import new_id
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyExists

# Making a slot waits for every transaction that writes, in all databases of the server.
SLOT_SECONDS = 120
_LOCK_WAIT = "2s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which database of which server, in which of its lives."""

    system: str
    timeline: int
    database: str


@dataclass(slots=True, kw_only=True)
class Chain:
    """A living chain. `slot` is also the publication's name; `position`: up to here everything is stored.

    top_xid, top_time  the highest transaction and the latest commit so far
    fresh  its slot has just been made: no transaction is older than its publication
    members   object ids of the tables that were in the publication at the last look, None before the first
    settled   a base must see the end of all transactions before this one
    empty     those of them that held no row when they joined, and that nobody was writing to
    covered   the shape that was told last (covers.py)
    """

    id: str
    slot: str
    position: int
    top_xid: int = 0
    top_time: int = 0
    fresh: bool = False
    members: frozenset[int] | None = None
    settled: int = 0
    empty: frozenset[int] = frozenset()
    covered: str = ""


class ChainBroken(Exception):
    """The slot or its publication is not what it was: what comes now cannot follow what is stored."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def covered(start: int, segments: list[SegmentName]) -> int:
    """How far a chain goes without a gap. Pure. `segments` by their start; two writers may have overlapped."""
    at = start
    for one in segments:
        if one.start > at:
            break
        at = max(at, one.end)
    return at


def check_source(session: Session) -> None:
    """Raises RightsError, DatabaseError naming what keeps this source from having a change log."""
    level, standby, replication, free, create = session.one(query("changes", "server"))
    if standby:
        raise DatabaseError("this server is a standby", hint="watch the primary: slots of standbys are not used yet")
    if level != "logical":
        raise DatabaseError(
            f"the server writes its log with wal_level={level}",
            detail="changes can be decoded only from wal_level=logical",
            hint="set wal_level=logical and restart the server (hosted projects have it)",
        )
    if not replication:
        raise RightsError("this role may not replicate", hint="ALTER ROLE … REPLICATION (on Supabase: use `postgres`)")
    if not create:
        raise RightsError("this role may not make a publication", hint="GRANT CREATE ON DATABASE … to it")
    if free < 1:
        raise SourceBusy("all replication slots are in use", hint="raise max_replication_slots, or drop an unused slot")


def open_chain(
    repo: Repository, session: Session, origin: Origin, note: Callable[[str], None], hole: Callable[[str], None]
) -> Chain:
    """The chain that can be gone on with, or a new one; what was broken is ended, with its reason, in the store.

    `hole` hears the reason.
    """
    found: Chain | None = None
    newest = True
    for chain in reversed(repo.chain_ids()):
        head = repo.chain_record(chain, HEAD)
        if head is None or (head["system"], head["database"]) != (origin.system, origin.database):
            continue
        if repo.chain_record(chain, END) is not None:
            continue
        slot = str(head["slot"])
        if not newest:
            # Of two watchers that began at once, or one that died between two records: nobody reads that slot any more.
            with suppress(SqlError):
                end_chain(repo, session, chain, slot, "another chain was begun")
            continue
        newest = False
        try:
            found = _resume(repo, session, origin, chain, slot)
        except ChainBroken as broken:
            # What never began leaves no hole.
            tell = hole if repo.chain_record(chain, START) is not None else note
            tell(broken.reason)
            end_chain(repo, session, chain, slot, broken.reason)
    return found or _begin(repo, session, origin, note)


def _resume(repo: Repository, session: Session, origin: Origin, chain: str, slot: str) -> Chain:
    start = repo.chain_record(chain, START)
    if start is None:
        raise ChainBroken("its beginning was cut short")
    segments = repo.segments(chain)
    position = covered(parse_lsn(start["position"]), segments)
    if segments and max(s.end for s in segments) > position:
        raise ChainBroken(f"the segment that begins at {lsn_text(position)} is missing in the store")
    if start["timeline"] != origin.timeline:
        raise ChainBroken("the server was promoted or put back: its history is another one")
    check_slot(session, slot, position)
    made = Chain(id=chain, slot=slot, position=position)
    if segments:
        last, _ = repo.segment(chain, max(segments, key=lambda s: s.end))
        made.top_xid, made.top_time = last["top_xid"], last["top_time"]
    return made


def check_slot(session: Session, slot: str, position: int) -> int:
    """Bytes of log that the server keeps for us. Raises ChainBroken."""
    rows = session.rows(query("changes", "slot"), (slot,))
    if not rows:
        raise ChainBroken("its slot is gone")
    _, confirmed, status, retained, _, published = rows[0]
    if status == "lost":
        raise ChainBroken("the server gave the slot up: it kept more log than max_slot_wal_keep_size allows")
    if not published:
        raise ChainBroken("its publication was dropped, and the slot cannot be read without it")
    if confirmed and parse_lsn(confirmed) > position:
        raise ChainBroken(f"somebody else has read the slot up to {confirmed}")
    return int(retained)


def end_chain(repo: Repository, session: Session, chain: str, slot: str, reason: str) -> None:
    """Take slot and publication away, and say why in the store."""
    drop_slot(session, slot)
    start = repo.chain_record(chain, START)
    position = covered(parse_lsn(start["position"]), repo.segments(chain)) if start else 0
    with suppress(KeyExists):
        repo.put_chain_record(chain, END, {"reason": reason, "position": lsn_text(position), "ended": _now()})


def drop_slot(session: Session, slot: str) -> None:
    """Whatever is left of it on the server."""
    gone = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots "
    session.rows(gone + "WHERE slot_name = %s AND database = pg_catalog.current_database()", (slot,))
    session.execute(f"DROP PUBLICATION IF EXISTS {quote_ident(slot)}")


def _begin(repo: Repository, session: Session, origin: Origin, note: Callable[[str], None]) -> Chain:
    check_source(session)
    slot = f"pgkura_{secrets.token_hex(4)}"
    chain = new_id(datetime.now(UTC), max(repo.chain_ids(), default=None))
    repo.put_chain_record(
        chain,
        HEAD,
        {
            "system": origin.system,
            "database": origin.database,
            "server_version_num": session.server_version,
            "slot": slot,
            "created": _now(),
            "host": repo.host_id,
        },
    )
    session.execute(f"SET lock_timeout = '{_LOCK_WAIT}'")
    session.execute(f"CREATE PUBLICATION {quote_ident(slot)} WITH (publish = 'insert, update, delete, truncate')")
    publish(session, slot, note)
    position = _make_slot(session, slot)
    repo.put_chain_record(chain, START, {"position": lsn_text(position), "timeline": origin.timeline, "began": _now()})
    note(f"the change log begins at {lsn_text(position)}: `pgkura backup` makes the first base of it")
    return Chain(id=chain, slot=slot, position=position, fresh=True)


def _make_slot(session: Session, slot: str) -> int:
    session.execute(f"SET statement_timeout = '{SLOT_SECONDS}s'")
    try:
        session.rows("SELECT pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    except SqlError as error:
        if error.sqlstate != "57014":
            raise
        raise SourceBusy(
            f"the slot could not be made within {SLOT_SECONDS} seconds",
            detail="the server waits for every transaction that writes, in all of its databases",
            hint="end the transaction that has been open for longest (pg_stat_activity), then try again",
        ) from error
    finally:
        if not session.broken:
            session.execute("SET statement_timeout = 0")
    return parse_lsn(str(session.one(query("changes", "slot"), (slot,))[1]))


def publish(session: Session, publication: str, note: Callable[[str], None], empty: set[int] | None = None) -> bool:
    """Let tables that can be logged join, and those that cannot any more leave. True if anything was changed.

    `empty` takes those that held no row when they joined.
    """
    changed = False
    for table in read_tables(session, publication):
        if table.wanted == table.published:
            continue
        verb = "ADD" if table.wanted else "DROP"
        if table.wanted and empty is not None and join_empty(session, publication, table.qname):
            empty.add(table.oid)
            changed = True
            continue
        try:
            session.execute(f"ALTER PUBLICATION {quote_ident(publication)} {verb} TABLE ONLY {table.qname.sql}")
            changed = True
        except SqlError as error:
            if session.broken:
                raise
            note(f"{table.qname} could not {'join' if table.wanted else 'leave'} the change log: {error.msg}")
    return changed


def join_empty(session: Session, publication: str, name: QualifiedName) -> bool:
    """Let a table join that holds no row and that nobody is writing to: then the log has all that it ever held.

    Nobody is waited for. False where it is not so, or cannot be seen; then nothing was done.
    """
    session.begin(isolation="read committed", read_only=False)
    try:
        session.execute("SET LOCAL lock_timeout = '200ms'")
        session.execute(f"LOCK TABLE ONLY {name.sql} IN SHARE MODE NOWAIT")
        if not session.one(f"SELECT NOT EXISTS (SELECT FROM ONLY {name.sql})")[0]:
            return False
        session.execute(f"ALTER PUBLICATION {quote_ident(publication)} ADD TABLE ONLY {name.sql}")
        session.commit()
    except SqlError:
        if session.broken:
            raise
        return False
    finally:
        if not session.broken:
            session.rollback()
    return True


def look(session: Session, chain: Chain) -> Poll:
    """One look at the source. A sequence that is locked just now is not waited for long."""
    return poll(session, chain.slot, chain.covered)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
