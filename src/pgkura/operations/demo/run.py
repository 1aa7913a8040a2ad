"""Runs the demo with the same operations a user has, on embedded servers of its own."""

import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from textwrap import wrap
from typing import Any

from pgkura.core.access import Access, hold
from pgkura.core.errors import UsageError
from pgkura.core.outcome import Result
from pgkura.core.progress import Progress
from pgkura.operations.backup import BackupResult, back_up
from pgkura.operations.demo import mistake
from pgkura.operations.demo.mistake import Mistake
from pgkura.operations.init import initialise
from pgkura.operations.restore import RestoreResult, execute_restore, plan_restore
from pgkura.postgres.endpoint import Endpoint
from pgkura.postgres.pinning import connect
from pgkura.programs.embedded import EmbeddedServer
from pgkura.repository.keys import HostKey, Identity
from pgkura.repository.repository import Repository
from pgkura.storage.local import LocalStorage

DATABASE = "learning"
_COUNTED = ("auth.users", "public.reservations", "public.lesson_slots", "public.messages", "storage.objects")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What happened."""

    result: Result
    version: str
    counts: dict[str, int]
    backup: BackupResult
    mistake: Mistake
    restored: RestoreResult
    outage_seconds: float
    repository: Path
    identity: Path

    def story(self) -> list[str]:
        """Lines for a person."""
        b, r = self.backup, self.restored
        counted = ", ".join(f"{n:,} {table.partition('.')[2]}" for table, n in self.counts.items())
        stored = b.bytes_stored / 1e6
        same = "equal" if r.proof["equal"] else "NOT EQUAL"
        return [
            "",
            "What happened",
            f"  had      a learning platform on PostgreSQL {self.version}:",
            *(f"           {line}" for line in wrap(f"{counted};", 66)),
            "           users, storage rows, row level security, grants, functions,",
            "           triggers, a large object",
            f"  saved    {b.tables} tables, {b.rows:,} rows in {b.seconds:.1f} s; {stored:.1f} MB, sealed ({b.result})",
            *self.mistake.story(),
            "  lost     everything: the server was stopped, its data directory deleted",
            f"  back     {r.rows:,} rows in {r.restore_seconds:.1f} s, on a new server",
            f"  proof    {same} in {r.proof_seconds:.1f} s: {r.proof['tables']} tables row by row, "
            f"{r.proof['sequences']} sequences,",
            f"           {r.proof['foreign_keys']} foreign keys, {r.proof['objects']} catalog objects",
            f"  outage   {self.outage_seconds:.1f} s from the loss to a proven database",
            f"  backup   {self.repository}",
            f"  identity {self.identity}",
            "           (whoever has it can read the backup; without it nobody can)",
            "",
            "Yours next: pgkura doctor, pgkura init, pgkura backup. See README.md.",
        ]

    def as_json(self) -> dict[str, Any]:
        """The `--json` object."""
        return {
            "result": self.result.value,
            "counts": self.counts,
            "backup": self.backup.as_json(),
            "mistake": self.mistake.as_json(),
            "restore": self.restored.as_json(),
            "outage_seconds": round(self.outage_seconds, 3),
            "repository": str(self.repository),
            "identity": str(self.identity),
        }


def run_demo(rows: int, keep: str, progress: Progress) -> Told:
    """Everything, from nothing; the repository and the keys stay in `keep` (default: a new temporary folder)."""
    folder = _folder(keep)
    storage = LocalStorage(folder / "repository")
    identity_file = folder / "identity.txt"
    made = initialise(storage, identity_file, folder / "host.key", now=datetime.now(UTC))
    host, identity = HostKey.parse(made.host_key.read_text()), Identity.parse(identity_file.read_text())

    progress.stage("starting a PostgreSQL and filling it")
    with EmbeddedServer() as first:
        version, counts = _fill(first, rows)
        access = Access(
            database=hold("demo", first.url(DATABASE)),
            repository=storage.url,
            host_key=f"file:{made.host_key}",
        )
        source, keeper = Endpoint.parse(first.url(DATABASE)), Repository.open(storage, host=host)
        mistake.begin(source, keeper)
        backup = back_up(source, keeper, access, progress=progress)
        beside = Endpoint.parse(first.url(mistake.BEFORE))
        person = Repository.open(storage, identity=identity)
        accident = mistake.happen(source, beside, keeper, person, progress)
    # Leaving the block stopped the server and deleted its data directory: the disaster.
    lost_at = time.monotonic()
    progress.note("disaster: the server is gone and its data directory is deleted")
    progress.stage("starting a second, empty PostgreSQL")
    with EmbeddedServer() as second:
        with connect(Endpoint.parse(second.url()), application_name="pgkura demo") as session:
            session.execute(f"CREATE DATABASE {DATABASE}")
        planned = plan_restore(
            Repository.open(storage, identity=identity),
            "latest",
            Endpoint.parse(second.url(DATABASE)),
            progress=progress,
        )
        restored = execute_restore(planned, progress=progress)
    return Told(
        result=Result.OK if {backup.result, accident.result, restored.result} == {Result.OK} else Result.INCOMPLETE,
        version=version,
        counts=counts,
        backup=backup,
        mistake=accident,
        restored=restored,
        outage_seconds=time.monotonic() - lost_at,
        repository=folder / "repository",
        identity=identity_file,
    )


def _folder(keep: str) -> Path:
    if not keep:
        return Path(tempfile.mkdtemp(prefix="pgkura-demo-"))
    folder = Path(keep).expanduser().absolute()
    if folder.exists():
        raise UsageError(f"{folder} exists already", hint="name a new folder")
    folder.mkdir(parents=True, mode=0o700)
    return folder


def _fill(server: EmbeddedServer, rows: int) -> tuple[str, dict[str, int]]:
    sql = files("pgkura.operations.demo").joinpath("platform.sql").read_text("utf-8")
    with connect(Endpoint.parse(server.url()), application_name="pgkura demo") as session:
        session.execute(f"CREATE DATABASE {DATABASE}")
    with connect(Endpoint.parse(server.url(DATABASE)), application_name="pgkura demo") as session:
        session.execute("SET search_path = public")
        session.execute("SELECT pg_catalog.set_config('demo.rows', %s, false)", (str(rows),))
        session.script(sql)
        version = str(session.one("SHOW server_version")[0])
        return version, {t: int(session.one(f"SELECT count(*) FROM {t}")[0]) for t in _COUNTED}
