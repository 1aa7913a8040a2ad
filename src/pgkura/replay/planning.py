"""`--at`: which base, which segments, and what cannot be had. Reads the repository, writes nothing."""

from collections.abc import Callable, Sequence

from pgkura.changes.log import Log, read_chain
from pgkura.core.errors import Unreachable
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import Finding
from pgkura.replay.carrying import CannotCarry
from pgkura.replay.coverage import covered_tables
from pgkura.replay.crossing import Crossing, cross, narrow
from pgkura.replay.moments import Kind, Moment
from pgkura.replay.reaching import Reach, check_base, guess, nearest, reach, reaches, windows
from pgkura.replay.resolving import Base, Until, bases_in, choose_base, first_place, place_of, resolve
from pgkura.replay.running import Over, ReplayPlan, left_out
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
    where: int | None = None
    # `latest` is never the end of an older chain: what is behind a hole would be left out without a word.
    for log in logs[:1] if moment.kind is Kind.LATEST else logs:
        until: Until | None = None
        try:
            until = resolve(repo, log, moment)
            bases = bases_in(log, manifests)
            try:
                return _plan(repo, log, choose_base(log, bases, until), until)
            except Unreachable as refused:
                return _over(repo, log, bases, until, refused)
        except Unreachable as refused:
            refusals.append(refused)
            where = until.last if until is not None else guess(log, moment) if where is None else where
    raise _refused(refusals, lambda: _instead(repo, logs, manifests, where))


def _instead(repo: Repository, logs: Sequence[Log], manifests: list[Manifest], where: int | None) -> str:
    """Over all chains of the database: their positions ascend."""
    found: list[Reach] = []
    for log in logs:
        own = reaches(repo, log, manifests)
        found += own
        for window in windows(log, own):
            if where is not None and window.holds(where):
                window = narrow(repo, log, window)
                until = window.until_time or "now"
                return f"{window.instead} (not exact between {window.since_time} and {until}: {window.reason})"
    return nearest(found, where)


def _refused(refusals: Sequence[Unreachable], instead: Callable[[], str]) -> Unreachable:
    if not refusals:
        return Unreachable("this database has no change log", hint="`pgkura watch`, then `pgkura backup`, begin one")
    details = [refusals[0].detail]
    if len(refusals) > 1:
        details = [f"{r.msg}: {r.detail}" if r.detail else r.msg for r in refusals]
    hints = dict.fromkeys([*(r.hint for r in refusals), instead()])
    return Unreachable(refusals[0].msg, detail="; ".join(dict.fromkeys(details)), hint="; ".join(filter(None, hints)))


def _plan(repo: Repository, log: Log, base: Base, until: Until, over: Crossing | None = None) -> ReplayPlan:
    own = check_base(repo, log, base)
    tables, findings = covered_tables(log, base, until, own if over is None else over.cover, own.first)
    first = first_place(log, base, until.place)
    definitions = base if over is None else over.definitions
    return ReplayPlan(
        log=log,
        base=base,
        until=until,
        first=first,
        tables=tables,
        findings=(*findings, *_other(log, definitions, until)),
        sequences=_sequences(log, base, until),
        segments=until.place - first + 1,
        bytes=log.size(first, until.place),
        exact=(base.after, reach(repo, log, base).last_position) if over is None else (over.since, until.last),
        over=Over(definitions=over.definitions.manifest, carrying=over.carrying) if over is not None else None,
    )


def _over(repo: Repository, log: Log, bases: list[Base], until: Until, refused: Unreachable) -> ReplayPlan:
    """From the base before a change of definitions into the definitions of the one after it. Raises `refused`."""
    try:
        over = cross(repo, log, bases, until)
    except CannotCarry as why:
        raise Unreachable(refused.msg, detail=f"{refused.detail}; {why.why}", hint=refused.hint) from why
    return _plan(repo, log, over.base, until, over)


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
