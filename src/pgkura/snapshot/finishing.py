"""After the rows: sequences, components, manifest, journal. The snapshot exists when the manifest is written."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import IO

from pgkura import __version__
from pgkura.catalog.inventory import read_items
from pgkura.catalog.kinds import COMPONENTS
from pgkura.catalog.unstated import unstated_items, unstated_privileges
from pgkura.core.errors import DatabaseError
from pgkura.core.facts import SequenceState, SourceFacts, TableFacts
from pgkura.core.names import QualifiedName, quote_ident
from pgkura.core.outcome import Finding, FindingClass, Result, decide
from pgkura.core.platform import Platform
from pgkura.postgres.facts import read_sequences
from pgkura.postgres.patience import DEADLOCK, LOCK_NOT_AVAILABLE, patient
from pgkura.postgres.session import Session, SqlError
from pgkura.repository import canonical
from pgkura.repository.lists import BLOBS, TableData, write_chunk_list
from pgkura.repository.locks import expiry
from pgkura.repository.manifest import Component, Manifest, new_id
from pgkura.repository.repository import Repository
from pgkura.repository.spool import objects_of
from pgkura.snapshot.attempt import VANISHED, Desk, Seen, read_labels, relabelled
from pgkura.snapshot.components import (
    Parts,
    Stored,
    previous_manifest,
    reusable_archive,
    store_components,
    store_parts,
)
from pgkura.snapshot.definitions import Definitions
from pgkura.snapshot.hosted import hosted_components
from pgkura.snapshot.ledger import Ledger, StoredTable
from pgkura.snapshot.queries import query
from pgkura.snapshot.roles import roles_text
from pgkura.snapshot.scripts import after_script, before_script
from pgkura.snapshot.state import FollowedRange, TableKey, write_state

PIECE = 1024 * 1024
FLUSH_SECONDS = 10.0
BLOBS_NAME = "blobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that was read."""

    seen: Seen
    definitions: Definitions
    inventory: IO[bytes]
    ledger: Ledger
    today: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The snapshot that now exists."""

    manifest: Manifest
    result: Result


def finish(
    desk: Desk,
    session: Session,
    repo: Repository,
    platform: Platform,
    reading: Reading,
    *,
    elapsed: Callable[[], float],
    peak_memory: Callable[[], int],
) -> Finished:
    """Read what is read last, store what is not rows, write index, manifest and journal."""
    desk.progress.stage("finishing")
    seen = reading.seen
    facts = replace(seen.facts, sequences=_later_sequences(desk, session, platform, seen.facts))
    findings = _findings(session, reading)
    flushed = _wait_for_flush(desk, session, seen.moment.lsn)
    tables = table_data(facts.tables, reading.ledger.stored())
    stored, components = _store(repo, facts, platform, reading, tables)
    # What a crash of the server may take back must not be built upon.
    state = _store_state(repo, reading, desk.options.range_pages) if flushed else Parts()
    desk.stop.check()
    ledger = reading.ledger
    stored_bytes = sum(o.cipher_bytes for o in objects_of(chain(ledger.new_chunks(), stored.new, state.new)))
    result = decide(findings, desk.options.accepted)
    manifest = _manifest(
        repo,
        facts,
        reading,
        components,
        findings=findings,
        accepted=tuple(sorted(desk.options.accepted)),
        result=result,
        counts=_counts(tables, ledger, stored_bytes, elapsed(), peak_memory()),
        lock_days=desk.options.lock_days,
        # A table that was read as of a later instant would get what happened until then twice; and what a crash of the
        # server takes back is in no log.
        log=seen.log if flushed and not any(f.cls is FindingClass.LOST for f in findings) else None,
    )
    needed = chain(ledger.places() if state.refs else (), (ref for table in tables for ref in table.refs()))
    new = chain(ledger.untold_chunks(), stored.new, state.new)
    repo.commit_snapshot(manifest, new, state.refs, needed=needed)
    if reading.seen.log is not None and manifest.log is None:
        desk.progress.note("this snapshot is no base of the change log: not all of it is of one instant")
    if (newest := repo.manifest_ids()[-1]) != manifest.id:
        desk.progress.note(f"snapshot {newest} is dated later than this one, {manifest.id}: `latest` names that one")
    repo.append_journal(
        "backup",
        {"snapshot": manifest.id, "database": manifest.database, "result": result.value, "counts": manifest.counts},
    )
    return Finished(manifest=manifest, result=result)


def _later_sequences(desk: Desk, session: Session, platform: Platform, facts: SourceFacts) -> tuple[SequenceState, ...]:
    """Values of now for the sequences of the snapshot: never below what its rows have used."""
    for _ in range(5):
        session.begin(isolation="read committed", read_only=True)
        try:
            with patient(session, desk.options.queue_wait_ms / 1000):
                now = {s.qname: s for s in read_sequences(session, platform, [])}
        except SqlError as error:
            if error.sqlstate in (LOCK_NOT_AVAILABLE, DEADLOCK):
                desk.progress.note("the application keeps a sequence locked: values as of the snapshot are stored")
                return facts.sequences
            if error.sqlstate not in VANISHED:
                raise
            continue  # one was dropped between the list and its reading
        finally:
            if not session.broken:
                session.rollback()
        return tuple(now.get(s.qname, s) for s in facts.sequences)
    raise DatabaseError("sequences keep vanishing while they are read", hint="run it again at a quieter time")


def _findings(session: Session, reading: Reading) -> tuple[Finding, ...]:
    seen = reading.seen
    unreadable = [
        Finding(cls=FindingClass.DENIED, object=f"{kind} {quote_ident(name)}", reason=reason)
        for kind, name, reason in session.rows(query("unreadable"))
    ]
    unlogged = [
        Finding(
            cls=FindingClass.BY_DESIGN,
            object=f"table {t.qname.sql}",
            reason="copied; an unlogged table is emptied by the server itself after a crash",
            rule="unlogged-not-durable",
        )
        for number, t in enumerate(seen.facts.tables)
        if t.persistence == "u" and t.kind == "r" and t.readable and number not in seen.absent
    ]
    return (
        *reading.ledger.findings,
        *relabelled(seen.labels, read_labels(session)),
        *seen.denied,
        *unreadable,
        *unlogged,
    )


def _store_state(repo: Repository, reading: Reading, pages: int) -> Parts:
    seen = reading.seen
    if seen.point is None:
        return Parts()
    followed = ((seen.facts.tables[n].oid, key, ranges) for n, key, ranges in _followed(reading))
    return store_parts(repo, write_state(seen.point, pages, followed))


def _followed(reading: Reading) -> Iterator[tuple[int, TableKey, Iterator[FollowedRange]]]:
    """The tables that the next run can go on from, by number; each one's ranges must be read before the next."""
    seen = reading.seen
    for number, ranges in reading.ledger.followed(reading.today):
        key = seen.keys.get(seen.facts.tables[number].oid)
        if key is not None:
            yield number, key, ranges


def _wait_for_flush(desk: Desk, session: Session, lsn: str) -> bool:
    """A crash of the server must not take back what the snapshot holds (asynchronous commits are seen early)."""
    deadline = time.monotonic() + FLUSH_SECONDS
    nudged = False
    while not session.one(query("flushed"), (lsn,))[0]:
        desk.stop.check()
        if time.monotonic() > deadline:
            desk.progress.note("the server has not yet flushed its log up to the snapshot: the next backup reads all")
            return False
        if not nudged:
            nudge(session)
            nudged = True
        desk.stop.wait(0.05)
    return True


def nudge(session: Session) -> None:
    """Make the server flush its log: whoever commits synchronously flushes all that lies before the commit.

    The message is the smallest thing to commit; replication carries it only to who asks for messages. `local`: no
    standby is waited for.
    """
    session.begin(isolation="read committed", read_only=False)
    try:
        session.execute("SET LOCAL synchronous_commit = local")
        session.rows("SELECT pg_catalog.pg_logical_emit_message(true, 'pgkura', '')")
        session.commit()
    except SqlError:
        session.rollback()
        # Not allowed here: the log writer, if it sleeps, is woken by the end of any transaction with an id.
        session.rows("SELECT pg_catalog.pg_current_xact_id()")


def table_data(tables: tuple[TableFacts, ...], stored: Iterable[StoredTable]) -> list[TableData]:
    """The chunk list. Rows of a leaf whose place depends on the server go to the root."""
    found: list[TableData] = []
    for one in stored:
        if one.number == BLOBS:
            name, columns, target = BLOBS_NAME, "", BLOBS_NAME
        else:
            table = tables[one.number]
            name = table.qname.sql
            columns = table.column_list
            target = QualifiedName(*table.load_root.split("\0", 1)).sql if table.load_root else name
            if one.columns is not None:
                columns = f"({', '.join(map(quote_ident, one.columns))})" if one.columns else ""
        found.append(
            TableData(
                number=one.number,
                name=name,
                columns=columns,
                target=target,
                rows=one.rows,
                bytes=one.bytes,
                layers=one.layers,
                binary=one.binary,
            )
        )
    return found


def _store(
    repo: Repository, facts: SourceFacts, platform: Platform, reading: Reading, tables: list[TableData]
) -> tuple[Stored, Mapping[str, Component]]:
    definitions = reading.definitions
    texts = {**definitions.texts(), "roles": roles_text(facts, platform)}
    kinds = {n: Component(fingerprint=repo.mac(texts[n].encode()), ref=None) for n in COMPONENTS}
    previous = previous_manifest(repo, facts.database.name, facts.system_identifier)
    archive = reusable_archive(previous, kinds, definitions.pg_dump_version)
    if archive is not None and archive.ref is not None and repo.known(archive.ref.mac) is None:
        archive = None  # its object is gone from the store
    contents: dict[str, Iterable[bytes]] = {name: [texts[name].encode()] for name in COMPONENTS}
    if archive is None:
        contents["archive"] = _pieces(definitions.archive)
    contents["facts"] = canonical.encode_in_pieces(facts.as_json())
    contents["inventory"] = _pieces(reading.inventory)
    contents["chunks"] = write_chunk_list(tables)
    contents["before.sql"] = [before_script(facts, platform).encode()]
    items = read_items(b"".join(_pieces(reading.inventory))) if platform.name != "plain" else {}
    for name, text in hosted_components(facts, definitions.toc, items, platform, tables).items():
        contents[name] = [text.encode()]
    unstated = unstated_privileges(
        {
            key: item
            for key, item in unstated_items(_lines(reading.inventory)).items()
            if str(item.get("owner", "")) not in platform.owners
        }
    )
    after = after_script(facts, platform, definitions.matviews(), reading.seen.public, unstated)
    contents["after.sql"] = [after.encode()]
    stored = store_components(repo, contents)
    return stored, stored.components if archive is None else {**stored.components, "archive": archive}


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    return iter(file)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(PIECE):
        yield piece


def _counts(
    tables: list[TableData], ledger: Ledger, stored_bytes: int, seconds: float, peak_memory: int
) -> dict[str, int]:
    own = [t for t in tables if t.number != BLOBS]
    return {
        "tables": len(own),
        "rows": sum(t.rows for t in own),
        "bytes_read": ledger.bytes_read,
        "bytes_stored": stored_bytes,
        "chunks": sum(len(t.layers) for t in tables),
        "chunks_unchanged": ledger.chunks_unchanged,
        "seconds": round(seconds),
        "peak_memory_bytes": peak_memory,
    }


def _manifest(
    repo: Repository,
    facts: SourceFacts,
    reading: Reading,
    components: Mapping[str, Component],
    *,
    findings: tuple[Finding, ...],
    accepted: tuple[str, ...],
    result: Result,
    counts: Mapping[str, int],
    lock_days: int,
    log: Mapping[str, str] | None,
) -> Manifest:
    now = datetime.now(UTC)
    return Manifest(
        id=new_id(now, max(repo.manifest_ids(), default=None)),
        created=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        host_id=repo.host_id,
        database=facts.database.name,
        server_version_num=facts.server_version_num,
        system_identifier=facts.system_identifier,
        snapshot=reading.seen.moment.visible,
        lsn=reading.seen.moment.lsn,
        pgkura_version=__version__,
        pg_dump_version=reading.definitions.pg_dump_version,
        result=result.value,
        skipped=findings,
        accepted=accepted,
        counts=counts,
        components=components,
        epoch=repo.epoch,
        expires=expiry(f"{now:%Y-%m-%dT%H:%M:%SZ}", lock_days),
        log=log,
    )
