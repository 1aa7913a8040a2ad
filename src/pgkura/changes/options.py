"""How a change log is followed, and what came of it."""

from dataclasses import dataclass, field

from pgkura.changes.guarding import Manners
from pgkura.postgres.transports import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to follow.

    period        seconds from a commit to the cut of its segment; also between two looks at the shape
    segment_bytes plain bytes at which a segment is cut earlier
    once          end when everything of now is stored
    beat          seconds without a segment after which one is provoked: the proof that all is well
    max_retained  bytes the server may keep for us before we give the slot up; 0 = no limit of ours, None = a share
                  of the server's own, or of four gigabytes
    last_slot     a new chain may take the last free slot
    manners       of the guard
    base_after    seconds without a change of tables or definitions after which a base is taken; 0 = never
    transport     over which kind of connection the slot is read
    bundle        make bundles of segments; None = where this credential may delete, so that prune can too
    keys_every    seconds between two looks at `keys/`: so long a revocation or a new epoch may not be known
    """

    period: float = 2.0
    segment_bytes: int = 16 * 1024 * 1024
    once: bool = False
    beat: float = 60.0
    max_retained: int | None = None
    last_slot: bool = False
    manners: Manners = field(default_factory=Manners)
    base_after: float = 0.0
    transport: Wanted = "auto"
    bundle: bool | None = None
    keys_every: float = 60.0


@dataclass(slots=True, kw_only=True)
class Watched:
    """What a run has done so far."""

    chain: str = ""
    position: str = ""
    segments: int = 0
    transactions: int = 0
    bytes: int = 0
    holes: int = 0
    bases: int = 0
    transport: str = ""
