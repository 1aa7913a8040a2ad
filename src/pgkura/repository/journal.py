"""The journal: append-only signed records of what was done."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgkura.core.errors import Tampered
from pgkura.repository import canonical
from pgkura.repository.keeping import Keeping
from pgkura.repository.later import refuse_later_record
from pgkura.storage.base import Stored

JOURNAL = "journal/"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRecord:
    """One append-only record: what was done, when, by whom."""

    id: str
    kind: str
    created: str
    by: str
    body: Mapping[str, Any]


class Journal(Keeping):
    """A part of Repository, which has the keys."""

    @property
    def host_id(self) -> str:
        """Who signs here."""
        raise NotImplementedError

    def believed(self, prefix: str) -> list[Stored]:
        """Files that count, by key."""
        raise NotImplementedError

    def open_record(self, kind: str, key: str, data: bytes) -> tuple[str, bytes]:
        """(signer, payload) of a stored record."""
        raise NotImplementedError

    def append_journal(self, kind: str, body: Mapping[str, Any]) -> str:
        """Add a signed record; returns its id."""
        record = {
            "version": 1,
            "kind": kind,
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "by": self.host_id,
            "body": json.loads(canonical.encode(dict(body))),
        }
        return self._append("journal", JOURNAL, canonical.encode(record), f"-{kind}").removeprefix(JOURNAL)

    def journal(self, kind: str | None = None) -> Iterator[JournalRecord]:
        """Records, by writer and counter."""
        for stored in self.believed(JOURNAL):
            if kind is not None and not stored.key.endswith(f"-{kind}"):
                continue
            yield self.journal_record(stored.key, self.storage.get(stored.key))

    def journal_record(self, key: str, data: bytes) -> JournalRecord:
        """One record, checked."""
        signer, payload = self.open_record("journal", key, data)
        record = canonical.decode(payload, key)
        refuse_later_record(record, key)
        try:
            if record["by"] != signer or not key.endswith(f"-{record['kind']}"):
                raise ValueError("moved")
            return JournalRecord(
                id=key.removeprefix(JOURNAL),
                kind=record["kind"],
                created=record["created"],
                by=signer,
                body=record["body"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Tampered(f"{key} is damaged", detail="not a journal record") from error
