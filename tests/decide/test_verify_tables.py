"""Cutting a stream at chunk lengths, projecting rows, and planning what is compared with what."""

from dataclasses import replace
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from pgkura.catalog.platform import detect
from pgkura.core.errors import Tampered
from pgkura.core.facts import Column, DatabaseFacts, LargeObjectFacts, SourceFacts, TableFacts
from pgkura.core.names import QualifiedName
from pgkura.core.outcome import FindingClass
from pgkura.core.platform import PLAIN
from pgkura.core.refs import ChunkRef, Layer, ObjectRef
from pgkura.repository.lists import BLOBS, TableData
from pgkura.verify.checks import plan_checks
from pgkura.verify.tables import Cutter, copy_statements, numbered, projected, whole_lines

KEY = bytes(32)
OBJECT = ObjectRef(id="0" * 32, cipher_bytes=1, sha256="0" * 64)
PIECES = st.lists(st.binary(min_size=1, max_size=30), max_size=8)


def ref(data: bytes) -> ChunkRef:
    """As the manifest names it."""
    mac = blake3(data, key=KEY).hexdigest()
    return ChunkRef(object=OBJECT, offset=0, stored=1, length=len(data), rows=1, mac=mac)


def cut(text: bytes, places: list[int]) -> list[bytes]:
    """The text in pieces."""
    ends = sorted({p % (len(text) + 1) for p in places} | {len(text)})
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def same(chunks: list[bytes], stream: list[bytes]) -> bool:
    """What the cutter says."""
    cutter = Cutter(lambda: blake3(key=KEY), [(r.length, r.mac) for r in map(ref, chunks)])
    return all(cutter.feed(piece) for piece in stream) and cutter.ended()


@given(PIECES, st.lists(st.integers(min_value=0), max_size=6))
def test_a_stream_is_cut_wherever_it_breaks(chunks: list[bytes], places: list[int]) -> None:
    """The server's pieces and the chunks need not meet."""
    assert same(chunks, cut(b"".join(chunks), places))


@given(PIECES, st.binary(max_size=40))
def test_any_other_stream_differs(chunks: list[bytes], other: bytes) -> None:
    """One byte more, less or other is seen."""
    text = b"".join(chunks)
    assert same(chunks, [other]) is (other == text)
    assert not same(chunks, [text, b"x"])
    if text:
        assert not same(chunks, [text[:-1]])
        assert not same(chunks, [text[:-1], bytes([text[-1] ^ 1])])


@given(
    st.lists(st.lists(st.binary(max_size=5), min_size=3, max_size=3), max_size=6), st.lists(st.integers(0), max_size=5)
)
def test_projection_keeps_columns_in_their_new_order(rows: list[list[bytes]], places: list[int]) -> None:
    """Over any cut of the text."""
    clean = [[v.replace(b"\n", b"?").replace(b"\t", b"?") for v in row] for row in rows]
    text = b"".join(b"\t".join(row) + b"\n" for row in clean)
    assert b"".join(projected(cut(text, places), (2, 0))) == b"".join(r[2] + b"\t" + r[0] + b"\n" for r in clean)
    assert [line for lines in whole_lines(cut(text, places)) for line in lines] == text.split(b"\n")[:-1]


def test_rows_are_chosen_by_their_number() -> None:
    """Pieces of large objects that both sides have."""
    assert b"".join(numbered([b"1\t0\ta\n2\t", b"0\tb\n1\t9\tc\n"], frozenset({1}))) == b"1\t0\ta\n1\t9\tc\n"


def table(name: str, columns: str = "ab", **more: Any) -> TableFacts:
    """A table in `public`."""
    live = tuple(Column(attnum=n, name=c, type="t", not_null=False) for n, c in enumerate(columns))
    made: dict[str, Any] = {
        "oid": 1, "schema": "public", "name": name, "kind": "r", "owner": "o", "persistence": "p",
        "access_method": "heap", "filenode": 1, "pages": 1, "bytes": 1, "columns": live,
    }  # fmt: skip
    return TableFacts(**(made | more))


def facts(*tables: TableFacts, objects: tuple[int, ...] = ()) -> SourceFacts:
    """A database of these."""
    database = DatabaseFacts(
        name="d", owner="o", encoding="UTF8", collate="C", ctype="C", locale_provider="c", locale="", acl=None,
        comment="", settings=(), role_settings=(), connection_limit=-1,
    )  # fmt: skip
    return SourceFacts(
        server_version_num=150000, system_identifier="1", database=database, tables=tables, sequences=(),
        large_objects=tuple(LargeObjectFacts(oid=o, owner="o", size=1) for o in objects), roles=(), memberships=(),
        extensions=(),
    )  # fmt: skip


def data(number: int, name: str, rows: int = 1, columns: str = '("a", "b")') -> TableData:
    """Its rows."""
    layer = Layer(chunk=replace(ref(b"x" * rows), rows=rows))
    return TableData(number=number, name=name, columns=columns, target=name, rows=rows, bytes=rows, layers=(layer,))


def test_a_table_of_the_same_columns_is_compared_as_a_stream() -> None:
    """COPY with an explicit column list."""
    checks, findings = plan_checks(facts(table("t")), [data(0, "t")], facts(table("t")), PLAIN)
    assert not findings and checks[0].in_one_stream
    assert copy_statements(checks[0]) == ['COPY "public"."t" ("a", "b") TO STDOUT']


def test_columns_the_target_lacks_are_projected_away() -> None:
    """The catalog comparison reports the column; the other columns are still compared."""
    checks, findings = plan_checks(
        facts(table("t", "abc")), [data(0, "t", columns='("a", "b", "c")')], facts(table("t", "ca")), PLAIN
    )
    assert not findings and not checks[0].in_one_stream
    assert checks[0].parts[0].keep == (0, 2)
    assert copy_statements(checks[0]) == ['COPY "public"."t" ("a", "c") TO STDOUT']


def test_columns_that_are_not_stored_are_not_compared() -> None:
    """A table altered while it was backed up: of its stored rows, all columns are."""
    source = facts(table("t", "abc"))
    checks, findings = plan_checks(source, [data(0, "t", columns='("a", "c")')], source, PLAIN)
    assert not findings and checks[0].in_one_stream and checks[0].parts[0].keep == ()
    assert copy_statements(checks[0]) == ['COPY "public"."t" ("a", "c") TO STDOUT']


@pytest.mark.parametrize("missing", range(5))
def test_a_column_list_is_read_back_whatever_the_names(missing: int) -> None:
    """Of the columns that are left."""
    names = ('a", "b', 'a"', "a", "b\n\\", ")")
    whole = replace(
        table("t"), columns=tuple(Column(attnum=n, name=c, type="t", not_null=False) for n, c in enumerate(names))
    )
    left = replace(whole, columns=whole.columns[:missing] + whole.columns[missing + 1 :])
    assert whole.listed(left.column_list) == left.columns
    with pytest.raises(Tampered):
        left.listed(whole.column_list)
    with pytest.raises(Tampered):
        whole.listed("")


def test_what_cannot_be_compared_is_named() -> None:
    """Missing, unreadable, nothing in common."""
    source = facts(table("gone"), table("shut"), table("other"))
    there = facts(table("shut", readable=False), table("other", "xy"))
    checks, findings = plan_checks(source, [data(0, "gone"), data(1, "shut"), data(2, "other")], there, PLAIN)
    assert checks == []
    assert [(f.object, f.cls) for f in findings] == [
        ('rows of "public"."gone"', FindingClass.LOST),
        ('rows of "public"."shut"', FindingClass.DENIED),
        ('rows of "public"."other"', FindingClass.LOST),
    ]


def test_leaves_loaded_through_their_root_are_compared_together() -> None:
    """Each leaf with its own order of columns."""
    root = "public\0root"
    source = facts(table("l1", "ab", load_root=root), table("l2", "ba", load_root=root))
    rows = [data(0, "l1", 2), data(1, "l2", 3, columns='("b", "a")')]
    checks, findings = plan_checks(source, rows, source, PLAIN)
    assert not findings and len(checks) == 1 and not checks[0].in_one_stream
    assert checks[0].relations == (QualifiedName("public", "l1"), QualifiedName("public", "l2"))
    assert [p.keep for p in checks[0].parts] == [(), (1, 0)]
    assert (checks[0].rows, checks[0].bytes) == (5, 5)


def test_a_partitioned_table_has_no_rows_to_compare() -> None:
    """Old chunk lists name one that gave way to a statement."""
    source = facts(table("p", kind="p"))
    assert plan_checks(source, [data(0, "p", 0)], source, PLAIN) == ([], [])


def test_large_objects_that_both_have_are_compared() -> None:
    """Those that are missing are reported by the comparison of states."""
    blobs = [data(BLOBS, "blobs")]
    checks, _ = plan_checks(facts(objects=(5, 6)), blobs, facts(objects=(6, 7)), PLAIN)
    assert checks[0].numbers == frozenset({6}) and "{6}" in checks[0].select
    assert checks[0].title == "contents of large objects"
    assert plan_checks(facts(objects=(5,)), blobs, facts(), PLAIN) == ([], [])
    whole, _ = plan_checks(facts(objects=(5,)), blobs, facts(objects=(5,)), PLAIN)
    assert whole[0].in_one_stream


def test_a_platforms_ledgers_are_listed_not_compared() -> None:
    """And what is compared by its meaning is not compared by its rows."""
    platform = detect(["supabase_admin"], ["auth", "storage", "vault"])
    ledger = table("schema_migrations", schema="auth")
    secrets = table("secrets", schema="vault")
    source = facts(ledger, secrets)
    checks, findings = plan_checks(source, [data(0, "m"), data(1, "s")], source, platform)
    assert checks == []
    assert [(f.cls, f.rule) for f in findings] == [(FindingClass.MANAGED, "platform-rows")]


def test_an_extensions_condition_limits_its_configuration_table() -> None:
    """As in the backup; the table alone, without children."""
    source = facts(table("t", config_of="e", config_where="WHERE a > 1"))
    checks, _ = plan_checks(source, [data(0, "t")], source, PLAIN)
    assert copy_statements(checks[0]) == ['COPY (SELECT "a", "b" FROM ONLY "public"."t" WHERE a > 1) TO STDOUT']
