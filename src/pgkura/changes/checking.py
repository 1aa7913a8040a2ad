"""Reads a change log back: signatures, records, every byte of parts and bodies; with the identity every message too.

Each damage is named with its chain and the time it touches, which is that of the neighbours where a file tells nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgkura.changes import pgoutput
from pgkura.changes.chains import last_record
from pgkura.changes.log import decode, plain_messages
from pgkura.changes.spans import cover
from pgkura.core.errors import FormatTooNew, PgkuraError, Tampered
from pgkura.core.progress import Progress
from pgkura.core.wal import lsn_text, time_text
from pgkura.repository.bundles import Bundle, BundleName, Entry, Run, head_record
from pgkura.repository.changes import CHAINS, CHANGES, HEAD, START, PartRef, SegmentName
from pgkura.repository.repository import Repository
from pgkura.storage.base import KeyNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file, what is wrong with it and what that touches. `later`: it is of a format we do not read yet."""

    file: str
    reason: str
    later: bool = False


@dataclass(slots=True, kw_only=True)
class Checked:
    """What was read."""

    segments: int = 0
    bundles: int = 0
    bytes: int = 0
    transactions: int = 0
    damages: list[Damage] = field(default_factory=list)


def check_log(repo: Repository, *, deep: bool, progress: Progress) -> Checked:
    """All chains. `deep`: decoded too, which needs the identity."""
    checked = Checked()
    for chain in repo.chain_ids():
        _Chain(repo, chain, deep, checked).check(progress)
    return checked


class _Chain:
    """One chain."""

    def __init__(self, repo: Repository, chain: str, deep: bool, checked: Checked) -> None:
        self._repo, self._chain, self._deep, self._checked = repo, chain, deep, checked
        self._database = ""
        self._start: int | None = None
        self._runs: list[Run] = []
        self._hashes: dict[SegmentName, tuple[str, Mapping[str, Any]]] = {}

    def check(self, progress: Progress) -> None:
        """Records first: they say what it is of and where it begins."""
        self._records()
        self._runs = self._repo.runs(self._chain)
        progress.stage(f"reading change log {self._chain}", total=len(self._runs), unit="files")
        for run in self._runs:
            try:
                if isinstance(run, BundleName):
                    self._bundle(run)
                else:
                    self._segment(run)
            except PgkuraError as error:
                self._damaged(run, run.key(self._chain), error)
            progress.advance(1)
        self._gaps()

    def _records(self) -> None:
        for name in self._repo.chain_names(self._chain, ""):
            key = f"{CHAINS}{self._chain}/{name}"
            try:
                record = self._repo.chain_record(self._chain, name)
                if record is None:
                    continue  # a prune has just removed it
                if name == HEAD:
                    self._database = str(record["database"])
                elif name == START:
                    self._start = self._repo.chain_start(self._chain, record)
            except PgkuraError as error:
                self._tell(key, error, f"it is a record of change log {self._chain}: all of its time")

    # --- files

    def _segment(self, name: SegmentName) -> None:
        record, rest = self._repo.segment(self._chain, name)
        key = name.key(self._chain)
        made = decode(record, name, self._chain, key)
        if len(rest) != made.rest_bytes:
            raise Tampered(f"{key} contradicts itself", detail="it is cut short")
        self._checked.segments += 1
        self._checked.bytes += len(rest)
        entry = Entry.of(name, record, rest)
        self._compare(key, entry)
        self._parts(name, [ref for ref, _ in made.parts])
        if self._deep:
            self._decode(entry, rest, key)

    def _compare(self, key: str, entry: Entry) -> None:
        """A bundle comes before the segments that it replaces: both say the same while both are there."""
        known = self._hashes.get(entry.name)
        if known is not None and known != (entry.sha256, entry.record):
            raise Tampered(f"{key} contradicts a bundle", detail="they hold different records or messages")

    def _bundle(self, name: BundleName) -> None:
        key = name.key(self._chain)
        bundle = self._repo.bundle(self._chain, name)
        if head_record(self._chain, bundle.entries, bundle.head.bodies) != bundle.head.record:
            raise Tampered(f"{key} contradicts itself", detail="its sums are not those of its segments")
        self._checked.bundles += 1
        for entry in bundle.entries:
            decode(entry.record, entry.name, self._chain, key)
            self._compare(key, entry)
            self._hashes[entry.name] = (entry.sha256, entry.record)
        self._parts(name, bundle.head.parts)
        for entry in (e for e in bundle.entries if e.body is None):
            self._entry(entry, b"", key)
        for ref in bundle.head.bodies:
            self._body(bundle, ref)

    def _body(self, bundle: Bundle, ref: PartRef) -> None:
        """Of a damaged one those segments are named whose bytes are not what they were."""
        entries = [e for e in bundle.entries if e.body == ref]
        file = f"{CHANGES}{self._chain}/bodies/{ref.id}"
        try:
            data = self._repo.storage.get(file)
        except PgkuraError as error:
            self._damaged(bundle.head.name, file, error, entries)
            return
        self._checked.bytes += len(data)
        wrong = [e for e in entries if _hash(data[e.offset : e.offset + e.size]) != e.sha256]
        if wrong or (len(data), _hash(data)) != (ref.bytes, ref.sha256):
            damage = Tampered(f"{file} is damaged", detail="its bytes are not those that were stored")
            self._damaged(bundle.head.name, file, damage, wrong or entries)
        for entry in (e for e in entries if e not in wrong):
            self._entry(entry, data[entry.offset : entry.offset + entry.size], file)

    def _entry(self, entry: Entry, sealed: bytes, file: str) -> None:
        self._checked.segments += 1
        if self._deep:
            try:
                self._decode(entry, sealed, file)
            except PgkuraError as error:
                self._damaged(entry.name, file, error, [entry])

    def _parts(self, run: Run, parts: Iterable[PartRef]) -> None:
        for ref in parts:
            try:
                self._checked.bytes += len(self._repo.part(self._chain, ref))
            except PgkuraError as error:
                self._damaged(run, f"{CHANGES}{self._chain}/parts/{ref.id}", error)

    def _decode(self, entry: Entry, rest: bytes, what: str) -> None:
        """Whole transactions, as many of them and of changes as the record says, each within its bounds."""
        segment = decode(entry.record, entry.name, self._chain, what)
        if any(True for ref, _ in segment.parts if not self._there(ref)):
            return  # told already
        told = _Count(entry.name, what)
        for payload in plain_messages(self._repo, self._chain, segment, rest, what):
            told.take(payload)
        told.end(segment.transactions, segment.changes, int(entry.record["messages"]))
        self._checked.transactions += told.transactions

    def _there(self, ref: PartRef) -> bool:
        try:
            self._repo.part(self._chain, ref)
        except PgkuraError:
            return False
        return True

    # --- what is told

    def _gaps(self) -> None:
        if self._start is None:
            return
        read = cover(self._start, self._runs)
        at = read[-1].end if read else self._start
        behind = [run for run in self._runs if run.end > at]
        if behind:
            where = f"{CHANGES}{self._chain}/segments/{at:016X}-"
            touched = SegmentName(at, min(run.start for run in behind))
            gap = Tampered("it is missing", detail="later ones are there")
            self._tell(where, gap, self._window(touched, None))

    def _damaged(self, run: Run, file: str, error: PgkuraError, entries: Sequence[Entry] | None = None) -> None:
        if isinstance(error, KeyNotFound) and run not in self._repo.runs(self._chain):
            return  # a prune has just removed it
        self._tell(file, error, self._window(run, entries))

    def _window(self, run: Run, entries: Sequence[Entry] | None) -> str:
        """Which part of the log, and when it was."""
        start, end = run.start, run.end
        if entries:
            start, end = entries[0].name.start, entries[-1].name.end
            since, until = _first_time(entries[0].record), _last_time(entries[-1].record)
        else:
            since, until = self._beside(run)
        whose = f" of database {self._database!r}" if self._database else ""
        when = f"between {since or 'its beginning'} and {until or 'its end'}"
        return f"it touches change log {self._chain}{whose}, {lsn_text(start)} to {lsn_text(end)}, {when}"

    def _beside(self, run: Run) -> tuple[str, str]:
        """The last moment before a file and the first behind it that others tell of; '' where there is none."""
        before = [r for r in self._runs if r.end <= run.start]
        behind = [r for r in self._runs if r.start >= run.end]
        since = next((_last_time(t) for r in reversed(before) if (t := self._told(r, last=True))), "")
        return since, next((_first_time(t) for r in behind if (t := self._told(r, last=False))), "")

    def _told(self, run: Run, *, last: bool) -> Mapping[str, Any] | None:
        try:
            if isinstance(run, BundleName) and not last:
                return self._repo.bundle(self._chain, run).entries[0].record
            return last_record(self._repo, self._chain, run)
        except PgkuraError:
            return None

    def _tell(self, file: str, error: PgkuraError, touches: str) -> None:
        reason = error.reason
        later = isinstance(error, FormatTooNew)
        self._checked.damages.append(Damage(file=file, reason=f"{reason}; {touches}", later=later))


class _Count:
    """Messages of one segment."""

    def __init__(self, name: SegmentName, what: str) -> None:
        self._name, self._what = name, what
        self.transactions = self._changes = self._messages = 0
        self._position = name.start
        self._inside = False
        self._introduced: set[int] = set()

    def take(self, payload: bytes) -> None:
        """One message. Raises Tampered."""
        kind = payload[0]
        self._messages += 1
        if kind == pgoutput.BEGIN:
            self._need(not self._inside, "a transaction begins within another")
            self._inside = True
        elif kind == pgoutput.COMMIT:
            self._need(self._inside, "a transaction ends that did not begin")
            self._inside = False
            self.transactions += 1
            end = pgoutput.commit(payload).end
            self._need(self._position < end <= self._name.end, "a transaction is not where its name says")
            self._position = end
        elif kind == pgoutput.RELATION:
            self._introduced.add(pgoutput.relation_of(payload))
        elif kind == pgoutput.TRUNCATE:
            emptied = pgoutput.truncate(payload).relations
            self._changes += len(emptied)
            self._need(self._introduced.issuperset(emptied), "a table is not introduced")
        elif kind in pgoutput.CHANGES:
            self._changes += 1
            self._need(pgoutput.relation_of(payload) in self._introduced, "a table is not introduced")

    def end(self, transactions: int, changes: int, messages: int) -> None:
        """What the record says must be there, no more and no less."""
        self._need(not self._inside, "a transaction has no end")
        found = (self.transactions, self._changes, self._messages)
        self._need(found == (transactions, changes, messages), "it does not hold what its record says")
        self._need(not transactions or self._position == self._name.end, "its last transaction ends elsewhere")

    def _need(self, holds: bool, why: str) -> None:
        if not holds:
            raise Tampered(f"{self._what} contradicts itself", detail=why)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _first_time(record: Mapping[str, Any]) -> str:
    return time_text(int(record["first_time"] or record["poll"]["time"]))


def _last_time(record: Mapping[str, Any]) -> str:
    return time_text(int(record["last_time"] or record["poll"]["time"]))
