"""Which tables the log leads to a moment, which it leaves as of the base, and why. Reads records of segments."""

from collections.abc import Iterator

from pgkura.changes.counting import Judged, Sample, judge_counts, sample
from pgkura.changes.covers import Cover
from pgkura.changes.log import Log
from pgkura.core.errors import Tampered
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding
from pgkura.replay.resolving import Base, Until, place_of
from pgkura.replay.running import INSERTS_ALONE, left_out


def covered_tables(
    log: Log, base: Base, until: Until, cover: Cover, first: Sample | None
) -> tuple[dict[QualifiedName, str], list[Finding]]:
    """Tables and how they are logged; and what must be said of the others, and of those that are not proven.

    `cover`: of the moment's shape; first: counts of the look that saw the base's shape first.
    """
    tables: dict[QualifiedName, str] = {}
    findings = []
    for qname, (logged, why) in cover.tables.items():
        if why:
            findings.append(left_out(f"rows of {qname}", f"as of snapshot {base.manifest.id}: {why}"))
        else:
            tables[qname] = logged
    appended = [qname for qname, logged in tables.items() if logged == INSERTS_ALONE]
    if appended:
        judged = judge_counts(_samples(log, base, first), appended, base.visible, log.at(until.place).top_time)
        findings += _told(judged, appended, base)
        for qname in judged.moved:
            tables.pop(qname, None)
    return tables, findings


def _told(judged: Judged, appended: list[QualifiedName], base: Base) -> Iterator[Finding]:
    for qname in appended:
        if qname in judged.moved:
            why = f"it has no primary key, and {judged.moved[qname]}"
            yield left_out(f"rows of {qname}", f"as of snapshot {base.manifest.id}: {why}")
        elif judged.unknown:
            yield left_out(
                f"updates and deletes in {qname}",
                f"it has no primary key: its inserts are replayed, and {judged.unknown}",
            )


def _samples(log: Log, base: Base, first: Sample | None) -> Iterator[Sample]:
    """From the newest look before the base that tells all, or the chain's own first one of this shape."""
    place = place_of(log, base.after)
    while place > 0 and not _begins(_at(log, place), base):
        place -= 1
    if not _begins(_at(log, place), base) and first is not None:
        yield first
    for later in range(place, len(log.names)):
        one = _at(log, later)
        if one is not None:
            yield one


def first_look(log: Log, base: Base) -> int | None:
    """Place of the look from before a base that its tables' counts are compared with; None where there is none."""
    for place in range(place_of(log, base.after), -1, -1):
        one = _at(log, place)
        if one is None:
            return None
        if _begins(one, base):
            return place
    return None


def _begins(one: Sample | None, base: Base) -> bool:
    return one is not None and one.whole and base.visible.sees_all_of(one.visible)


def _at(log: Log, place: int) -> Sample | None:
    segment = log.at(place)
    try:
        return sample(segment.counted, segment.poll.visible, segment.poll.time)
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered("a record of the change log is damaged", detail="its counts are none") from error
