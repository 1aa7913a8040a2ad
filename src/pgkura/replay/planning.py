"""`--at`: which base, which segments, and what cannot be had. Reads the repository, writes nothing."""

from collections.abc import Sequence

from pgkura.changes.log import Log, read_chain
from pgkura.core.errors import Unreachable
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding
from pgkura.replay.moments import Kind, Moment
from pgkura.replay.resolving import Base, Until, bases_of, choose_base, first_place, nearest, place_of, resolve
from pgkura.replay.running import ReplayPlan, left_out
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository

DEFINITIONS = "definitions"
LARGE_OBJECTS = "large objects"


def logs_of(repo: Repository, manifest: Manifest) -> list[Log]:
    """Of the database of a snapshot, newest first."""
    found = (read_chain(repo, chain) for chain in reversed(repo.chain_ids()))
    same = (manifest.system_identifier, manifest.database)
    return [Log(repo, facts) for facts in found if facts is not None and (facts.system, facts.database) == same]


def plan_replay(repo: Repository, which: str, moment: Moment) -> ReplayPlan:
    """`which`: the base to start from, `latest` for the best one. Raises Unreachable, RepositoryNotFound, Tampered."""
    named = repo.manifest(which)
    manifests = [named] if which != "latest" else repo.manifests()
    refusals: list[Unreachable] = []
    logs = logs_of(repo, named)
    # `latest` is never the end of an older chain: what is behind a hole would be left out without a word.
    for log in logs[:1] if moment.kind is Kind.LATEST else logs:
        bases = bases_of(manifests, log.facts.id)
        try:
            until = resolve(repo, log, moment)
            return _plan(repo, log, choose_base(log, bases, until), until)
        except Unreachable as refused:
            hints = dict.fromkeys((refused.hint, nearest(log, bases)))
            refusals.append(Unreachable(refused.msg, detail=refused.detail, hint="; ".join(filter(None, hints))))
    raise _refused(refusals)


def _refused(refusals: Sequence[Unreachable]) -> Unreachable:
    if not refusals:
        return Unreachable("this database has no change log", hint="`pgkura watch`, then `pgkura backup`, begin one")
    if len(refusals) == 1:
        return refusals[0]
    return Unreachable(
        refusals[0].msg,
        detail="; ".join(dict.fromkeys(f"{r.msg}: {r.detail}" if r.detail else r.msg for r in refusals)),
        hint="; ".join(dict.fromkeys(r.hint for r in refusals if r.hint)),
    )


def _plan(repo: Repository, log: Log, base: Base, until: Until) -> ReplayPlan:
    cover = repo.chain_record(log.facts.id, f"cover-{base.rows}")
    if cover is None:
        raise Unreachable(
            f"snapshot {base.manifest.id} was taken while tables changed",
            detail="no look of the watcher's shows the tables as it has them",
            hint="`pgkura backup` makes a new base",
        )
    if base.visible.xmin < cover["settled"]:
        raise Unreachable(
            f"snapshot {base.manifest.id} was taken while a transaction ran that is older than a table in the log",
            detail=f"transaction {base.visible.xmin} may have changed it, and the log would not have all of that",
            hint="`pgkura backup` makes a new base once it has ended",
        )
    tables = {QualifiedName(schema, name): identity for schema, name, identity, why in cover["tables"] if not why}
    findings = [
        left_out(f"rows of {QualifiedName(schema, name)}", f"as of snapshot {base.manifest.id}: {why}")
        for schema, name, _, why in cover["tables"]
        if why
    ]
    first = first_place(log, base, until.place)
    return ReplayPlan(
        log=log,
        base=base,
        until=until,
        first=first,
        tables=tables,
        findings=(*findings, *_other(log, base, until)),
        sequences=_sequences(log, base, until),
        segments=until.place - first + 1,
        bytes=sum(log.at(p).bytes for p in range(first, until.place + 1)),
    )


def _other(log: Log, base: Base, until: Until) -> list[Finding]:
    if log.at(until.judge).poll.shape.definitions == base.definitions:
        return []
    why = (
        f"something beside tables and columns was changed since: all definitions are as of snapshot {base.manifest.id}"
    )
    return [left_out(DEFINITIONS, why)]


def _sequences(log: Log, base: Base, until: Until) -> dict[QualifiedName, int]:
    """The first look after the moment counts: never below what was used."""
    found: dict[QualifiedName, int] = {}
    for place in range(place_of(log, base.after), until.judge + 1):
        segment = log.at(place)
        if segment.poll.position >= base.after:
            found |= {QualifiedName(schema, name): value for schema, name, value in segment.sequences}
    return found
