"""`timeline`: what can be restored to which moment, and where nothing can be. Touches no database."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pgkura.changes.covers import read_cover
from pgkura.changes.log import Log, read_chain
from pgkura.core.wal import lsn_text
from pgkura.replay.crossing import narrow
from pgkura.replay.moments import time_text
from pgkura.replay.reaching import Window, reaches, windows
from pgkura.replay.resolving import marks
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository

# Seconds: five times as long as an idle watcher waits with its sign of life.
_SILENT = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What one base leads to. `until_lsn` and `until_time` are '' where it leads to nothing but itself.

    from_time  '' where nobody noted it; why: the base was taken by itself; unfit: why it leads nowhere
    """

    snapshot: str
    created: str
    from_lsn: str
    from_time: str
    until_lsn: str
    until_time: str
    why: str = ""
    unfit: str = ""

    def as_json(self) -> dict[str, str]:
        """A line of `stretches`."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Between two chains of a database nothing but snapshots can be restored."""

    database: str
    since: str
    until: str
    reason: str

    def as_json(self) -> dict[str, str]:
        """One of `holes`."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedLine:
    """A table of the newest look: `logged` by key, full rows, inserts alone, or '' not at all, and why not."""

    table: str
    logged: str
    why: str

    def as_json(self) -> dict[str, str]:
        """One of `tables` of a chain."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLine:
    """One chain. `ended`: why it broke, '' while it goes on; `known`: the newest moment it holds; `hole`: before it.

    windows  moments within it that no base leads to
    """

    id: str
    database: str
    began: str
    ended: str
    ended_at: str
    from_lsn: str
    until_lsn: str
    known: str
    segments: int
    stretches: tuple[Stretch, ...]
    marks: tuple[tuple[str, str, str], ...]
    windows: tuple[Window, ...] = ()
    slot: str = ""
    silent: float = 0.0
    tables: tuple[LoggedLine, ...] = ()
    hole: Hole | None = None

    @property
    def watcher_seems_dead(self) -> bool:
        """Nothing was stored for longer than a living watcher would take. The server keeps its log for it meanwhile."""
        return not self.ended and self.silent > _SILENT

    def as_json(self) -> dict[str, Any]:
        """One of `chains`."""
        return {
            "chain": self.id,
            "database": self.database,
            "began": self.began,
            "ended": self.ended,
            "ended_at": self.ended_at,
            "from_lsn": self.from_lsn,
            "until_lsn": self.until_lsn,
            "known": self.known,
            "segments": self.segments,
            "stretches": [s.as_json() for s in self.stretches],
            "windows": [w.as_json() for w in self.windows],
            "slot": self.slot,
            "silent_seconds": self.silent,
            "watcher_seems_dead": self.watcher_seems_dead,
            "tables": [t.as_json() for t in self.tables],
            "marks": [{"name": n, "lsn": lsn, "time": when} for n, lsn, when in self.marks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All chains, oldest first. `rpo_seconds`: by this machine's clock, of each database whose chain goes on."""

    chains: tuple[ChainLine, ...]
    rpo_seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": "ok",
            "chains": [c.as_json() for c in self.chains],
            "holes": [c.hole.as_json() for c in self.chains if c.hole is not None],
            "rpo_seconds": self.rpo_seconds,
        }


def timeline(repo: Repository) -> Timeline:
    """Raises Tampered, StoreError."""
    manifests = repo.manifests()
    why = {str(r.body["snapshot"]): str(r.body["why"]) for r in repo.journal("base")}
    chains: list[ChainLine] = []
    rpo: dict[str, float] = {}
    before: dict[str, ChainLine] = {}
    for chain in repo.chain_ids():
        facts = read_chain(repo, chain)
        if facts is None:
            continue
        log = Log(repo, facts)
        line = _line(repo, log, manifests, why)
        last = before.get(facts.system + facts.database)
        if last is not None:
            first = line.stretches[0].created if line.stretches else ""
            reason = last.ended or "another chain was begun"
            line = replace(line, hole=Hole(database=line.database, since=last.known, until=first, reason=reason))
        chains.append(line)
        before[facts.system + facts.database] = line
        rpo.pop(facts.database, None)
        if log.names and not facts.ended:
            rpo[facts.database] = round(max(time.time() - log.at(len(log.names) - 1).known / 1_000_000, 0.0), 3)
    return Timeline(chains=tuple(chains), rpo_seconds=rpo)


def _line(repo: Repository, log: Log, manifests: list[Manifest], why: Mapping[str, str]) -> ChainLine:
    facts = log.facts
    found = reaches(repo, log, manifests)
    stretches = [
        Stretch(
            snapshot=one.base.manifest.id,
            created=one.base.manifest.created,
            from_lsn=lsn_text(one.first_position),
            from_time=time_text(one.base.time) if one.base.time else "",
            until_lsn=lsn_text(one.last_position) if one.last else "",
            until_time=time_text(one.last.known) if one.last else "",
            why=why.get(one.base.manifest.id, ""),
            unfit=one.unfit,
        )
        for one in found
    ]
    return ChainLine(
        id=facts.id,
        database=facts.database,
        began=facts.began,
        ended=facts.ended or (f"the segment that begins at {facts.missing} is missing" if facts.missing else ""),
        ended_at=facts.ended_at,
        from_lsn=lsn_text(facts.start),
        until_lsn=lsn_text(facts.end),
        known=time_text(log.at(len(log.names) - 1).known) if log.names else facts.began,
        segments=len(log.names),
        stretches=tuple(stretches),
        slot=facts.slot,
        silent=_silent(log),
        tables=_tables(repo, log),
        marks=tuple(
            (n, lsn_text(lsn), time_text(when)) for n, lsn, when in marks(repo, facts.id) if lsn >= facts.start
        ),
        # Without the identity nobody can see what of a base can be carried over a change.
        windows=tuple(narrow(repo, log, w) if repo.can_read_data else w for w in windows(log, found)),
    )


def _silent(log: Log) -> float:
    """Seconds since the last look that was stored, by this machine's clock; 0 for a chain that has ended."""
    if log.facts.ended or not log.names:
        return 0.0
    return round(max(time.time() - log.at(len(log.names) - 1).poll.time / 1_000_000, 0.0), 3)


def _tables(repo: Repository, log: Log) -> tuple[LoggedLine, ...]:
    """How each table was logged when the source was last looked at."""
    if not log.names:
        return ()
    cover = read_cover(repo, log.facts.id, log.at(len(log.names) - 1).poll.shape.rows)
    tables = cover.tables if cover is not None else {}
    return tuple(
        LoggedLine(table=str(name), logged="" if why else logged, why=why) for name, (logged, why) in tables.items()
    )
