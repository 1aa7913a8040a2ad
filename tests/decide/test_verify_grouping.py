"""Which tables and keys are looked at together."""

from dataclasses import replace

from pgkura.core.names import QualifiedName
from pgkura.verify.checks import Part, TableCheck
from pgkura.verify.foreign_keys import ForeignKey
from pgkura.verify.grouping import (
    AT_ONCE,
    BYTES_AT_ONCE,
    JOINED_BYTES,
    KEYS_AT_ONCE,
    MIB,
    keys_together,
    tables_together,
)


def _check(number: int, size: int) -> TableCheck:
    name = QualifiedName("s", f"t{number}")
    return TableCheck(name=str(name), relations=(name,), columns=("a",), parts=(Part(layers=()),), rows=1, bytes=size)


def _key(number: int, table: int, referenced: int) -> ForeignKey:
    return ForeignKey(
        table=QualifiedName("s", f"t{table}"), name=f"k{number}", referenced=QualifiedName("s", f"t{referenced}"),
        columns=("a",), keys=("a",), operators=(("pg_catalog", "="),), collations=(None,),
    )  # fmt: skip


def test_small_tables_go_together_and_nothing_is_lost() -> None:
    moved = replace(_check(7, 10), parts=(Part(layers=(), keep=(0,)),))
    large = [_check(n, 10 * MIB) for n in range(2)]
    small = [_check(n, MIB // 2) for n in range(100, 400)]
    groups = tables_together([*large, moved, *small])
    assert groups[:3] == [(large[0],), (large[1],), (moved,)]
    assert [check for group in groups[3:] for check in group] == small
    assert all(len(g) <= AT_ONCE and sum(c.bytes for c in g) <= BYTES_AT_ONCE + MIB for g in groups[3:])


def test_keys_of_large_and_unknown_tables_stay_alone() -> None:
    checks = [_check(1, JOINED_BYTES), *(_check(n, 100) for n in range(2, 60))]
    keys = [_key(0, 2, 1), _key(1, 3, 999), *(_key(n, n, n + 1) for n in range(2, 58))]
    groups = keys_together(keys, checks)
    assert groups[:2] == [(keys[0],), (keys[1],)]
    assert [key for group in groups[2:] for key in group] == keys[2:]
    assert max(map(len, groups)) == KEYS_AT_ONCE
