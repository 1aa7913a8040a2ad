"""Chains: found again, begun, and ended with a reason where their slot is no longer what it was.

Order is law: the head names slot and publication before they exist, so that a crash leaves nothing unknown on the
server; then the publication, since a slot that is older than it never gets past the first change; then the slot; then
the start, with which the chain exists.
"""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pgkura.changes.budget import refuse_source
from pgkura.changes.publishing import publish
from pgkura.changes.spans import covered
from pgkura.core.names import quote_ident
from pgkura.core.wal import lsn_text, parse_lsn
from pgkura.postgres.counting import COUNTS_SINCE
from pgkura.postgres.session import Session, SqlError
from pgkura.postgres.shape import INSERTS, Poll, poll
from pgkura.postgres.slots import SlotState, drop_slot, make_slot, our_slots, read_slot, read_source
from pgkura.repository.bundles import BundleName, Run
from pgkura.repository.changes import END, HEAD, MOVED, START
from pgkura.repository.manifest import new_id
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyExists

_LOCK_WAIT = "2s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which database of which server, in which of its lives; `history`: earlier ones, and where each was left."""

    system: str
    timeline: int
    database: str
    history: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True, kw_only=True)
class Chain:
    """A living chain. `slot` is also the publication's name; `position`: up to here everything is stored.

    timeline the server's
    inserts  publication of the tables whose inserts alone are logged, '' where there is none
    top_xid, top_time  the highest transaction and the latest commit so far
    fresh  its slot has just been made: no transaction is older than its publication
    members   memberships in the publications at the last look, None before the first
    settled   a base must see the end of all transactions before this one
    empty     those of them that held no row when they joined, and that nobody was writing to
    covered   the shape that was told last (covers.py)
    """

    id: str
    slot: str
    position: int
    timeline: int
    inserts: str = ""
    top_xid: int = 0
    top_time: int = 0
    fresh: bool = False
    members: frozenset[int] | None = None
    settled: int = 0
    empty: frozenset[int] = frozenset()
    covered: str = ""

    @property
    def publications(self) -> tuple[str, ...]:
        """All that the slot is read with."""
        return tuple(filter(None, (self.slot, self.inserts)))


class ChainBroken(Exception):
    """The slot or its publication is not what it was: what comes now cannot follow what is stored."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def open_chain(
    repo: Repository,
    session: Session,
    origin: Origin,
    note: Callable[[str], None],
    hole: Callable[[str], None],
    *,
    last_slot: bool = False,
    by_sql: bool = False,
) -> Chain:
    """The chain that can be gone on with, or a new one; what was broken is ended, with its reason, in the store.

    `hole` hears the reason. `last_slot`: a new one may take the last that the server has; `by_sql`: it is read so.
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
            found = _resume(repo, session, origin, chain, slot, str(head.get("inserts", "")))
        except ChainBroken as broken:
            # What never began leaves no hole.
            tell = hole if repo.chain_record(chain, START) is not None else note
            tell(broken.reason)
            end_chain(repo, session, chain, slot, broken.reason)
    if found is None:
        refuse_source(read_source(session), last_slot=last_slot, connected=True, by_sql=by_sql)
        found = _begin(repo, session, origin, note)
    return found


def _resume(repo: Repository, session: Session, origin: Origin, chain: str, slot: str, inserts: str) -> Chain:
    start = repo.chain_record(chain, START)
    if start is None:
        raise ChainBroken("its beginning was cut short")
    # First the slot, then the store: where another watcher lives, what he has confirmed is stored already.
    state = read_slot(session, slot)
    for patience in (True, False):
        runs = repo.runs(chain)
        position = covered(repo.chain_start(chain, start), runs)
        if not any(run.end > position for run in runs):
            break
        if not patience:  # a list that was made while somebody stored may show the second of two without the first
            raise ChainBroken(f"the segment that begins at {lsn_text(position)} is missing in the store")
    made = Chain(id=chain, slot=slot, position=position, timeline=origin.timeline, inserts=inserts)
    moved = _moved(repo, chain, int(start["timeline"]), origin, position)
    try:
        confirmed = _usable(state, made)
        if confirmed > position:
            raise ChainBroken(f"somebody else has read the slot up to {lsn_text(confirmed)}")
    except ChainBroken as broken:
        if moved is None:
            raise
        raise ChainBroken(f"the server was promoted, and {broken.reason}") from broken
    if moved is not None:
        with suppress(KeyExists):
            repo.put_chain_record(chain, f"{MOVED}{origin.timeline:08X}", moved)
    if runs:
        last = last_record(repo, chain, max(runs, key=lambda run: run.end))
        made.top_xid, made.top_time = last["top_xid"], last["top_time"]
    return made


def last_record(repo: Repository, chain: str, run: Run) -> Mapping[str, Any]:
    """Of the last segment in a file."""
    if isinstance(run, BundleName):
        return repo.bundle(chain, run).entries[-1].record
    return repo.segment(chain, run)[0]


def _moved(repo: Repository, chain: str, began: int, origin: Origin, position: int) -> dict[str, Any] | None:
    """The record of a promotion after which the chain goes on: all that is stored is part of the new history too.

    None where there was none. Raises ChainBroken.
    """
    known = max([began, *(int(name.removeprefix(MOVED), 16) for name in repo.chain_names(chain, MOVED))])
    if known == origin.timeline:
        return None
    left = dict(origin.history).get(known)
    if left is None or origin.timeline < known or position > left:
        raise ChainBroken("the server was promoted or put back: its history is another one")
    return {"timeline": origin.timeline, "left": lsn_text(left), "moved": _now()}


def check_slot(session: Session, chain: Chain) -> None:
    """Raises ChainBroken; SqlError where it was confirmed further than is known here: the store must be looked at."""
    if _usable(read_slot(session, chain.slot), chain) > chain.position:
        raise SqlError("the slot was advanced by somebody else", detail="another watcher?")


def _usable(state: SlotState | None, chain: Chain) -> int:
    """How far it is confirmed. Raises ChainBroken."""
    if state is None:
        raise ChainBroken("its slot is gone")
    if state.status == "lost":
        raise ChainBroken("the server gave the slot up: it kept more log than max_slot_wal_keep_size allows")
    if not (state.published and (state.appended or not chain.inserts)):
        raise ChainBroken("its publication was dropped, and the slot cannot be read without it")
    return parse_lsn(state.confirmed) if state.confirmed else 0


def end_chain(repo: Repository, session: Session, chain: str, slot: str, reason: str, *, unseat: bool = False) -> None:
    """Take slot and publications away, and say why in the store. `unseat`: whoever reads it too."""
    drop_slot(session, slot, unseat=unseat)
    start = repo.chain_record(chain, START)
    position = covered(repo.chain_start(chain, start), repo.runs(chain)) if start else 0
    with suppress(KeyExists):
        repo.put_chain_record(chain, END, {"reason": reason, "position": lsn_text(position), "ended": _now()})


def _begin(repo: Repository, session: Session, origin: Origin, note: Callable[[str], None]) -> Chain:
    _clear(repo, session)
    slot = f"pgkura_{secrets.token_hex(4)}"
    inserts = slot + INSERTS if session.server_version >= COUNTS_SINCE else ""
    chain = new_id(datetime.now(UTC), max(repo.chain_ids(), default=None))
    repo.put_chain_record(
        chain,
        HEAD,
        {
            "system": origin.system,
            "database": origin.database,
            "server_version_num": session.server_version,
            "slot": slot,
            "inserts": inserts,
            "created": _now(),
            "host": repo.host_id,
        },
    )
    session.execute(f"SET lock_timeout = '{_LOCK_WAIT}'")
    session.execute(f"CREATE PUBLICATION {quote_ident(slot)} WITH (publish = 'insert, update, delete, truncate')")
    if inserts:
        session.execute(f"CREATE PUBLICATION {quote_ident(inserts)} WITH (publish = 'insert, truncate')")
    made = Chain(id=chain, slot=slot, position=0, timeline=origin.timeline, inserts=inserts, fresh=True)
    publish(session, slot, inserts, note)
    made.position = position = parse_lsn(make_slot(session, slot))
    repo.put_chain_record(chain, START, {"position": lsn_text(position), "timeline": origin.timeline, "began": _now()})
    note(f"the change log begins at {lsn_text(position)}: `pgkura backup` makes the first base of it")
    return made


def _clear(repo: Repository, session: Session) -> None:
    """Publications of chains of ours that have no slot here: a restored database has those of its source."""
    heads = (repo.chain_record(chain, HEAD) for chain in repo.chain_ids())
    known = {str(head["slot"]) for head in heads if head is not None}
    for name in our_slots(session):
        if name in known and read_slot(session, name) is None:
            with suppress(SqlError):  # of another role's
                drop_slot(session, name)


def look(session: Session, chain: Chain, *, lasting: bool = False) -> Poll:
    """One look at the source. A sequence that is locked just now is not waited for long."""
    seen = poll(session, chain.slot, chain.covered, lasting=lasting)
    if seen.counted is None:
        return seen
    # A standby has counts of its own, and may have begun with those of its primary.
    return replace(seen, counted=replace(seen.counted, epoch=f"{chain.timeline} {seen.counted.epoch}"))


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
