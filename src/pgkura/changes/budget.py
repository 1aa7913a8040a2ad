"""What a server may keep for us, and what of a source's own is left to others. Pure.

A slot keeps the server from forgetting its log. Nobody but us knows that it is there: before the disk fills for it, or
the server gives it up by itself, it is given up here, with a name.
"""

from dataclasses import dataclass
from enum import StrEnum

from pgkura.core.errors import DatabaseError, RightsError, SourceBusy
from pgkura.postgres.slots import SlotState, SourceState

# Of the server's own limit, or of ours where it has none.
WARN_SHARE, GIVE_UP_SHARE = 0.5, 0.8
# Where max_slot_wal_keep_size is -1 the server would keep log until its disk is full.
WITHOUT_LIMIT = 4 * 1024**3


class Level(StrEnum):
    """How near a slot is to its end."""

    FINE = "fine"
    WARN = "warn"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`text` says what was seen, in a sentence that can end a chain."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bytes from which on is warned, and given up. 0 = never. `whose`: where it comes from, in words."""

    warn: int
    give_up: int
    whose: str


def budget_of(limit: int, asked: int | None) -> Budget:
    """`limit`: max_slot_wal_keep_size in bytes, -1 = none; `asked`: give up there, 0 = never, None = by shares."""
    whole, whose = (limit, "max_slot_wal_keep_size") if limit >= 0 else (WITHOUT_LIMIT, "what we allow ourselves")
    by_share = Budget(
        warn=int(whole * WARN_SHARE), give_up=int(whole * GIVE_UP_SHARE), whose=f"{GIVE_UP_SHARE:.0%} of {whose}"
    )
    if asked == 0:
        return Budget(warn=by_share.warn, give_up=0, whose="nothing")
    if asked is None or (limit >= 0 and by_share.give_up < asked):
        return by_share
    return Budget(warn=int(asked * WARN_SHARE / GIVE_UP_SHARE), give_up=asked, whose="--max-retained")


def judge(state: SlotState, asked: int | None) -> Verdict:
    """Whether the slot may stay. `asked`: as in `budget_of`."""
    budget = budget_of(state.limit, asked)
    kept = f"the server keeps {state.retained:,} bytes of log for us"
    if state.behind * 2 < state.retained:
        kept += ", most of it for a transaction that has been open for long"
    if budget.give_up and state.retained >= budget.give_up:
        return Verdict(
            level=Level.GIVE_UP,
            text=f"{kept}, which is more than {budget.give_up:,} ({budget.whose}): the slot was given up, not its disk",
        )
    if state.status == "unreserved" and budget.give_up:
        return Verdict(
            level=Level.GIVE_UP,
            text=f"{kept}, and would drop it at its next checkpoint: the slot was given up before that",
        )
    if budget.warn and state.retained >= budget.warn:
        left = f"; the slot is given up at {budget.give_up:,}" if budget.give_up else ""
        return Verdict(level=Level.WARN, text=f"{kept}{left}")
    return Verdict(level=Level.FINE, text="")


def refuse_source(source: SourceState, *, last_slot: bool, connected: bool, by_sql: bool = False) -> None:
    """Raises what keeps this source from getting a slot of ours.

    `last_slot`: others need none any more; `connected`: our own sender is counted in what it tells already;
    `by_sql`: none is needed.
    """
    if source.standby:
        raise DatabaseError("this server is a standby", hint="watch the primary: slots of standbys are not used yet")
    if source.wal_level != "logical":
        raise DatabaseError(
            f"the server writes its log with wal_level={source.wal_level}",
            detail="changes can be decoded only from wal_level=logical",
            hint="set wal_level=logical and restart the server (hosted projects have it)",
        )
    if not source.may_replicate:
        raise RightsError("this role may not replicate", hint="ALTER ROLE … REPLICATION (on Supabase: use `postgres`)")
    if not source.may_create:
        raise RightsError("this role may not make a publication", hint="GRANT CREATE ON DATABASE … to it")
    senders = source.senders - source.senders_used + connected
    for what, setting, free, all_of_them in (
        ("replication slots", "max_replication_slots", source.slots - source.slots_used, source.slots),
        ("senders", "max_wal_senders", senders, source.senders),
    ):
        if by_sql and what == "senders":
            continue
        if free < 1:
            raise SourceBusy(
                f"all {all_of_them} {what} of the server are in use",
                hint=f"raise {setting}, or drop a slot that nobody needs (pg_replication_slots)",
            )
        if free < 2 and not last_slot:
            raise SourceBusy(
                f"only one of the server's {all_of_them} {what} is free",
                detail="it is left to others: a standby or a subscription that cannot connect is worse than no log",
                hint=f"raise {setting}, drop a slot that nobody needs, or take it with --last-slot",
            )
