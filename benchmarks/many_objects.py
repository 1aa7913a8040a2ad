"""Many objects, many snapshots, simulated: what prune, copy and verify of a repository hold in memory.

    PGKURA_REPOSITORY=… PGKURA_IDENTITY=… PGKURA_HOST_KEY=… python -m benchmarks.many_objects STEP OBJECTS SNAPSHOTS

`make` fills an initialised folder: every snapshot needs all objects but a few of its own. The others are the verbs.
"""

import hashlib
import json
import resource
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from pgkura.app.compose import Composition
from pgkura.app.settings import read_settings
from pgkura.core.memory import rarely_collect, use_again
from pgkura.core.progress import Silent
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.operations.copy import copy_snapshots
from pgkura.operations.prune import execute_prune, plan_prune
from pgkura.repository.check import check_repository
from pgkura.repository.lists import TableData, write_chunk_list
from pgkura.repository.manifest import Manifest, new_id
from pgkura.repository.packs import object_key
from pgkura.repository.repository import Repository
from pgkura.repository.retention import Rules
from pgkura.snapshot.components import store_components
from pgkura.storage.local import LocalStorage

CONTENT = b"sealed"
OWN = 10
PER_OBJECT = 2


def _object(folder: Path) -> list[ChunkRef]:
    ref = ObjectRef(id=secrets.token_hex(16), cipher_bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    path = folder / object_key(ref.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return [
        ChunkRef(object=ref, offset=n * 10, stored=10, length=20, rows=1, mac=secrets.token_hex(32))
        for n in range(PER_OBJECT)
    ]


def make(repo: Repository, folder: Path, objects: int, snapshots: int) -> object:
    """Objects of a few bytes, and honest lists of them."""
    shared = [ref for _ in range(objects) for ref in _object(folder)]
    for number in range(snapshots):
        own = [ref for _ in range(OWN) for ref in _object(folder)]
        moment = datetime.now(UTC) - timedelta(days=snapshots - number)
        refs = shared + own
        table = TableData(
            number=0,
            name="t",
            columns="",
            target="t",
            rows=len(refs),
            bytes=20 * len(refs),
            layers=[Layer(chunk=ref) for ref in refs],
        )
        listed = store_components(repo, {"chunks": write_chunk_list([table])})
        manifest = Manifest(
            id=new_id(moment, None),
            created=f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            host_id=repo.host_id,
            database="simulated",
            server_version_num=150000,
            system_identifier="1",
            snapshot="1:1:",
            lsn="0/0",
            pgkura_version="0",
            pg_dump_version="0",
            result="ok",
            skipped=(),
            accepted=(),
            counts={},
            components=listed.components,
        )
        repo.commit_snapshot(manifest, chain(own if number else refs, listed.new), needed=refs)
    return snapshots


def nothing(repo: Repository, folder: Path, objects: int, snapshots: int) -> object:
    """What an opened repository takes."""
    return 0


def prune(repo: Repository, folder: Path, objects: int, snapshots: int) -> object:
    """Half of the snapshots go; packing anew is planned too."""
    planned = plan_prune(repo, Rules(last=snapshots // 2), grace=0, progress=Silent())
    return execute_prune(planned, progress=Silent()).as_json()


def copy(repo: Repository, folder: Path, objects: int, snapshots: int) -> object:
    """All of them."""
    target = LocalStorage(folder.parent / "copy")
    return copy_snapshots(repo, target, (), everything=True, progress=Silent()).done.objects


def verify(repo: Repository, folder: Path, objects: int, snapshots: int) -> object:
    """In sealed form: the objects hold nothing."""
    report = check_repository(repo, repo.manifest_ids(), deep=False, progress=Silent())
    return [report.objects, report.orphans, [str(p) for p in report.problems[:2]]]


STEPS: dict[str, Callable[[Repository, Path, int, int], object]] = {
    f.__name__: f for f in (make, nothing, verify, copy, prune)
}


def main() -> None:
    """One step."""
    use_again()
    rarely_collect()
    step, objects, snapshots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    settings = read_settings()
    repo = Composition(settings).repository()
    begun = time.monotonic()
    answer = STEPS[step](repo, Path(settings.repository_url), objects, snapshots)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"step": step, "peak_mb": peak, "seconds": round(time.monotonic() - begun, 1), "answer": answer}))


if __name__ == "__main__":
    main()
