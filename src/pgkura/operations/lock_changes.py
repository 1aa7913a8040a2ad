"""Object Lock for the change log: each file stays as long as the snapshot with the latest expiry that leads over it.

Every backup that locks does this for what was stored since the last one that did, and for what its own snapshot needs.
Bundles that are made later of what is locked already are not locked: `prune` leaves the locked files beside them.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pgkura.changes.log import Log, read_chain
from pgkura.core.errors import PgkuraError, StoreError, Tampered
from pgkura.core.wal import lsn_text, parse_lsn
from pgkura.operations.prune_changes import needed_from
from pgkura.replay.resolving import bases_in
from pgkura.repository.bundles import BundleName, Run
from pgkura.repository.changes import CHAINS, CHANGES, PartRef
from pgkura.repository.lock_versions import Locked, Locks, Right, Wanted, same_hash
from pgkura.repository.locks import locked_on, time_of
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository
from pgkura.storage.retention import need_retention


def lock_log(repo: Repository, manifest: Manifest, locked: Locked) -> tuple[Locked, dict[str, Any]]:
    """(the snapshot's locks with those of its log, what the journal keeps of it)."""
    if manifest.log is None:
        return locked, {}
    chain = str(manifest.log["chain"])
    locks = Locks(need_retention(repo.storage), locked.mode)
    try:
        facts = read_chain(repo, chain)
        if facts is None:
            return locked, {}
        wanted = {file.key: (file, right) for file, right in _wanted(repo, Log(repo, facts), manifest, locks)}
    except (StoreError, Tampered) as error:
        locks.refuse(f"{CHANGES}{chain}/", f"which files are needed cannot be read: {error.reason}")
        return locks.done(locked.until, locked), {}
    locks.lock(file for file, _ in wanted.values())
    for prefix in (f"{CHAINS}{chain}/", f"{CHANGES}{chain}/"):
        locks.look(prefix, wanted.get)
    done = locks.done(locked.until, locked)
    whole = len(done.refused) == len(locked.refused) and len(done.overwritten) == len(locked.overwritten)
    return done, {"chain": chain, "until": lsn_text(facts.end)} if whole else {}


def _wanted(repo: Repository, log: Log, manifest: Manifest, locks: Locks) -> Iterator[tuple[Wanted, Right]]:
    """(file and until when, what tells that its bytes are right). What cannot be read is refused."""
    now = datetime.now(UTC)
    chain = log.facts.id
    ends = [
        (needed_from(log, base), time_of(base.manifest.expires))
        for base in bases_in(log, [m for m in repo.manifests() if locked_on(m, now)])
    ]
    own = [needed_from(log, base) for base in bases_in(log, [manifest])]
    latest = max((until for _, until in ends), default=None)
    if latest is None:
        return
    for stored in repo.chain_files(chain):
        yield Wanted(key=stored.key, until=latest), partial(_record_opens, repo, stored.key)
    done = _locked_until(repo, chain)
    for run in log.names.runs:
        until = max((until for start, until in ends if run.end > start), default=None)
        if until is not None and (run.end > done or any(run.end > start for start in own)):
            yield Wanted(key=run.key(chain), until=until), partial(_run_opens, repo, chain, run)
            try:
                for key, ref in _beside(repo, chain, run):
                    yield Wanted(key=key, until=until, size=ref.bytes), same_hash(ref.sha256)
            except PgkuraError as error:
                locks.refuse(run.key(chain), f"what it needs is not known: {error.reason}")


def _record_opens(repo: Repository, key: str, data: bytes) -> bool:
    return bool(repo.open_record("chain", key, data))


def _run_opens(repo: Repository, chain: str, run: Run, data: bytes) -> bool:
    if isinstance(run, BundleName):
        return bool(repo.bundle_head(chain, run, data))
    return bool(repo.signed_segment(chain, run, data))


def _beside(repo: Repository, chain: str, run: Run) -> Iterator[tuple[str, PartRef]]:
    """The files without a signature that a run needs, as it says."""
    if isinstance(run, BundleName):
        head = repo.bundle_head(chain, run)
        yield from ((f"{CHANGES}{chain}/bodies/{ref.id}", ref) for ref in head.bodies)
        yield from ((f"{CHANGES}{chain}/parts/{ref.id}", ref) for ref in head.parts)
    else:
        for part in repo.segment(chain, run)[0]["parts"]:
            ref = PartRef(id=part["id"], bytes=part["bytes"], sha256=part["sha256"])
            yield f"{CHANGES}{chain}/parts/{ref.id}", ref


def _locked_until(repo: Repository, chain: str) -> int:
    """How far an earlier backup locked this log without a refusal, as the journal says."""
    logs = (record.body.get("log") or {} for record in repo.journal("lock"))
    return max((parse_lsn(told["until"]) for told in logs if told.get("chain") == chain), default=0)
