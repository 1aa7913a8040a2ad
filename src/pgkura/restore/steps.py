"""A plan step by step, in the order in which it is carried out: what `--dry-run` shows. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pgkura.catalog.components import stage_of
from pgkura.catalog.kinds import Stage
from pgkura.catalog.roles import Statement
from pgkura.catalog.toc import Entry
from pgkura.core.names import QualifiedName
from pgkura.repository.lists import BLOBS
from pgkura.restore.loads import Load
from pgkura.restore.planner import RestorePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is done. `stage` is the plan's, `what` an object by name, `rows` and `bytes` of loads only."""

    stage: Stage
    action: str
    what: str
    rows: int = 0
    bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """The shape in `restore --dry-run --json`."""
        out: dict[str, Any] = {"stage": self.stage.value, "action": self.action, "object": self.what}
        return out | ({"rows": self.rows, "bytes": self.bytes} if self.action == "load" else {})


def steps(plan: RestorePlan) -> tuple[Step, ...]:
    """Everything, first to last; what follows the rows runs in parallel where dependencies allow."""
    return tuple(_steps(plan))


def _steps(plan: RestorePlan) -> Iterator[Step]:
    if plan.started_over and plan.cut_short is not None:
        for desc, schema, tag in sorted(plan.cut_short.ours - plan.cut_short.before):
            name = f"{desc} {schema + '.' if schema else ''}{tag}"
            yield Step(stage=Stage.SCHEMA, action="drop (of the restore that was cut short)", what=name)
    yield from _statements(Stage.ROLES, plan.roles)
    if not plan.goes_on:
        yield from _entries(plan, "create", plan.before)
    for table in plan.truncate:
        yield Step(stage=Stage.DATA, action="empty", what=f"table {table}")
    for large in plan.large_objects if BLOBS not in plan.kept.layers else ():
        yield Step(stage=Stage.DATA, action="load", what=f"large object {large.oid}", bytes=large.size)
    for load in plan.loads:
        if not plan.kept.whole(load):
            yield _load(load, plan)
    yield from _entries(plan, "create", [e for e in plan.after if e.dump_id not in plan.kept.there])
    for state in plan.sequences:
        value = f"{state.last_value}{'' if state.is_called else ' (not used yet)'}"
        yield Step(stage=Stage.SEQUENCES, action=f"set to {value}", what=f"sequence {state.qname}")
    yield from _entries(plan, "grant", plan.privileges)
    yield from _matviews(plan)
    yield from _statements(Stage.SCHEMA, plan.database)
    for name, _, _ in plan.facts.secrets:
        yield Step(stage=Stage.DATA, action="create under a new id", what=f"vault secret {name or '(unnamed)'}")
    for name, _, command, _, _, _ in plan.facts.cron_jobs:
        yield Step(stage=Stage.DATA, action="create, switched off", what=f"cron job {name or command}")
    yield from _entries(plan, "create", plan.last)


def _statements(stage: Stage, statements: Iterable[Statement]) -> Iterator[Step]:
    # The statement itself may hold a password hash; its object is what a person needs to see.
    for one in statements:
        yield Step(stage=stage, action="change" if stage is Stage.SCHEMA else "create or change", what=one.object)


def _entries(plan: RestorePlan, action: str, entries: Iterable[Entry]) -> Iterator[Step]:
    for entry in entries:
        how = f"{action} as its owner" if entry.dump_id in plan.as_owner else action
        yield Step(stage=stage_of(entry), action=how, what=plan.titles.get(entry.dump_id, entry.title))


def _load(load: Load, plan: RestorePlan) -> Step:
    return Step(
        stage=Stage.DATA,
        action="load",
        what=f"table {load.target}",
        rows=load.data.rows - plan.kept.rows([load]),
        bytes=load.data.bytes - plan.kept.bytes([load]),
    )


def _matviews(plan: RestorePlan) -> Iterator[Step]:
    populated = {t.qname for t in plan.facts.tables if t.kind == "m" and t.populated}
    for entry in plan.before:
        if entry.desc == "MATERIALIZED VIEW" and QualifiedName(entry.schema, entry.tag) in populated:
            yield Step(stage=Stage.VIEWS, action="fill", what=plan.titles.get(entry.dump_id, entry.title))
