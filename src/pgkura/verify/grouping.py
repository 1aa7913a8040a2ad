"""Which small tables and keys one worker looks at in one go. Pure."""

from collections.abc import Iterable, Sequence

from pgkura.core.names import QualifiedName
from pgkura.verify.checks import TableCheck
from pgkura.verify.foreign_keys import ForeignKey

MIB = 1024 * 1024
# A table below this costs less to read than the round trips around it.
SMALL_BYTES = MIB
# What one unit reads, and of how many tables it holds the locks meanwhile.
BYTES_AT_ONCE = 8 * MIB
AT_ONCE = 64
# One statement joins this many keys; the server keeps the hash tables of all until it ends.
KEYS_AT_ONCE = 32
JOINED_BYTES = 32 * MIB


def tables_together(checks: Sequence[TableCheck]) -> list[tuple[TableCheck, ...]]:
    """In their order, small ones with others."""
    small = [check for check in checks if check.in_one_stream and check.bytes < SMALL_BYTES and not check.select]
    chosen = {id(check) for check in small}
    alone = [(check,) for check in checks if id(check) not in chosen]
    groups: list[list[TableCheck]] = []
    size = 0
    for check in small:
        if not groups or len(groups[-1]) == AT_ONCE or size >= BYTES_AT_ONCE:
            groups.append([])
            size = 0
        groups[-1].append(check)
        size += check.bytes
    return [*alone, *map(tuple, groups)]


def keys_together(keys: Sequence[ForeignKey], checks: Iterable[TableCheck]) -> list[tuple[ForeignKey, ...]]:
    """Keys between tables that are known to be small with others, each of the rest by itself and sooner."""
    sizes: dict[QualifiedName, int] = {}
    for check in checks:
        sizes |= dict.fromkeys(check.relations, check.bytes)

    def joined(key: ForeignKey) -> int:
        return sizes.get(key.table, JOINED_BYTES) + sizes.get(key.referenced, JOINED_BYTES)

    alone = [(key,) for key in keys if joined(key) >= JOINED_BYTES]
    groups: list[list[ForeignKey]] = []
    size = 0
    for key in keys:
        if joined(key) >= JOINED_BYTES:
            continue
        if not groups or len(groups[-1]) == KEYS_AT_ONCE or size + joined(key) > JOINED_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(key)
        size += joined(key)
    return [*alone, *map(tuple, groups)]
