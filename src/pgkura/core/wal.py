"""Positions in the server's log, numbers of transactions, and what a snapshot sees. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")
_SNAPSHOT = re.compile(r"([0-9]{1,20}):([0-9]{1,20}):([0-9]{1,20}(?:,[0-9]{1,20})*)?\Z")
_EPOCH = 1 << 32
# Microseconds from 1970 to 2000, where the server's own times begin.
EPOCH_2000 = 946_684_800_000_000


def parse_lsn(text: str) -> int:
    """`16/B374D848` as a number. Raises ValueError."""
    found = _LSN.match(text)
    if found is None:
        raise ValueError(f"not a position in the log: {text!r}")
    return int(found[1], 16) << 32 | int(found[2], 16)


def lsn_text(lsn: int) -> str:
    """As the server writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """`pg_current_snapshot()`: 64-bit numbers of top-level transactions.

    Everything below `xmin` is seen, nothing from `xmax` on; in between all but those that were running.
    """

    xmin: int
    xmax: int
    running: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> "Visible":
        """`xmin:xmax:xip,…`. Raises ValueError."""
        found = _SNAPSHOT.match(text)
        if found is None:
            raise ValueError(f"not a snapshot: {text!r}")
        running = frozenset(map(int, found[3].split(","))) if found[3] else frozenset[int]()
        made = cls(xmin=int(found[1]), xmax=int(found[2]), running=running)
        if made.xmin > made.xmax or any(not made.xmin <= x < made.xmax for x in running):
            raise ValueError(f"not a snapshot: {text!r}")
        return made

    def sees(self, xid: int) -> bool:
        """Whether the snapshot sees what this transaction committed."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def sees_all_of(self, other: "Visible") -> bool:
        """Whether everything that `other` sees is seen here too."""
        return other.xmax <= self.xmax and not any(other.sees(x) for x in self.running)

    def widen(self, xid: int) -> int:
        """The 64-bit number of a transaction that ran within two thousand million of this snapshot."""
        near = (self.xmax & ~(_EPOCH - 1)) | xid
        if near > self.xmax + (_EPOCH >> 1):
            return near - _EPOCH if near >= _EPOCH else near
        return near + _EPOCH if near < self.xmax - (_EPOCH >> 1) else near


def time_text(microseconds: int) -> str:
    """A time as it can be given to `--at`."""
    when = datetime.fromtimestamp(microseconds // 1_000_000, UTC).replace(microsecond=microseconds % 1_000_000)
    return f"{when:%Y-%m-%dT%H:%M:%S.%f}Z"
