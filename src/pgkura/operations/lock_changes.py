"""Object Lock for the change log: each file stays as long as the snapshot with the latest expiry that leads over it.

Every backup that locks does this for what was stored since the last one that did, and for what its own snapshot needs.
Bundles that are made later of what is locked already are not locked: `prune` leaves the locked files beside them.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pgkura.changes.log import Log, read_chain
from pgkura.core.errors import PgkuraError
from pgkura.core.wal import lsn_text, parse_lsn
from pgkura.operations.prune_changes import needed_from
from pgkura.replay.resolving import bases_in
from pgkura.repository.bundles import BundleName, Run
from pgkura.repository.changes import CHANGES
from pgkura.repository.locks import Locked, locked_on, time_of
from pgkura.repository.manifest import Manifest
from pgkura.repository.repository import Repository
from pgkura.storage.retention import need_retention

_AT_ONCE = 8


def lock_log(repo: Repository, manifest: Manifest, locked: Locked) -> tuple[Locked, dict[str, Any]]:
    """(the snapshot's locks with those of its log, what the journal keeps of it)."""
    if manifest.log is None:
        return locked, {}
    chain = str(manifest.log["chain"])
    facts = read_chain(repo, chain)
    if facts is None:
        return locked, {}
    log = Log(repo, facts)
    retention = need_retention(repo.storage)

    def lock(item: tuple[str, datetime]) -> tuple[str, str, bool]:
        key, until = item
        try:
            return key, "", retention.lock(key, until=until, mode=locked.mode)
        except PgkuraError as error:
            return key, f"{error.msg}: {error.detail}" if error.detail else error.msg, False

    files, extended, refused = locked.files, locked.extended, list(locked.refused)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for key, why, changed in pool.map(lock, _wanted(repo, log, manifest)):
            files += 1
            extended += changed
            if why:
                refused.append((key, why))
    told = {"chain": chain, "until": lsn_text(facts.end)} if len(refused) == len(locked.refused) else {}
    return replace(locked, files=files, extended=extended, refused=tuple(refused)), told


def _wanted(repo: Repository, log: Log, manifest: Manifest) -> Iterator[tuple[str, datetime]]:
    """(file, until when)."""
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
        yield stored.key, latest
    done = _locked_until(repo, chain)
    for run in log.names.runs:
        until = max((until for start, until in ends if run.end > start), default=None)
        if until is not None and (run.end > done or any(run.end > start for start in own)):
            for key in _files(repo, chain, run):
                yield key, until


def _files(repo: Repository, chain: str, run: Run) -> Iterator[str]:
    yield run.key(chain)
    if isinstance(run, BundleName):
        head = repo.bundle_head(chain, run)
        yield from (f"{CHANGES}{chain}/bodies/{ref.id}" for ref in head.bodies)
        yield from (f"{CHANGES}{chain}/parts/{ref.id}" for ref in head.parts)
    else:
        yield from (f"{CHANGES}{chain}/parts/{part['id']}" for part in repo.segment(chain, run)[0]["parts"])


def _locked_until(repo: Repository, chain: str) -> int:
    """How far an earlier backup locked this log without a refusal, as the journal says."""
    logs = (record.body.get("log") or {} for record in repo.journal("lock"))
    return max((parse_lsn(told["until"]) for told in logs if told.get("chain") == chain), default=0)
