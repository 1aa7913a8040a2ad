"""What `--at` can say. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pgkura.core.errors import UsageError
from pgkura.core.wal import Visible, parse_lsn, time_text

_XID = re.compile(r"(?:(before|after)\s+)?xid\s+([0-9]{1,20})\Z")
_WORDS = (
    "TIME (2026-11-26T10:17Z), LSN (0/16B3748), xid N, before xid N, after xid N, snapshot XMIN:XMAX:XIP, latest, "
    "or the name of a mark"
)


class Kind(StrEnum):
    """How a moment is told. All but SNAPSHOT are prefixes of the commit order."""

    LSN = "lsn"
    XID = "xid"
    BEFORE = "before"
    TIME = "time"
    SNAPSHOT = "snapshot"
    MARK = "mark"
    LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """`number` is a position, a transaction or a time in microseconds, by kind."""

    kind: Kind
    text: str
    number: int = 0
    visible: Visible | None = None


def parse_moment(text: str) -> Moment:
    """Raises UsageError. What looks like nothing else is the name of a mark; `mark NAME` always is."""
    said = text.strip()
    lower = said.lower()
    if not said:
        raise UsageError("--at says no moment", hint=_WORDS)
    if lower == "latest":
        return Moment(kind=Kind.LATEST, text=said)
    if lower.startswith("mark "):
        return Moment(kind=Kind.MARK, text=said[5:].strip())
    if found := _XID.match(lower):
        kind = Kind.BEFORE if found[1] == "before" else Kind.XID
        return Moment(kind=kind, text=said, number=int(found[2]))
    if lower.startswith("snapshot "):
        return _snapshot(said)
    try:
        return Moment(kind=Kind.LSN, text=said, number=parse_lsn(lower.removeprefix("lsn ").strip()))
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(said[5:].strip() if lower.startswith("time ") else said)
    except ValueError:
        return Moment(kind=Kind.MARK, text=said)
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    since = when - datetime(1970, 1, 1, tzinfo=UTC)
    return Moment(
        kind=Kind.TIME, text=said, number=(since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    )


def _snapshot(said: str) -> Moment:
    try:
        visible = Visible.parse(said[9:].strip())
    except ValueError as error:
        raise UsageError(
            f"--at {said!r} is no snapshot", hint="as pg_current_snapshot() prints it: 10:20:10,14"
        ) from error
    return Moment(kind=Kind.SNAPSHOT, text=said, visible=visible)


__all__ = ["Kind", "Moment", "parse_moment", "time_text"]
