"""Which files of a chain nobody needs any more, and their deletion once the grace time is over.

Three kinds of files wait for it, each counted by the store's own times: what a bundle holds again, from the bundle's
file on; what lies before a *cut*, from the cut's record on; all of a chain that is *gone*, from that record on. So what
was said first makes readers see the log without it, and whoever still reads has the grace time to finish. Parts and
bodies that no record names are orphans once something that came after them is stored.

A record is never enough: nothing goes that a kept snapshot needs, and nothing for a bundle that another host made
before each of its segments was compared with the one that goes. Else a thief of a host's key could have prune delete.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pgkura.changes.spans import covered, replaced
from pgkura.core.errors import PgkuraError, StoreError, Tampered
from pgkura.core.wal import lsn_text
from pgkura.repository.bundles import CUT, GONE, Bundle, BundleName, Cut, Entry, Run, run_name
from pgkura.repository.changes import CHANGES, END, HEAD, START
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyNotFound, Stored

MARK = "mark-"
# A position behind all.
NOTHING = 1 << 64
_AT_ONCE = 8
# Between a part and its segment, or a body and its bundle, a writer does one small thing; a large transaction aside.
_ORPHAN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What decides about a chain's files.

    ended        nothing will be added
    needed_from  what ends behind this position is needed; NOTHING = no part of the chain is
    locked_from  the same of snapshots that the store keeps whoever wants them away: bundles of it are no replacement
    """

    ended: bool
    needed_from: int
    locked_from: int = NOTHING


@dataclass(slots=True, kw_only=True)
class Retired:
    """Files of one chain.

    due      in the order in which they are deleted
    withdrawn records that say that something goes which is needed
    waiting  nobody needs them, but their grace time is not over (or a locked snapshot keeps them)
    problems file → why it counts for nothing
    """

    due: list[Stored] = field(default_factory=list)
    waiting: list[Stored] = field(default_factory=list)
    withdrawn: list[Stored] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def find_retired(
    repo: Repository, chain: str, facts: Facts, *, now: float, grace: float, compare: bool = False
) -> Retired:
    """Reads the chain's lists. `compare`: also whatever a deletion must be sure of. Raises Tampered, StoreError."""
    records = {s.key.rpartition("/")[2]: s for s in repo.chain_files(chain)}
    over = now - grace
    found = Retired()
    if GONE in records and repo.chain_gone(chain):
        # Without its start it is nothing to anybody: another prune is about to delete the rest.
        if facts.needed_from == NOTHING or START not in records:
            (found.due if records[GONE].modified <= over else found.waiting).extend(_all_files(repo, chain, records))
            return found
        found.withdrawn.append(records[GONE])
    files = {name: s for s in repo.run_files(chain) if (name := run_name(s.key)) is not None}
    cuts = [cut for cut in repo.chain_cuts(chain) if cut.name in records]
    _before_the_cut(cuts, records, files, facts, over, found)
    _replaced(repo, chain, files, facts, over, found, compare=compare)
    _orphans(repo, chain, files, facts, min(over, now - _ORPHAN_SECONDS), found)
    return found


def _all_files(repo: Repository, chain: str, records: Mapping[str, Stored]) -> list[Stored]:
    """First the log, then what tells of it. Without its start it is no chain; without its end it would seem to live."""
    last = [name for name in (START, END, GONE, HEAD) if name in records]
    return [
        *sorted(repo.storage.list(f"{CHANGES}{chain}/"), key=lambda s: s.key),
        *(stored for name, stored in records.items() if name not in last),
        *(records[name] for name in last),
    ]


def _before_the_cut(
    cuts: Sequence[Cut],
    records: Mapping[str, Stored],
    files: dict[Run, Stored],
    facts: Facts,
    over: float,
    found: Retired,
) -> None:
    early = [cut for cut in cuts if cut.position > facts.needed_from]
    there, end = covered(facts.needed_from, files) > facts.needed_from, max((run.end for run in files), default=0)
    # Where nothing of what it takes away is there any more, a cut stays: without it the log would seem to have a gap.
    found.withdrawn += [records[cut.name] for cut in early if there or cut.position > end]
    good = [cut for cut in cuts if cut.position <= facts.needed_from]
    due = [cut for cut in good if records[cut.name].modified <= over]
    until = due[-1].position if due else -1
    for run in [run for run in files if good and run.end <= good[-1].position]:
        (found.due if run.end <= until else found.waiting).append(files.pop(run))
    if due:
        before = f"{until:016X}"
        found.due += [s for name, s in records.items() if name.startswith(MARK) and name[len(MARK) :] <= before]
        found.due += [records[cut.name] for cut in due[:-1]]


def _replaced(
    repo: Repository,
    chain: str,
    files: dict[Run, Stored],
    facts: Facts,
    over: float,
    found: Retired,
    *,
    compare: bool,
) -> None:
    """What lies in a bundle that opens, whose bodies and parts are there."""
    bundles = [run for run in files if isinstance(run, BundleName)]
    maybe = replaced(list(files), bundles)
    if not maybe:
        return
    there = {i: s.size for place in ("bodies", "parts") for i, s in repo.loose_files(chain, place).items()}
    useful = [b for b in bundles if any(_within(run, b) for run in maybe)]
    sound = [b for b in useful if _is_sound(repo, chain, b, there, found)]
    gone = replaced(list(files), [b for b in sound if files[b].modified <= over])
    due = {run for run in gone if run.end <= facts.locked_from}
    if compare:
        due &= _surely_replaced(repo, chain, due, sound, found)
    for run in maybe:
        (found.due if run in due else found.waiting).append(files[run])
    for run in due:
        del files[run]


def _within(run: Run, bundle: BundleName) -> bool:
    return run != bundle and bundle.start <= run.start and run.end <= bundle.end


def _is_sound(repo: Repository, chain: str, bundle: BundleName, there: Mapping[str, int], found: Retired) -> bool:
    key = bundle.key(chain)
    try:
        head = repo.bundle_head(chain, bundle)
    except KeyNotFound:
        return False
    except PgkuraError as error:
        found.problems[key] = error.reason
        return False
    lost = [ref for ref in (*head.bodies, *head.parts) if there.get(ref.id) != ref.bytes]
    if lost:
        found.problems[key] = f"{len(lost)} files that it needs are missing, among them {lost[0].id}"
    return not lost


def _surely_replaced(
    repo: Repository, chain: str, runs: set[Run], bundles: Sequence[BundleName], found: Retired
) -> set[Run]:
    """Those that lie in a bundle of our own, or of which every byte lies in another host's bundle."""
    sure: set[Run] = set()
    for name in bundles:
        inside = {run for run in runs - sure if _within(run, name)}
        if not inside:
            continue
        try:
            bundle = repo.bundle(chain, name)
            if bundle.head.signer != repo.host_id:
                inside = _equal(repo, chain, inside, bundle, found)
        except PgkuraError as error:
            found.problems[name.key(chain)] = error.reason
            continue
        sure |= inside
    return sure


def _equal(repo: Repository, chain: str, runs: set[Run], bundle: Bundle, found: Retired) -> set[Run]:
    entries = {e.name: e for e in bundle.entries}
    for ref in bundle.head.bodies:
        data = repo.body(chain, ref)
        for entry in (e for e in bundle.entries if e.body == ref):
            if hashlib.sha256(data[entry.offset : entry.offset + entry.size]).hexdigest() != entry.sha256:
                raise Tampered(f"a body of {bundle.head.name.key(chain)} is not what it says")

    def same(run: Run) -> bool | None:
        """None for what two writers cut differently: it stays."""
        try:
            if isinstance(run, BundleName):
                told = repo.bundle(chain, run).entries
            else:
                told = (Entry.of(run, *repo.segment(chain, run)),)
        except KeyNotFound:
            return None
        except PgkuraError as error:
            found.problems[run.key(chain)] = error.reason
            return None
        if any(e.name not in entries for e in told):
            return None
        return all(_same(entries[e.name], e) for e in told)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told = dict(zip(runs, pool.map(same, runs), strict=True))
    for run in (run for run, equal in told.items() if equal is False):
        found.problems[run.key(chain)] = f"it is not what {bundle.head.name.key(chain)} says that it was"
    return {run for run, equal in told.items() if equal}


def _same(known: Entry, entry: Entry) -> bool:
    return (known.record, known.sha256) == (entry.record, entry.sha256)


def _orphans(
    repo: Repository, chain: str, files: Mapping[Run, Stored], facts: Facts, over: float, found: Retired
) -> None:
    """Nothing where any record of the chain does not open. `files`: those that stay."""
    newest = max((s.modified for run, s in files.items() if not isinstance(run, BundleName)), default=0.0)
    # A watcher stores one after the other: a part of a transaction that still comes is younger than all segments.
    limits = {"parts": over if facts.ended else min(over, newest - 0.001), "bodies": over}
    old = [s for place, limit in limits.items() for s in repo.loose_files(chain, place).values() if s.modified <= limit]
    if not old:
        return
    try:
        named = _named(repo, chain, files)
    except PgkuraError as error:
        found.problems[f"{CHANGES}{chain}"] = f"no part can be called unneeded: {error.msg}"
        return
    found.due += [s for s in old if s.key.rpartition("/")[2] not in named]


def _named(repo: Repository, chain: str, files: Iterable[Run]) -> set[str]:
    named: set[str] = set()
    for run in files:
        if isinstance(run, BundleName):
            head = repo.bundle_head(chain, run)
            named.update(ref.id for ref in (*head.bodies, *head.parts))
        else:
            named.update(part["id"] for part in repo.segment(chain, run)[0]["parts"])
    return named


def cut_before(repo: Repository, chain: str, position: int, top_xid: int, reason: str) -> None:
    """Say that what lies before a position goes."""
    name = f"{CUT}{position:016X}"
    record = {"position": lsn_text(position), "top_xid": top_xid, "reason": reason}
    repo.put_chain_record(chain, name, record)


def gone(repo: Repository, chain: str, reason: str) -> None:
    """Say that a chain goes as a whole."""
    repo.put_chain_record(chain, GONE, {"reason": reason})


def delete_files(repo: Repository, files: Iterable[Stored], done: Callable[[Stored], None]) -> str:
    """One after the other; at the first refusal it ends, with the store's reason ('' = all are gone)."""
    for stored in files:
        try:
            repo.storage.delete(stored.key)
        except StoreError as error:
            next(iter(repo.storage.list(stored.key)), None)  # a store that is not there at all ends the run here
            return f"{stored.key}: {error.detail or error.msg}"
        done(stored)
    return ""
