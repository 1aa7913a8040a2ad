"""What `restore --at` tells beside a plain restore."""

from dataclasses import replace
from typing import Any

from pgkura.core.outcome import Finding, FindingClass
from pgkura.core.wal import lsn_text
from pgkura.replay.carrying import Carrying
from pgkura.replay.moments import parse_moment
from pgkura.replay.planning import LARGE_OBJECTS
from pgkura.replay.running import REFUSED, Replay, ReplayPlan, left_out
from pgkura.repository.lists import TableData
from pgkura.restore.loads import Load
from pgkura.restore.planner import RestorePlan
from pgkura.verify.proof import Beyond


def findings_of(replay: ReplayPlan, plan: RestorePlan) -> tuple[Finding, ...]:
    """What will be as of the base, or cannot be replayed. Without `--trust-code` nothing runs others' code."""
    found = list(replay.findings)
    if plan.large_objects:
        found.append(left_out(LARGE_OBJECTS, f"as of snapshot {plan.snapshot}: they are not in a change log"))
    found += [
        Finding(cls=FindingClass.LOST, object=f"rows of {name}", reason=REFUSED)
        for name in plan.watched
        if name in replay.tables
    ]
    return tuple(found)


def replay_notes(replay: ReplayPlan) -> list[str]:
    """Under the plan's table."""
    until = replay.until
    how = "all that this snapshot sees" if until.visible else f"all commits up to {lsn_text(until.last)}"
    return [
        f"then to {until.moment.text!r}: {how}, from {replay.segments:,} segments ({replay.bytes:,} bytes) of chain "
        f"{replay.log.facts.id}",
        *_over_note(replay),
        f"this base leads exactly from {lsn_text(replay.exact[0])} to {lsn_text(replay.exact[1])}",
    ]


def _over_note(replay: ReplayPlan) -> list[str]:
    if replay.over is None:
        return []
    altered, made = len(replay.over.carrying.forms), len(replay.over.carrying.made)
    return [
        f"rows of snapshot {replay.base.manifest.id} in the definitions of {replay.over.definitions.id}, which are "
        f"those of the moment: {altered} altered and {made} new relations"
    ]


def replay_json(replay: ReplayPlan) -> dict[str, Any]:
    """`at` of `restore --dry-run --json`."""
    return {
        "asked": replay.until.moment.text,
        "chain": replay.log.facts.id,
        "up_to": lsn_text(replay.until.last),
        "segments": replay.segments,
        "bytes": replay.bytes,
        "exact_from": lsn_text(replay.exact[0]),
        "exact_until": lsn_text(replay.exact[1]),
        **({"rows_of": replay.base.manifest.id} if replay.over is not None else {}),
    }


def replayed_json(replay: Replay) -> dict[str, Any]:
    """`at` of `restore --json`. A change that did not meet its row ends the restore; one that was refused is told."""
    return {**replay_json(replay.plan), **replay.done.as_json()}


def in_form(carrying: Carrying, load: Load) -> Load:
    """A load of rows that are older than the table's present form."""
    form = carrying.forms.get(load.facts.oid) if load.facts is not None else None
    return load if form is None else replace(load, form=form)


def beyond_of(replay: Replay, plan: RestorePlan, data: tuple[TableData, ...] | None) -> Beyond:
    """What the proof must not compare with the base, and which rows it compares with."""
    values = replay.plan.sequences
    over = replay.plan.over
    altered = {t.qname for t in plan.facts.tables if over is not None and t.oid in over.carrying.forms}
    return Beyond(
        sequences=tuple(
            replace(s, last_value=values[s.qname], is_called=True) if s.qname in values else s
            for s in plan.facts.sequences
        ),
        tables=frozenset(replay.done.tables | altered),
        data=data,
    )


__all__ = ["beyond_of", "findings_of", "in_form", "parse_moment", "replay_json", "replay_notes", "replayed_json"]
