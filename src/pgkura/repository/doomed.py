"""Which objects nobody needs, and which of them may go now. Pure: a survey, a time and a grace give one answer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pgkura.repository.references import REFERENCES
from pgkura.repository.survey import Survey
from pgkura.repository.tombstones import TOMBSTONES, Phase

# A prune that condemned objects and is not heard of for so long is dead; its tombstone is in nobody's way then.
DEAD_AFTER = 24 * 3600.0
# Between its claim and its manifest a backup does three small things.
CLAIM_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """What may be taken away.

    blocked    file → why nothing can be called unreferenced; then all that follows is empty
    abandoned  claims of backups that never became snapshots, older than the grace time (and an hour)
    marked     objects that are newly found unreferenced: they wait for the grace time
    waiting    objects that were marked before and still wait
    due        objects whose grace time is over
    over       tombstones whose time is over: they go once they have done their work (finished)
    sizes      of marked, waiting and due objects
    young      bytes that no snapshot needs, perhaps of a backup that is running
    """

    blocked: dict[str, str]
    abandoned: tuple[str, ...] = ()
    marked: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    due: frozenset[str] = frozenset()
    over: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    young: int = 0


def find_doomed(survey: Survey, removed: frozenset[str], *, now: float, grace: float) -> Doomed:
    """As of `now` by the store's clock, if these snapshots were removed."""
    patience = max(grace, CLAIM_SECONDS)
    abandoned = tuple(sorted(s for s, modified in survey.claims.items() if modified <= now - patience))
    ignored = {REFERENCES + s for s in abandoned}
    blocked = {k: why for k, why in survey.unreadable.items() if k not in ignored and not k.startswith(TOMBSTONES)}
    if blocked:
        return Doomed(blocked=blocked)
    gone = removed | frozenset(abandoned)
    free = survey.free(without=gone)
    # An object of a removed snapshot is no running backup's own; one that nobody names may be, until it is old enough.
    old = {i for i, lying in free.items() if lying.modified <= now - grace or survey.names(removed, i)}
    waiting: set[str] = set()
    due: set[str] = set()
    ended = []
    for stored, tombstone in survey.tombstones:
        over = tombstone.phase is Phase.CONDEMNED or stored.modified + tombstone.grace <= now
        (due if over else waiting).update(i for i in tombstone.objects if i in free)
        if over:
            ended.append(stored.key)
    doomed = old | waiting | due
    return Doomed(
        blocked={},
        abandoned=abandoned,
        marked=frozenset(old - waiting - due),
        waiting=frozenset(waiting - due),
        due=frozenset(due),
        over=tuple(ended),
        sizes={i: free[i].size for i in doomed},
        young=sum(lying.size for i, lying in free.items() if i not in doomed),
    )


def finished(survey: Survey, over: Collection[str], deleted: Collection[str], *, now: float) -> tuple[str, ...]:
    """Which of the tombstones that are `over` can go, by the last survey and what was deleted since.

    One that condemns an object may belong to a prune that is running and deletes that object yet: it protects a backup
    from relying on it, so it stays until none of its objects lies there, or that prune is surely dead.
    """
    return tuple(
        stored.key
        for stored, tombstone in survey.tombstones
        if stored.key in over
        and (
            tombstone.phase is Phase.MARKED
            or stored.modified <= now - DEAD_AFTER
            or all(i in deleted or survey.lying(i) is None for i in tombstone.objects)
        )
    )
